"""AISHELL-1: its reader, its download, the published values, and every stage in miniature."""

import hashlib
import json
import shutil

import miniature_corpora as mini
import pytest
import soundfile
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from recipes.test_mandarin_ssl import make_checkpoint
from unit.data.test_download import web  # noqa: F401

from speechkit.config import load_config
from speechkit.decoding import DecodeConfig
from speechkit.errors import InputError
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/aishell/asr1"
TRANSCRIPT = "aishell/data_aishell/transcript/aishell_transcript_v0.8.txt"


@pytest.fixture
def corpus(tmp_path):
    """AISHELL-1 in miniature; its folder and its texts."""
    return tmp_path / "aishell", mini.make_aishell(tmp_path, seconds=0.4)


def rewrite(path, old, new):
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def test_sets_become_data_directories(corpus, tmp_path, capsys):
    folder, made = corpus
    untold, latin = "BAC009S0003W0122", "BAC009S0002W0121"
    made["train"].pop(untold)
    rewrite(tmp_path / TRANSCRIPT, f"{untold} 我们 去 看 海\n", "")
    rewrite(tmp_path / TRANSCRIPT, f"{latin} 今天", f"{latin} ｋtv")
    made["train"][latin] = "KTV天气很好"  # lhotse's capitals; the tokenizer's normaliser makes them small
    program(RECIPE / "local/data.py").prepare(folder, tmp_path / "data")
    for name, expected in made.items():
        assert texts(tmp_path / "data" / name / "text") == expected
        lost = (tmp_path / "data" / name / "lost.txt").read_text().splitlines()
        assert [untold in line for line in lost] == ([True] if name == "train" else [])
    assert "data/train: 14 utterances, 3 speakers; 1 left out" in capsys.readouterr().out


def test_an_incomplete_copy_is_refused(corpus, tmp_path):
    folder, _ = corpus
    prepare = program(RECIPE / "local/data.py").prepare
    with pytest.raises(InputError, match="--corpus-dir names the folder of data_aishell"):
        prepare(folder / "data_aishell", tmp_path / "data")
    wav = folder / "data_aishell/wav"
    (wav / "dev/S0724/BAC009S0724W0123.wav").unlink()
    with pytest.raises(
        InputError, match="1 transcripts have no recording, the first is BAC009S0724W0123; copy"
    ):
        prepare(folder, tmp_path / "data")
    shutil.rmtree(wav / "dev")
    (wav / "S0724.tar.gz").touch()  # as it lies there before it is unpacked
    with pytest.raises(InputError, match="5 transcripts have no .*; unpack S0724.tar.gz and the like"):
        prepare(folder, tmp_path / "data")
    table = tmp_path / TRANSCRIPT
    table.write_text("".join(line for line in table.open() if "S0724" not in line))
    with pytest.raises(InputError, match="wav/dev: no recording in it"):
        prepare(folder, tmp_path / "data")
    done = run(RECIPE, "python", "local/data.py", tmp_path, tmp_path / "data")
    assert done.returncode == 1 and done.stderr.startswith("local/data.py: error: ")
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "data").exists()


def test_a_truncated_recording_stops_the_formatting_of_its_set(corpus, tmp_path):
    folder, _ = corpus
    path = folder / "data_aishell/wav/test/S0764/BAC009S0764W0122.wav"
    path.write_bytes(path.read_bytes()[:5000])
    program(RECIPE / "local/data.py").prepare(folder, tmp_path / "data")
    command = ["speechkit", "format", "--data", tmp_path / "data/test", "--out", tmp_path / "dump/test"]
    done = run(tmp_path, *command, "--kind", "evaluation", "--jobs", "1")
    assert done.returncode == 1 and not (tmp_path / "dump/test").exists()
    assert "BAC009S0764W0122: truncated audio" in done.stderr and "copy or record it again" in done.stderr


