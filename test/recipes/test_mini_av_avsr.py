"""Scenes that are seen and heard: the corpus, configurations, masked sound, and every stage in miniature."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recipes.large_recipe import ROOT, copy, program, run

from speechkit.config import load_config, load_kind
from speechkit.data.batch import Batch, pad
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.errors import InputError
from speechkit.files import hash_file, write_jsonl
from speechkit.metrics.significance import Utterances
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.systems import read_systems
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/mini_av/avsr1"
PATH, MODULES = list(sys.path), ("plan", "scenes")
sys.path.insert(0, str(RECIPE / "local"))

import plan  # noqa: E402
import scenes  # noqa: E402

sys.path[:] = PATH
SIZES = ("--clips-train", 10, "--clips-dev", 5, "--clips-test", 5)


def loudness(samples, seconds=1 / scenes.FPS):
    """RMS of each picture's time."""
    length = round(seconds * scenes.RATE)
    parts = samples[: len(samples) // length * length].reshape(-1, length)
    return np.sqrt(np.mean(parts**2, axis=1))


def hashes(folder):
    return {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# --- scenes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voices():
    return np.random.default_rng(1).normal(size=3 * scenes.RATE).astype(np.float32)


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_a_scene_is_a_function_of_its_seed_and_of_time(kind, voices):
    scene = scenes.draw_scene(kind, 5)
    film, sound = scenes.film(scene, 2.0), scenes.sound(scene, 32000, voices)
    assert film.shape == (24, 64, 64, 3) and film.dtype == np.uint8 and sound.dtype == np.float32
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1, rel=1e-4)
    assert np.array_equal(film, scenes.film(scenes.draw_scene(kind, 5), 2.0))
    assert np.array_equal(sound, scenes.sound(scene, 32000, voices))
    other = scenes.draw_scene(kind, 6)
    assert np.abs(film.astype(int) - scenes.film(other, 2.0)).mean() > 2
    assert np.abs(np.corrcoef(sound, scenes.sound(other, 32000, voices))[0, 1]) < 0.5


def told_by_pictures(kind, film):
    """A number for each picture that goes with the loudness of a scene of this kind."""
    there = np.abs(film.astype(float) - np.median(film, axis=(0, 1, 2))).sum(-1)
    if kind == "ball":  # how low it is
        return (there * np.arange(64)[None, :, None]).sum((1, 2)) / there.sum((1, 2))
    if kind == "car":  # how near to the middle
        across = (there * np.abs(np.arange(64) - 31.5)).sum((1, 2)) / there.sum((1, 2))
        return -across
    return there.sum((1, 2))


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_pictures_tell_when_it_is_loud(kind, voices):
    found = []
    for seed in range(6):
        scene = scenes.draw_scene(kind, seed)
        film, sound = scenes.film(scene, 6.0, 1.5), scenes.sound(scene, 6 * scenes.RATE, voices, 1.5)
        found.append(np.corrcoef(told_by_pictures(kind, film), np.log(loudness(sound)))[0, 1])
    assert np.mean(found) > 0.5, found


# --- what is in which set ------------------------------------------------------------------------------


def test_no_scene_is_in_two_sets_and_every_kind_comes_up():
    said = [{"speaker": "x", "text": "a", "path": "p"}] * 3000
    sets = {name: plan.plan_clips(name, said, 1200, 1) for name in plan.CLIPS}
    sets |= {name: plan.plan_noisy(name, said[:1000], 1) for name in plan.NOISY}
    plan.check_apart(sets)
    for rows in sets.values():
        kinds = [row["scene"] for row in rows]
        assert {kinds.count(kind) for kind in scenes.KINDS} == {len(rows) // len(scenes.KINDS)}
    talking = np.mean([row["speech"] is not None for row in sets["clips_train"]])
    assert 0.55 < talking < 0.65
    assert {row["snr_db"] for row in sets["test_0db"]} == {0.0}
    sets["test_0db"][3] |= {key: sets["clips_train"][3][key] for key in ("scene", "scene_seed")}
    with pytest.raises(InputError, match="test_0db: .*the scene of clips_train"):
        plan.check_apart(sets)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A few tones under the names of mini_en's sets."""
    folder = tmp_path_factory.mktemp("mini_en")
    for number, name in enumerate(("train", "dev", "test", "hard", "unlabelled")):
        rows = []
        for place in range(5):
            utterance = f"{name}voice-{name}-{place:05d}"
            path = folder / name / "audio" / f"{utterance}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(24000 + 1000 * place) / 16000
            soundfile.write(path, 0.2 * np.sin(2 * np.pi * (300 + 100 * number) * time), 16000)
            condition = {"name": "room" if place == 4 else "clean"}
            row = {"utterance": utterance, "speaker": f"{name}voice", "text": f"{name} {place}"}
            rows.append({**row, "condition": condition, "path": str(path.relative_to(folder))})
        write_jsonl(folder / name / "sentences.jsonl", rows)
    return folder


def make(speech, out, *options):
    command = [sys.executable, "local/corpus.py", "--speech", speech, "--out", out, *SIZES, *options]
    return run(RECIPE, *command, timeout=280)


@pytest.fixture(scope="module")
def made(speech, tmp_path_factory):
    """The corpus and its data directories."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("mini_av")
    for command in (
        ["local/corpus.py", "--speech", speech, "--out", folder / "corpus", *SIZES, "--jobs", 1],
        ["local/data.py", folder / "corpus", folder / "data"],
    ):
        done = run(RECIPE, sys.executable, *command, timeout=280)
        assert done.returncode == 0, done.stderr
    return folder


def test_same_seed_same_bytes_for_any_jobs(speech, made, tmp_path):
    assert make(speech, tmp_path / "again", "--jobs", 3).returncode == 0
    first = hashes(made / "corpus")
    assert hashes(tmp_path / "again") == first and len(first) == 20 + 4 * 5 + 4 + 8 + 1
    assert make(speech, tmp_path / "other", "--seed", 2).returncode == 0
    other = hashes(tmp_path / "other")
    films = [name for name in other if name.endswith(".mkv")]
    assert not {other[name] for name in films} & set(first.values())
    again = make(speech, made / "corpus", "--jobs", 2)
    assert again.returncode == 0 and "up to date" in again.stderr


def test_clips_decode_and_are_what_was_drawn(made):
    from speechkit.data.array_records import read_record
    from speechkit.data.video_dump import dump_video
    from speechkit.data.video_shards import Options

    options = Options(size=64, audio=True, kind="evaluation")
    dump_video(made / "data/clips_test", made / "dump", options)
    frames = read_data_dir(made / "dump").tables["video_frames.scp"]
    rows = [json.loads(line) for line in (made / "corpus/clips_test/scenes.jsonl").read_text().splitlines()]
    assert len(rows) == len(frames) == 5
    for row in rows:
        scene = scenes.draw_scene(row["scene"], row["scene_seed"])
        drawn = scenes.film(scene, plan.CLIP_SECONDS, row["start"])
        seen = read_record(frames[row["utterance"]])
        assert seen.shape == (30, 64, 64, 3)
        nearest = np.abs(drawn[None].astype(int) - seen[7][None, None]).mean((0, 2, 3, 4)).argmin()
        assert np.array_equal(drawn[nearest], seen[7]) and abs(nearest - 14) <= 1


def test_noise_is_as_loud_as_is_told(speech, made):
    corpus = program(RECIPE / "local/corpus.py")
    rows = [json.loads(line) for line in (made / "corpus/test_0db/scenes.jsonl").read_text().splitlines()]
    for row in rows:
        said = corpus.read_speech(speech / row["speech"])
        heard = corpus.read_speech(made / "corpus" / row["path"])
        assert len(heard) == len(said) == row["samples"]
        share = np.corrcoef(said, heard)[0, 1] ** 2  # of the power that is speech
        assert 0.3 < share < 0.7, row


def test_data_directories(made):
    for name in (*plan.CLIPS, *plan.NOISY, *plan.CLEAN):
        data = read_data_dir(made / "data" / name, need_audio=False)
        clips = name.startswith("clips_")
        assert bool(data.tables.get("video.scp")) == clips and bool(data.text) == (not clips)
        kinds = set(data.tables["utt2cond"].values())
        assert kinds == ({"none"} if name == "test_clean" else set(scenes.KINDS))
    assert len(read_data_dir(made / "data/test_clean").text) == 4, "what is heard in a room is not clean"


def test_without_the_video_library_one_line_says_what_to_install(tmp_path):
    program = (
        "import runpy, sys\nsys.modules['av'] = None\nsys.path.insert(0, 'local')\n"
        f"sys.argv = ['local/corpus.py', '--speech', {str(tmp_path)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "runpy.run_path('local/corpus.py', run_name='__main__')"
    )
    done = run(RECIPE, sys.executable, "-c", program, timeout=280)
    assert done.returncode == 1 and "tools/setup.sh video" in done.stderr.splitlines()[-1]


def test_what_is_missing_is_told(tmp_path):
    done = make(tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "no such file; make the corpus first" in done.stderr
    done = run(RECIPE, sys.executable, "local/data.py", tmp_path, tmp_path / "data")
    assert done.returncode == 1 and "make the corpus first (stage 0)" in done.stderr


# --- configurations ------------------------------------------------------------------------------------


def test_systems_differ_in_nothing_but_what_they_read():
    systems = read_systems(RECIPE / "conf/systems.yaml").systems
    assert len({systems[name].train for name in ("baseline", "a", "av", "av_literal")}) == 1
    assert len({systems[name].train for name in ("pre_a", "pre_av", "pre_av_literal")}) == 1
    config = load_config(RunConfig, RECIPE / "conf/pretrain_av_bert.yaml")
    assert config.model.mask.max_coverage == 0.8
    assert "model.mask.max_coverage=1.0" in systems["pre_av_literal"].options


def test_fused_and_baseline_have_equally_many_parameters(tmp_path):
    from speechkit.encoders import conformer

    model = load_config(RunConfig, RECIPE / "conf/train_ctc.yaml").model
    dim = load_config(RunConfig, RECIPE / "conf/pretrain_av_bert.yaml").model.encoder.dim
    sizes = {}
    for name, option in {"fused": {"context_dim": dim}, "baseline": {"second_attention": 120}}.items():
        encoder = conformer.build(type(model.encoder)(**(vars(model.encoder) | option)), 64)
        sizes[name] = sum(parameter.numel() for parameter in encoder.parameters())
    assert sizes["fused"] == pytest.approx(sizes["baseline"], rel=0.02)


@pytest.mark.parametrize("modalities", ["audio", "audio_video"])
def test_pre_training_takes_two_steps(modalities):
    options = [f"model.encoder.modalities={modalities}", "model.encoder.dim=16", "model.encoder.layers=1"]
    config = load_config(RunConfig, RECIPE / "conf/pretrain_av_bert.yaml", options)
    statistics = {"mean": [0.0] * 64, "std": [1.0] * 64, "frames": 1}
    colours = {"mean": [0.5] * 3, "std": [0.3] * 3}
    torch.manual_seed(1)
    model = load_kind(MODELS, "av_bert").build(config.model, Assets(cmvn=statistics, video=colours))
    fields = {
        "features": pad([torch.randn(500, 64) for _ in range(2)]),
        "kmeans_audio": pad([torch.randint(0, 128, (166,)) for _ in range(2)]),
    }
    if modalities == "audio_video":
        fields["video"] = pad([torch.randint(0, 256, (30, 64, 64, 3), dtype=torch.uint8) for _ in range(2)])
        fields["kmeans_video"] = pad([torch.randint(0, 128, (160,)) for _ in range(2)])
    batch = Batch(["a", "b"], torch.tensor([1, 2]), None, fields)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for update in range(2):
        model.set_update(update)
        losses = model.loss(batch, update)
        total = sum(losses[name][0] / losses[name][1] for name in model.weights)
        assert total.isfinite()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_masked_sound_is_compared_clip_by_clip():
    masked = program(RECIPE / "local/masked_audio.py")
    names = tuple(f"c{n:02d}" for n in range(40))
    random = np.random.default_rng(0)

    def clips(share):
        return Utterances(names, names, np.full(40, 100), random.binomial(100, share, 40))

    found = {"sound and pictures": [clips(0.5)], "sound alone": [clips(0.7), clips(0.7)]}
    ((title, row),) = masked.compare(found).items()
    assert title == "sound and pictures < sound alone"
    assert row["first, wrong %"] < 55 < 65 < row["second, wrong %"] and "p < 0.001" in row["difference"]


# --- every stage -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A copy, and the recipe whose speech it takes, with trainings of a few updates."""
    folder = tmp_path_factory.mktemp("recipes")
    copy("mini_en/asr1", folder)
    here = copy("mini_av/avsr1", folder)
    for path in here.glob("conf/*train*.yaml"):
        text = re.sub(r"max_updates: \d+", "max_updates: 4", path.read_text())
        path.write_text(re.sub(r"every: \d+", "every: 2", text))
    return here


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_from_synthesis_to_tables_and_again(recipe):
    pytest.importorskip("av")
    command = ["./run.sh", "--corpus", "small", "--seeds", "1", "--jobs", "1"]
    done = run(recipe, *command, "--methods", "all", timeout=2300)
    work = recipe / "quick/small"
    logs = "".join(path.read_text()[-1500:] for path in work.glob("exp/*/seed*/**/*.log"))
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{logs[-6000:]}"
    report = (work / "RESULTS.md").read_text()
    for title in ("test_0db", "test_10db", "test_clean"):
        assert f"## Set {title}\n" in report
    assert "sound and pictures, blindfolded, seed1" in report
    assert "| transducer_av | transducer |" in report and "av/greedy < a/greedy" in report
    for name in (
        "clusters_of_a_clip",
        "masked_tokens_over_training_pre_av",
        "audio_tokens_that_speech_frames_read",
    ):
        assert (work / f"images/{name}.png").read_bytes()[:4] == b"\x89PNG"
    before = {path: path.stat().st_mtime_ns for path in Path(work / "exp").rglob("model.safetensors")}
    again = run(recipe, *command, "--methods", "all", timeout=2300)
    assert again.returncode == 0, again.stderr[-4000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (work / "RESULTS.md").read_text() == report
    for system in ("pre_av", "av"):  # as if they had been left out
        shutil.rmtree(work / "exp" / system)
    some = run(recipe, *command, "--stage", "8", "--methods", "pre_a,baseline,a", timeout=600)
    assert some.returncode == 0, some.stderr[-4000:]
