"""AV-BERT over Kinetics-600: the distribution in miniature, its broken copies, and every stage."""

import json
import re

import miniature_corpora as miniature
import pytest
import torch
from clips import make_clip, noise
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from tiny_training import weights

from speechkit.config import load_config
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.data.ledger import read_ledger
from speechkit.encoders.av_bert import AvBert
from speechkit.errors import InputError
from speechkit.models.assets import Assets
from speechkit.systems import read_systems
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/kinetics600/avbert1"
HEAD = "label,youtube_id,time_start,time_end,split\n"
VIDEOS = {  # set -> class -> its videos
    "train": {"playing drums": ["-aYd3aN_0bU", "__NrybzYzUg"], "abseiling": ["0a1B2c3D4e5", "zzZZ-_-zz90"]},
    "val": {"abseiling": ["1sVbXkCOBZ4", "9YfRo_aXu_w"]},
}


def names(part, start=15):
    """Clips of a set with their classes; they begin at 15 s, 16 s, and so on."""
    rows = [(video, label) for label, videos in VIDEOS[part].items() for video in videos]
    return {f"{video}_{start + n:06d}_{start + n + 3:06d}": label for n, (video, label) in enumerate(rows)}


def make_lists(folder):
    """<folder>/{train,val}.csv, of a column more than anybody needs, as some releases have it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in VIDEOS:
        rows = [
            f"{label},{n[:11]},{int(n[12:18])},{int(n[19:])},{part},0\n" for n, label in names(part).items()
        ]
        (folder / f"{part}.csv").write_text(HEAD.replace("\n", ",is_cc\n") + "".join(rows))
    return folder


def make_k600(folder, clip=None, flat=False):
    """<folder>/k600/{train,val}/[<class>/]<video>_<start>_<end>.mp4 and annotations/*.csv.

    Clips are files of a byte each, unless `clip` makes one at a path.
    """
    root = folder / "k600"
    for part in VIDEOS:
        for name, label in names(part).items():
            path = root / part / ("" if flat else label) / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            clip(path) if clip else path.write_bytes(b"x")
    make_lists(root / "annotations")
    return root


def film(path):
    """Three seconds of changing blocks and a tone."""
    make_clip(path, 3.0, size=(48, 64), picture=noise, sound=3.0, sound_codec="aac", sound_rate=44100)


@pytest.fixture
def prepare():
    """The recipe's reader."""
    return program(RECIPE / "local/data.py").prepare


@pytest.mark.parametrize("flat", [False, True], ids=["folders of classes", "flat"])
def test_clips_of_both_layouts_are_found(prepare, tmp_path, flat):
    root = make_k600(tmp_path, flat=flat)
    prepare(root, tmp_path / "data")
    for part in VIDEOS:
        data = read_data_dir(tmp_path / "data" / part, need_audio=False)
        assert data.utterances == sorted(f"k600-{name}" for name in names(part))
        for name, label in names(part).items():
            place = root / part / ("" if flat else label) / f"{name}.mp4"
            assert data.tables["video.scp"][f"k600-{name}"] == str(place)
            assert data.utt2spk[f"k600-{name}"] == f"k600-{name[:11]}"


def test_lists_elsewhere_and_by_their_other_names(prepare, tmp_path):
    root = make_k600(tmp_path)
    lists = make_lists(tmp_path / "kinetics600")
    (lists / "val.csv").rename(lists / "validate.csv")
    for path in (root / "annotations").iterdir():
        path.unlink()
    prepare(root, tmp_path / "data", lists=lists)
    assert len(read_data_dir(tmp_path / "data/val", need_audio=False).utterances) == 2


def test_missing_clips_are_counted(prepare, tmp_path, capsys):
    root = make_k600(tmp_path)
    gone, *_ = sorted((root / "train").rglob("*.mp4"))
    gone.unlink()
    with pytest.raises(InputError, match="1 of 4 utterances dropped .*missing file.* at most 0.2 may be"):
        prepare(root, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    prepare(root, tmp_path / "data", most=0.25)
    assert len(texts(tmp_path / "data/train/video.scp")) == 3
    (lost,) = [fate for fate in read_ledger(tmp_path / "data/train/ledger.jsonl") if not fate.kept]
    assert (lost.utterance, lost.reason, lost.seconds) == (f"k600-{gone.stem}", "missing file", 3.0)
    assert "missing file" in capsys.readouterr().out


def test_clips_in_no_list(prepare, tmp_path, capsys):
    root = make_k600(tmp_path)
    for part, name in (("train", "AAAAAAAAAAA_000001_000011.mp4"), ("val", "a holiday.mp4")):
        (root / part / name).write_bytes(b"x")
    prepare(root, tmp_path / "one")
    said = capsys.readouterr().err
    assert "train: 1 clips in no list, such as AAAAAAAAAAA_000001_000011: left out" in said
    assert "val: 1 clips in no list, such as a holiday" in said
    assert len(texts(tmp_path / "one/train/video.scp")) == 4
    prepare(root, tmp_path / "two", unlisted=True)
    assert "k600-AAAAAAAAAAA_000001_000011" in texts(tmp_path / "two/train/video.scp")
    assert len(texts(tmp_path / "two/val/video.scp")) == 2


def test_no_video_is_in_both_sets(prepare, tmp_path):
    root = make_k600(tmp_path)
    name = f"{VIDEOS['val']['abseiling'][0]}_000100_000110"
    (root / "train" / f"{name}.mp4").write_bytes(b"x")
    with open(root / "annotations/train.csv", "a") as file:
        file.write(f"abseiling,{name[:11]},100,110,train,0\n")
    prepare(root, tmp_path / "data", most=0.5)
    assert len(texts(tmp_path / "data/train/video.scp")) == 4
    fates = {fate.utterance: fate.reason for fate in read_ledger(tmp_path / "data/train/ledger.jsonl")}
    assert fates[f"k600-{name}"] == "of a video of val"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("abseiling,0a1B2c3D4e5,15", "3 fields where the first line has 6"),
        ("abseiling,../../etc/x,15,25,train,0", "youtube_id is not 11 letters"),
        ("abseiling,0a1B2c3D4e5,soon,25,train,0", "must be whole seconds"),
        ("abseiling,0a1B2c3D4e5,25,15,train,0", "time_end is not after time_start"),
        ('"abseiling,0a1B2c3D4e5,15,25,train,0', "no CSV: "),
    ],
)
def test_a_broken_line_of_a_list(prepare, tmp_path, row, says):
    root = make_k600(tmp_path)
    with open(root / "annotations/train.csv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match=f"train.csv:6: .*{says}"):
        prepare(root, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_what_is_not_there_or_no_list(prepare, tmp_path):
    root = make_k600(tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        prepare(tmp_path / "nowhere", tmp_path / "data")
    (root / "annotations/val.csv").write_text("AAAAAAAAAAA,1,11\n")
    with pytest.raises(InputError, match="val.csv:1: no column youtube_id"):
        prepare(root, tmp_path / "data")
    (root / "annotations/val.csv").unlink()
    with pytest.raises(InputError, match="no list: looked for .*validate.csv"):
        prepare(root, tmp_path / "data")
    for path in (root / "val").rglob("*.mp4"):
        path.unlink()
    with pytest.raises(InputError, match="val: no clip <video>_<start>_<end>.mp4"):
        prepare(root, tmp_path / "data")
    done = run(RECIPE, "python", "local/data.py", tmp_path, tmp_path / "data")
    assert done.returncode == 1 and "error: no folder: looked for" in done.stderr.splitlines()[-1]
    done = run(RECIPE, "./run.sh", "--stage", "1")
    assert done.returncode == 2 and "--corpus-dir: name Kinetics-600" in done.stderr


def test_the_published_values():
    systems = read_systems(RECIPE / "conf/systems.yaml").systems
    for name, modalities in (("av_bert_av", "audio_video"), ("av_bert_a", "audio")):
        config = load_config(RunConfig, RECIPE / systems[name].train, systems[name].options)
        encoder, mask = config.model.encoder, config.model.mask
        assert (encoder.modalities, encoder.layers, encoder.dim) == (modalities, 6, 128)
        assert encoder.grid == [20, 16, 16] and encoder.norm == "instance"
        assert (config.model.classes_video, config.model.classes_audio) == (8192, 4096)
        assert (mask.stage_updates, mask.width_step, mask.max_width) == (10000, 2, 11)
        assert (mask.first_probability, mask.last_probability) == (0.15, 0.45)
        assert (config.optim.name, config.optim.lr, list(config.optim.betas)) == ("adam", 3e-4, [0.9, 0.99])
        assert config.schedule.name == "constant" and config.optim.weight_decay == 0
        assert config.plan.max_utterances * config.plan.micro_batches == 32 * 8
        assert config.loop.max_updates == 100 * config.validation.every and config.validation.patience == 5
        video = AvBert(encoder, 64).video
        assert (video is None) == (modalities == "audio")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run over clips of which three are in no list, one of them without sound."""
    folder = tmp_path_factory.mktemp("k600")
    corpus = make_k600(folder, film)
    for n in range(3):
        path = corpus / f"val/BBBBBBBBBB{n}_000001_000004.mp4"
        make_clip(path, 3.0, picture=noise) if n == 2 else film(path)
    recipe = copy("kinetics600/avbert1", folder)
    options = ["--corpus-dir", corpus, "--unlisted", "true", "--max-drop", "0.25"]
    return recipe, options, stages(recipe, *options, timeout=1500)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_stage_in_miniature(trained):
    recipe, options, said = trained
    assert "finished stages 1 2 4 7 8" in said and "val: 3 clips in no list" in said
    work = recipe / "quick"
    assert {len(texts(work / "dump" / part / "km_video.scp")) for part in VIDEOS} == {4}
    labels = texts(work / "dump/train/km_audio.txt").values()
    assert {len(row.split()) for row in labels} <= {100, 101}  # 3 s and what the codec adds, a token in 30 ms
    for name, columns in (("av_bert_av", {"perplexity", "perplexity_video"}), ("av_bert_a", set())):
        lines = (work / f"exp/{name}/seed1/metrics.jsonl").read_text().splitlines()
        (_, last) = [row for row in map(json.loads, lines) if row["kind"] == "dev"]
        assert columns | {"perplexity_audio", "accuracy_audio"} <= last.keys() and last["update"] == 6
        assert ("perplexity_video" in last) == bool(columns)
    report = (work / "RESULTS.md").read_text()
    assert "| val | frames and sound | 5 | 4 | no audio 1 |" in report
    assert "| video and sound, seed1 |" in report and "| sound alone, seed1 |" in report
    for picture in ("clusters", "curves_av_bert_av", "curves_av_bert_a"):
        assert (work / f"images/{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert f"images/{picture}.png" in report
    again = stages(recipe, *options, "--stage", "2", "--stop-stage", "2", timeout=600)
    assert not re.search(r"\d clusters of", again), "all of it was up to date"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_recognisers_of_librispeech_read_what_was_trained(trained, tmp_path):
    miniature.make_librispeech(tmp_path, ("train-clean-100", *list(miniature.LIBRISPEECH)[3:]))
    copy("librispeech/ssl1", tmp_path)
    recipe, exp = copy("librispeech/asr1", tmp_path), trained[0] / "quick/exp"
    options = ["--corpus-dir", tmp_path / "LibriSpeech", "--subwords", "40", "--methods", "av_*"]
    stages(recipe, *options, "--av-bert", exp, timeout=1500)
    table = (recipe / "quick/RESULTS.md").read_text()
    for name, of in (("av_baseline_m", None), ("av_audio_m", "av_bert_a"), ("av_video_m", "av_bert_av")):
        assert f"| {name} | transducer |" in table
        assets = Assets.load(recipe / f"quick/exp/{name}/seed1/final/assets")
        assert assets.cmvn["mean"] == Assets.load(exp / "av_bert_av/seed1/final/assets").cmvn["mean"]
        found = weights(recipe / f"quick/exp/{name}/seed1/final")
        read = {key for key in found if key.startswith("fusion.av_bert.")}
        assert bool(read) == (of is not None)
        if of:
            source = weights(exp / of / "seed1/final")
            assert all(
                torch.equal(found[key], source[key.replace("fusion.av_bert.", "encoder.")]) for key in read
            )


def test_recognisers_ask_for_an_av_bert(tmp_path):
    done = run(copy("librispeech/asr1", tmp_path), "./run.sh", "--stage", "4", "--methods", "av_video_m")
    assert done.returncode == 2 and "--av-bert: name the folder" in done.stderr