def test_the_release_is_downloaded_verified_and_unpacked(corpus, tmp_path, web, monkeypatch):  # noqa: F811
    folder, made = corpus
    fetching = program(RECIPE / "local/download.py")
    assert fetching.URL == "https://www.openslr.org/resources/33/data_aishell.tgz" and len(fetching.MD5) == 32
    _, url, served = web
    mini.pack_aishell(tmp_path, served / "data_aishell.tgz")
    with pytest.raises(InputError, match="another checksum"):
        fetching.fetch(tmp_path / "out", f"{url}/data_aishell.tgz")
    checksum = hashlib.md5((served / "data_aishell.tgz").read_bytes()).hexdigest()
    monkeypatch.setattr(fetching, "MD5", checksum)
    fetching.fetch(tmp_path / "out", f"{url}/data_aishell.tgz")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data_aishell"]
    assert not list((tmp_path / "out").rglob("*.tar.gz")), "the speakers' archives are unpacked"
    program(RECIPE / "local/data.py").prepare(tmp_path / "out", tmp_path / "data")
    assert texts(tmp_path / "data/test/text") == made["test"]


def test_values_are_those_of_the_paper():
    config = load_config(RunConfig, RECIPE / "conf/train_wav2vec2.yaml")
    assert config.plan.seconds * 16000 == 640_000 and config.plan.micro_batches == 4
    schedule, updates = config.schedule, config.loop.max_updates
    assert [share * updates for share in (schedule.warmup, schedule.hold)] == [10_000, 90_000]
    assert (updates, config.optim.lr, schedule.final, config.plan.min_seconds) == (200_000, 5e-5, 0.05, 0.5)
    time, channels = config.model.masking.time, config.model.masking.channels
    assert (time.probability, time.length, channels.probability, channels.length) == (0.65, 10, 0.5, 64)
    assert [(rule.pattern, rule.until) for rule in config.freeze] == [("encoder.*", 10_000)]
    decode = load_config(DecodeConfig, RECIPE / "conf/decode_ngram.yaml")
    assert decode.search.beam == 50 and decode.search.lm_unit == "token"
    assert (decode.grid["lm_weight"][-1], len(decode.grid["lm_weight"])) == (3.0, 13)
    assert (decode.grid["word_bonus"][0], len(decode.grid["word_bonus"])) == (-2.0, 9)


def make_bert(folder, words, **settings):
    """The folder of a BERT whose pieces are these words; as much of it as a tokenizer reads."""
    folder.mkdir()
    vocab = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocab), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_in_miniature(tmp_path):
    made = mini.make_aishell(tmp_path, seconds=2.2)
    characters = sorted(set("".join(mini.CHINESE)) - {" "})
    bert = make_bert(tmp_path / "bert", ["龘", *characters, "##天", "ktv"], do_lower_case=False)
    recipe = copy("aishell/asr1", tmp_path)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    options = ["--corpus-dir", tmp_path / "aishell", "--bert", bert, "--checkpoint", checkpoint]
    said = stages(recipe, *options, timeout=800)
    assert "finished stages 0 1 2 3 4 5 6 7 8" in said
    tokens = [line.split()[0] for line in (recipe / "quick/data/tokens/units/tokens.txt").open()]
    assert tokens[2:-1] == characters, "the pieces of the training text"
    arpa = (recipe / "quick/data/lm/ngram.arpa").read_text()
    unigrams = arpa.split("\\1-grams:")[1].split("\\2-grams:")[0].split("\n")
    assert {line.split("\t")[1] for line in unigrams if "\t" in line} - {"<s>", "</s>", "<unk>"} == set(
        characters
    )
    assert "\\4-grams:" in arpa

    exp = recipe / "quick/exp"
    for system, how in (("conformer", "greedy"), ("conformer", "ngram"), ("wav2vec2", "greedy")):
        folder = exp / system / f"seed1/decode_test_{how}"
        result = json.loads((folder / "result.json").read_text())
        assert result["scored"]["cer_counts_spaces"] is False
        assert result["cer"]["counts"]["characters"] == sum(map(len, made["test"].values()))
        assert all(len(line.split()) <= 2 for line in (folder / "text").open()), "no spaces in Chinese"
    assert "encoder from quick/exp/downloaded/seed1/final" in (exp / "wav2vec2/seed1/train.log").read_text()
    assert "CER does not count spaces" in (recipe / "quick/RESULTS.md").read_text()
    assert soundfile.info(next((recipe / "quick/dump/test/audio").rglob("*.wav"))).samplerate == 16000

    without = ["--corpus-dir", tmp_path / "aishell", "--bert", "none", "--stage", "3", "--stop-stage", "3"]
    stages(recipe, *without)
    kind = json.loads((recipe / "quick/data/tokens/units/tokenizer.json").read_text())["kind"]
    assert kind == "char"
