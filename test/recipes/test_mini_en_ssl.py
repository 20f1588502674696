"""Pre-training on mini_en: phones, the second language, borrowed sets, and every stage in miniature."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from recipes.large_recipe import ROOT, copy, program, run

from speechkit.data.kaldi_dir import read_data_dir
from speechkit.data.synthesis import Mark, Speech, Synthesizer, Voice
from speechkit.errors import InputError
from speechkit.systems import read_systems

RECIPE = ROOT / "egs/mini_en/ssl1"


@pytest.fixture(scope="module")
def local():
    """The recipe's programs as modules, without their sibling's left on the path."""
    path = list(sys.path)
    yield {
        name: program(RECIPE / f"local/{name}.py")
        for name in ("phones", "data", "second_language", "quality")
    }
    sys.path[:] = path


# --- phones of frames --------------------------------------------------------------------------------


def test_a_frame_holds_the_phone_in_its_middle(local):
    marks = [Mark("ˈa", 0.0149, 0.0350), Mark("l", 0.0350, 0.0350), Mark("tʃ", 0.0648, 0.0750)]
    found = local["phones"].frame_phones(Speech(np.zeros(1), 22050, [], marks), 1600 - 1)
    # Middles at 5, 15, 25 ... ms; the l of no length lasts until the next phone; 9 complete frames.
    assert found == ["sil", "a", "a", "l", "l", "l", "tʃ", "sil", "sil"]


def test_palatalisation_belongs_to_its_phone(local):
    marks = [Mark("t[", 0.0, 0.02), Mark("ʲ", 0.02, 0.04), Mark("oe:", 0.04, 0.06)]
    found = local["phones"].frame_phones(Speech(np.zeros(1), 22050, [], marks), 960, "ky")
    assert found == ["t\u032aʲ"] * 4 + ["œː"] * 2


def test_phones_follow_the_sound(local):
    """Vowels are louder than pauses, and a text's frames name the phones that the library names."""
    synthesizer = Synthesizer()
    voice = Voice(variant="m3", rate=130)
    speech = synthesizer.speak("a moon. a moon", voice)
    samples = int(len(speech.samples) * 16000 / speech.rate)
    phones = np.array(local["phones"].frame_phones(speech, samples))
    assert len(phones) == samples // 160
    frames = speech.samples[: len(speech.samples) // len(phones) * len(phones)].reshape(len(phones), -1)
    level = np.log(np.square(frames.astype(float)).mean(axis=1) + 1)
    assert level[phones == "uː"].mean() > level[phones == "sil"].mean() + 3
    runs = [phone for phone, before in zip(phones, ["", *phones]) if phone != before]
    assert [phone for phone in runs if phone != "sil"] == ["ɐ", "m", "uː", "n"] * 2 and runs.count("sil") >= 1


def test_a_sentence_of_another_length_is_refused(local):
    row = {"utterance": "u1", "text": "hello", "voice": vars(Voice()), "samples": 12}
    with pytest.raises(InputError, match=r"u1: \d+ samples now, 12 in the corpus"):
        local["phones"].speak_again([row])


# --- the second language -----------------------------------------------------------------------------


def test_the_second_language_is_planned_by_its_seed(local):
    plan = local["second_language"].plan
    rows = plan(50, 1)
    assert rows == plan(50, 1) != plan(50, 2)
    assert len({row["text"] for row in rows}) == len({row["utterance"] for row in rows}) == 50
    assert {row["voice"]["name"] for row in rows} == {"es"}
    assert {row["condition"]["name"] for row in rows} <= {"clean", "room", "telephone"}
    assert not re.search("[A-Z]", " ".join(row["text"] for row in rows)), "a symbol without a rule"
    for count in (0, 10**9):
        with pytest.raises(InputError, match="--count"):
            plan(count, 1)


def test_the_second_language_is_spoken_and_becomes_a_data_directory(local, tmp_path):
    seconds = [local["second_language"].write_corpus(tmp_path / name, 3, 1, 1) for name in ("a", "b")]
    assert seconds[0] == seconds[1] > 3
    first, again = (sorted((tmp_path / name / "audio").iterdir()) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again] and len(first) == 3
    data = local["data"].second_language(tmp_path / "a")
    assert len(data.wav) == 3 and all(speaker.startswith("es_") for speaker in data.utt2spk.values())
    assert all(name.startswith(speaker) for name, speaker in data.utt2spk.items()) and not data.text


# --- borrowed sets -----------------------------------------------------------------------------------


def test_a_borrowed_set_names_files_from_here_and_keeps_added_labels(local, tmp_path, monkeypatch, capsys):
    sibling, mine = tmp_path / "asr1", tmp_path / "ssl1"
    source = sibling / "quick/dump/dev"
    source.mkdir(parents=True), mine.mkdir()
    (sibling / "run.sh").touch()
    (source / "a.flac").touch()
    tables = {"wav.scp": "quick/dump/dev/a.flac", "utt2spk": "s", "feats.scp": "quick/f.ark:3"}
    for name, value in tables.items():
        (source / name).write_text(f"s-1 {value}\n")
    (source / "spk2utt").write_text("s s-1\n")
    (source / "features.json").write_text("{}")
    monkeypatch.chdir(mine)
    borrow, out = local["data"].borrow, mine / "dump/dev"
    relative = type(source)("../asr1/quick/dump/dev")
    borrow(relative, out)
    data = read_data_dir(out)
    assert data.wav == {"s-1": "../asr1/quick/dump/dev/a.flac"} and (mine / data.wav["s-1"]).is_file()
    assert data.tables["feats.scp"] == {"s-1": "../asr1/quick/f.ark:3"}
    assert (out / "features.json").read_text() == "{}"
    (out / "km_x.txt").write_text("s-1 3\n")
    borrow(relative, out)
    assert (out / "km_x.txt").is_file() and "up to date" in capsys.readouterr().err
    (source / "a.flac").unlink()
    (source / "feats.scp").unlink()
    with pytest.raises(InputError, match=r"a\.flac: no such file; run mini_en/asr1 to stage 2"):
        borrow(relative, out)


# --- tables and systems ------------------------------------------------------------------------------


def test_tables_of_quality(local):
    found = {
        "labels": 99,
        "frames": 5,
        "phone_purity": 0.51234,
        "cluster_purity": 0.25,
        "nmi": 0.4,
        "pnmi": 0.5,
    }
    rows = local["quality"].label_rows(
        {"dump/test/km_hubert1_seed2.txt": found, "dump/test/km_mfcc.txt": found}
    )
    assert list(rows) == ["mfcc", "hubert1, seed2"] and rows["mfcc"]["phone purity %"] == 51.23
    probe = {"layers": [{"layer": 0, "accuracy": 0.5}, {"layer": 4, "accuracy": 0.75}], "chance": 0.1}
    (row,) = local["quality"].probe_rows({"pre": probe}).values()
    assert row == {"block 0 %": 50.0, "block 4 %": 75.0, "most frequent phone %": 10.0}


def test_every_pretrained_point_has_its_network_from_scratch():
    """The same configuration, so equal updates; only the one from scratch has a learning rate of its own."""
    systems = read_systems(RECIPE / "conf/systems.yaml").systems
    points = [system for system in systems.values() if system.init_encoder]
    assert len(points) == 3 * 3 + 1 + 1
    for point in points:
        scratch = systems[point.against]
        assert (scratch.train, scratch.train_sets, scratch.minutes) == (
            point.train,
            point.train_sets,
            point.minutes,
        )
        assert scratch.tune and len(scratch.tune.grid["optim.lr"]) >= 3 and not point.tune
        assert not any(option.startswith("loop.") for option in [*scratch.options, *point.options])


# --- every stage -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Copies of both recipes with trainings of a few updates."""
    folder = tmp_path_factory.mktemp("mini_en")
    copy("mini_en/asr1", folder)
    here = copy("mini_en/ssl1", folder)
    for path in (here / "conf").glob("*.yaml"):
        text = re.sub(r"max_updates([:=]) *\d+", r"max_updates\g<1> 4", path.read_text())
        text = text.replace("max_updates= 4", "max_updates=4")
        path.write_text(re.sub(r"every: \d+", "every: 2", text))
    script = (here / "run.sh").read_text()  # the small corpus has no more than this
    (here / "run.sh").write_text(script.replace("budgets=(5 15 50)", "budgets=(5)"))
    shutil.rmtree(here / "exp", ignore_errors=True)
    return here


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_synthesis_to_a_curve_and_again(recipe):
    methods = "pre_*,labels?,*_5min"
    command = ["./run.sh", "--corpus", "small", "--methods", methods, "--seeds", "1", "--jobs", "1"]
    done = run(recipe, *command, timeout=1100)
    assert done.returncode == 0, done.stderr[-4000:]
    work = recipe / "quick/small"
    table = (work / "RESULTS.md").read_text()
    for curve in ("from scratch", "HuBERT iteration 2", "wav2vec 2.0, two languages", "samples, HuBERT"):
        assert f"| test | greedy | 5 | {curve} | 1 |" in table
    assert "## Labels against phones" in table and "## Linear phone probe" in table
    assert (work / "images/labelled_speech_test_greedy.png").read_bytes()[:4] == b"\x89PNG"
    assert "- chosen on dev before training: cer of seed 0: optim.lr=" in table

    labels = read_data_dir(work / "dump/unlabelled").tables
    assert {"km_mfcc.txt", "km_hubert1_seed1.txt"} <= set(labels)
    config = (work / "exp/pre_hubert2/seed1/final/config.yaml").read_text()
    assert "kmeans_hubert1_seed1" in config
    chosen = json.loads((work / "exp/scratch_5min/tuned.json").read_text())["chosen"]
    assert (
        f"lr: {float(chosen[0].partition('=')[2])}"
        in (work / "exp/scratch_5min/seed1/config.yaml").read_text()
    )
    assert "encoder" in (work / "exp/hubert2_5min/seed1/train.log").read_text()

    before = {path: path.stat().st_mtime_ns for path in (work / "exp").rglob("model.safetensors")}
    again = run(recipe, *command, timeout=1100)
    assert again.returncode == 0, again.stderr[-4000:]
    assert before == {path: path.stat().st_mtime_ns for path in (work / "exp").rglob("model.safetensors")}
    assert (work / "RESULTS.md").read_text() == table
