"""Codewords against TIMIT's phones: the corpus in miniature, its odd copies, and every stage."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from factories import waveform
from recipes.large_recipe import ROOT, copy, program, run, stages, texts

from speechkit.errors import InputError

RECIPE = ROOT / "egs/timit/codebook1"
SENTENCE = "She had your dark suit in greasy wash water all year."
SPEAKERS = {"TRAIN": ("DR1/FCJF0", "DR1/MDAC0", "DR2/FAEM0"), "TEST": ("DR1/FAKS0",)}
PHONES = ["h#", "sh", "ix", "hv", "eh", "dcl", "jh", "ih", "dcl", "d", "ah", "kcl", "k", "s", "h#"]


def make_timit(folder, seconds=2.1):
    """<folder>/TIMIT/{TRAIN,TEST}/<dialect>/<speaker>/{SA1,SX37}.{WAV,PHN,TXT,WRD}, SPHERE of 16 kHz.

    Returns:
        The folder TIMIT, and the samples of each phone in TRAIN.
    """
    root, spoken, seed = folder / "TIMIT", dict.fromkeys(PHONES, 0), 0
    for part, speakers in SPEAKERS.items():
        for speaker in speakers:
            for name in ("SA1", "SX37"):
                place, seed = root / part / speaker / name, seed + 1
                place.parent.mkdir(parents=True, exist_ok=True)
                samples = waveform(seconds + 0.01 * seed, seed=seed)
                soundfile.write(f"{place}.WAV", samples, 16000, format="NIST", subtype="PCM_16")
                drawn = np.random.default_rng(seed).integers(800, 1600, len(PHONES) - 1)
                edges = [0, *np.cumsum(drawn).tolist(), len(samples)]
                rows = list(zip(edges, edges[1:], PHONES))
                lines = "".join(f"{start} {end} {phone}\n" for start, end, phone in rows)
                place.with_suffix(".PHN").write_text(lines)
                place.with_suffix(".TXT").write_text(f"0 {len(samples)} {SENTENCE}\n")
                place.with_suffix(".WRD").write_text(
                    f"{edges[1]} {edges[3]} she\n{edges[3]} {edges[6]} had\n"
                )
                for start, end, phone in rows if part == "TRAIN" else ():
                    spoken[phone] += end - start
    return root, spoken


def test_utterances_and_their_sentences(tmp_path):
    root, _ = make_timit(tmp_path, seconds=1.8)
    prepare = program(RECIPE / "local/data.py").prepare
    prepare(tmp_path, tmp_path / "data")  # a folder above it
    assert set(texts(tmp_path / "data/train/text")) == {
        f"{speaker}-{name}" for speaker in ("fcjf0", "mdac0", "faem0") for name in ("sa1", "sx37")
    }
    assert set(texts(tmp_path / "data/test/text").values()) == {SENTENCE}
    assert texts(tmp_path / "data/train/utt2spk")["mdac0-sx37"] == "mdac0"
    assert texts(tmp_path / "data/test/wav.scp")["faks0-sa1"] == str(root / "TEST/DR1/FAKS0/SA1.WAV")


def test_copies_in_small_letters_and_with_doubles(tmp_path):
    root, _ = make_timit(tmp_path, seconds=1.8)
    audio = root / "TRAIN/DR1/FCJF0/SA1.WAV"
    shutil.copy(audio, audio.with_name("SA1.WAV.wav"))
    (audio.parent / "._SA1.WAV").write_text("what a file system left behind")
    low = tmp_path / "low"
    for path in sorted(root.rglob("*.*")):
        place = low / str(path.relative_to(root)).lower()
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    prepare = program(RECIPE / "local/data.py").prepare
    for name, corpus in (("one", root), ("two", low)):
        prepare(corpus, tmp_path / name)
    assert texts(tmp_path / "one/train/text") == texts(tmp_path / "two/train/text")
    assert len(texts(tmp_path / "one/train/text")) == 6


def test_a_copy_that_is_not_complete(tmp_path):
    root, _ = make_timit(tmp_path, seconds=1.8)
    prepare = program(RECIPE / "local/data.py").prepare
    (root / "TEST/DR1/FAKS0/SX37.PHN").unlink()
    with pytest.raises(InputError, match=r"SX37.WAV: no .phn file beside it"):
        prepare(root, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    shutil.rmtree(root / "TEST")
    done = run(RECIPE, "python", "local/data.py", root, tmp_path / "data")
    assert done.returncode == 1 and "no folders TRAIN and TEST in it" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "options, says",
    [
        (["--set", "dev"], "--set must be train or test"),
        (["--checkpoints", "one=/x,/y"], "--checkpoints: expected name=path, got '/y'"),
        (["--checkpoints", "../one=/x"], "--checkpoints: expected name=path"),
        (["--stage", "1"], "--corpus-dir: name TIMIT"),
    ],
)
def test_options_are_checked(options, says):
    done = run(RECIPE, "./run.sh", *options)
    assert done.returncode == 2 and says in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_in_miniature(tmp_path):
    corpus, spoken = make_timit(tmp_path)
    recipe = copy("timit/codebook1", tmp_path)
    said = stages(recipe, "--corpus-dir", corpus, timeout=600)
    assert "finished stages 1 2 4 7 8" in said
    work = recipe / "quick"
    found = json.loads((work / "exp/wav2vec2/codebook_train/codebook.json").read_text())
    assert found["utterances"] == 6 and set(found["phones"]) == set(PHONES)
    assert found["frames_without_phone"] == 0 and found["codewords"] == 64**2
    assert found["frames"] == sum(phone["frames"] for phone in found["phones"].values())
    for phone, samples in spoken.items():  # 12 ends of phones and utterances, a frame of 320 samples each
        assert abs(found["phones"][phone]["frames"] - samples / 320) <= 24, phone
    report = (work / "RESULTS.md").read_text()
    row = next(line for line in report.splitlines() if line.startswith("| wav2vec2 |"))
    assert row.split(" | ")[1] == str(found["active"]) and f"{found['entropy']:.3f}" in row
    assert (work / "images/codebook_train_wav2vec2.png").read_bytes().startswith(b"\x89PNG")

    folder = tmp_path / "huggingface"
    trained = work / "exp/wav2vec2/seed1"
    done = run(recipe, "speechkit", "convert", "--model", trained, "--to", "huggingface", "--out", folder)
    assert done.returncode == 0, done.stderr
    models = f"ours={trained},theirs={folder}"
    stages(
        recipe, "--corpus-dir", corpus, "--checkpoints", models, "--stage", "4", "--set", "test", timeout=300
    )
    ours, theirs = (
        json.loads((work / f"exp/{name}/codebook_test/codebook.json").read_text())
        for name in ("ours", "theirs")
    )
    same = ours.keys() - {"command", "model"}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert "| ours |" in (work / "RESULTS.md").read_text()
