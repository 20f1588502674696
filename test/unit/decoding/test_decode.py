"""Decoding a data directory, tuning, and transcribing files, with a model trained on the spot."""

import json

import numpy as np
import pytest
import torch
from factories import make_wave
from tiny_training import World

import speechkit
from speechkit.bin.__main__ import main
from speechkit.decoding.recognizer import Recognizer, part
from speechkit.decoding.tune import _spread
from speechkit.errors import BadSample, InputError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    assert world.run("exp/tiny/seed1", loop__max_updates=4) == 0
    (world.folder / "words").write_text("one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nzero\n")
    return world


@pytest.fixture
def exp(world):
    return world.folder / "exp/tiny/seed1"


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_decode_writes_text_nbest_and_record(world, exp, capsys):
    assert main(["decode", "--model", str(exp), "--data", str(world.dev), "--force", "true"]) == 0
    out = exp / "decode_dev_greedy"
    ids = [line.split()[0] for line in lines(world.dev / "text")]
    assert [line.split()[0] for line in lines(out / "text")] == ids
    assert [json.loads(line)["utterance"] for line in lines(out / "nbest.jsonl")] == ids
    record = json.loads((out / "decode.json").read_text())
    assert (record["system"], record["seed"], record["set"], record["how"]) == ("tiny", 1, "dev", "greedy")
    assert record["seconds_audio"] > 1 and record["parameters"] > 100 and record["tuned_on"] is None
    trained = json.loads((exp / "final/run.json").read_text())["command"]
    assert trained.startswith("speechkit train") and record["commands"]["train"] == trained
    capsys.readouterr()
    assert main(["decode", "--model", str(exp), "--data", str(world.dev)]) == 0
    assert "up to date" in capsys.readouterr().err


def test_decoded_text_does_not_depend_on_the_batch(world, exp):
    texts = []
    for seconds in (1, 100):
        options = ["--force", "true", f"seconds={seconds}"]
        assert main(["decode", "--model", str(exp), "--data", str(world.dev), *options]) == 0
        texts.append((exp / "decode_dev_greedy" / "text").read_bytes())
    assert texts[0] == texts[1]


def test_a_lexicon_confines_the_words(world, exp):
    words = world.folder / "words"
    options = ["--how", "lexicon", "--lexicon", str(words), "search.name=ctc_beam", "search.beam=8"]
    assert main(["decode", "--model", str(exp), "--data", str(world.dev), *options]) == 0
    allowed = set(words.read_text().split())
    for line in lines(exp / "decode_dev_lexicon" / "text"):
        assert set(line.split()[1:]) <= allowed


@pytest.mark.parametrize(("by", "rate"), [("words", "wer"), ("characters", "cer")])
def test_tuning_takes_the_best_trial_and_writes_all_down(world, exp, by, rate):
    options = ["search.name=ctc_beam", "grid={beam: [4], word_bonus: [-2, 0, 4]}", "--how", "tuned"]
    options.append(f"tune_by={by}")
    options += ["--lexicon", str(world.folder / "words"), "--tune-on", str(world.dev)]
    assert main(["decode", "--model", str(exp), "--data", str(world.train), *options]) == 0
    tuned = json.loads((exp / "tune_tuned.json").read_text())
    assert [trial["word_bonus"] for trial in tuned["trials"]] == [-2, 0, 4]
    best = min(tuned["trials"], key=lambda trial: trial[rate])
    assert best[rate] == pytest.approx(100 * best["errors"] / best[by], abs=1e-4)
    assert tuned["chosen"] == {"beam": 4, "word_bonus": best["word_bonus"]}
    record = json.loads((exp / "decode_train_tuned" / "decode.json").read_text())
    assert record["tuned_on"] == tuned
    assert record["decode_config"]["search"]["word_bonus"] == best["word_bonus"]


def test_transcribe_equals_decode(world, exp, capsys):
    main(["decode", "--model", str(exp), "--data", str(world.dev), "--force", "true"])
    text = dict((line.split(maxsplit=1) + [""])[:2] for line in lines(exp / "decode_dev_greedy" / "text"))
    wav = dict(line.split(maxsplit=1) for line in lines(world.dev / "wav.scp"))
    model = speechkit.load(exp)
    assert model.transcribe([wav[u] for u in text]) == [text[u].strip() for u in text]
    first = next(iter(text))
    assert model.transcribe(wav[first]) == text[first].strip()
    capsys.readouterr()
    assert main(["transcribe", wav[first], "--model", str(exp)]) == 0
    assert capsys.readouterr().out == f"{wav[first]}\t{text[first].strip()}\n"


def test_transcribe_takes_waveforms_of_any_rate(exp, tmp_path):
    model = speechkit.load(exp)
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert isinstance(model.transcribe(wave), str)
    assert isinstance(model.transcribe(wave[::2].copy(), rate=8000), str)
    assert model.transcribe([wave, wave])[0] == model.transcribe(wave)


def test_transcribe_goes_on_after_a_bad_file_and_fails_in_the_end(exp, tmp_path, capsys):
    make_wave(tmp_path / "good.wav", 1.0)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    files = [str(tmp_path / name) for name in ("missing.wav", "bad.wav", "good.wav")]
    assert main(["transcribe", *files, "--model", str(exp)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(files[2])
    assert "missing.wav: no such file" in captured.err and "bad.wav" in captured.err


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_waveforms_of_a_wrong_shape_are_refused(exp, shape):
    with pytest.raises(InputError, match=r"a waveform must be \(S,\) finite samples"):
        speechkit.load(exp).transcribe([np.zeros(shape, np.float32)])


def test_a_waveform_without_a_frame_is_refused(exp):
    with pytest.raises(BadSample, match="hold no feature frame"):
        speechkit.load(exp).transcribe(np.ones(100, np.float32))


BAD = {
    "no experiment": (["--model", "{tmp}/nothing"], 1, "nothing: no such experiment folder"),
    "untrained": (["--model", "{tmp}"], 1, "holds no trained model"),
    "no data": (["--data", "{tmp}/none"], 1, "none: no such file or folder"),
    "no lm": (["--lm", "{tmp}/x.arpa"], 1, "x.arpa: no such file or folder"),
    "lm with greedy": (["--lm", "{words}"], 1, "use search.name=ctc_beam"),
    "grid without tuning set": (["grid={beam: [1, 2]}", "search.name=ctc_beam"], 2, "a grid needs --tune-on"),
    "tuning set without grid": (["--tune-on", "{dev}"], 2, "needs a grid"),
    "grid of nothing": (["grid={bean: [1]}", "search.name=ctc_beam"], 1, "has no such option"),
    "half a hypothesis": (["grid={beam: [1.5]}", "search.name=ctc_beam"], 1, "grid.beam: expected a whole"),
    "grid out of range": (["grid={beam: [4, 0]}", "search.name=ctc_beam"], 1, "beam=0"),
    "unknown search": (["search.name=ctc_been"], 1, "did you mean 'ctc_beam'?"),
    "unknown option": (["search.name=ctc_beam", "search.bean=3"], 1, "did you mean 'beam'?"),
    "how with a slash": (["--how", "a/b"], 2, "no slash, please"),
    "no such device": (["--device", "banana"], 1, "--device banana: cannot be used here"),
    "no such head": (["search.head=attention"], 1, "the model has no such head, but ctc"),
    "out for two": (["--data", "{dev}", "{dev}", "--out", "{tmp}/o"], 2, "--out takes one --data"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_command_lines_are_named(case, world, exp, tmp_path, capsys):
    options, status, message = BAD[case]
    places = {"tmp": tmp_path, "dev": world.dev, "words": world.folder / "words"}
    command = ["decode", "--model", str(exp), "--data", str(world.dev), "--how", "bad"]
    assert (
        main(
            [
                *command,
                *(
                    option.format(**places) if "{tmp}" in option or option in ("{words}", "{dev}") else option
                    for option in options
                ),
            ]
        )
        == status
    )
    assert message in capsys.readouterr().err
    assert not (exp / "decode_dev_bad").exists()


def test_an_unreadable_utterance_fails_the_decode(world, exp, tmp_path, capsys):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(world.dev, broken)
    rows = lines(broken / "wav.scp")
    utterance = rows[0].split()[0]
    (broken / "cut.wav").write_bytes(b"RIFF\0\0")
    (broken / "wav.scp").write_text("\n".join([f"{utterance} {broken / 'cut.wav'}", *rows[1:]]) + "\n")
    assert main(["decode", "--model", str(exp), "--data", str(broken)]) == 1
    assert f"utterance {utterance}" in capsys.readouterr().err
    assert not (exp / "decode_broken_greedy").exists()


def test_features_of_another_configuration_are_refused(world, exp, tmp_path, capsys):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(world.dev, other)
    command = ["decode", "--model", str(exp), "--data", str(other)]
    assert main(["features", "--data", str(other), "--jobs", "1", "low_freq=100"]) == 0
    assert main(command) == 1
    assert f"{other / 'features.json'}: of other features" in capsys.readouterr().err
    assert not (exp / "decode_other_greedy").exists()
    assert main(["features", "--data", str(other), "--jobs", "1"]) == 0
    assert main(command) == 0


def test_an_unfinished_training_names_its_checkpoints(tmp_path):
    (tmp_path / "step_20").mkdir()
    with pytest.raises(InputError, match="training has not finished, name one of its checkpoints: step_20"):
        Recognizer.load(tmp_path)


def test_halving_a_batch_keeps_its_fields(world, exp):
    recognizer = speechkit.load(exp)
    _, batches = recognizer.batches(world.dev)
    batch = next(iter(batches))
    half = part(batch, slice(0, len(batch) // 2))
    assert half.ids == batch.ids[: len(batch) // 2] and len(half["features"].values) == len(half)
    heads = recognizer.encode(batch)["ctc"][0]
    assert torch.allclose(recognizer.encode(half)["ctc"][0], heads[: len(half)], atol=1e-5)


def test_tuning_utterances_are_spread():
    assert _spread(list("dcba"), 2) == ["a", "c"] and _spread(["x"], 5) == ["x"]
