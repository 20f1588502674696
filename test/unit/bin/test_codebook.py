"""`speechkit codebook` on tiny checkpoints: the model's own codes, counted against phones."""

import json

import numpy as np
import pytest
import torch
from decoding_checkpoints import CONFORMER, WAV2VEC2, make_checkpoint
from factories import write_table
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.data.audio import read_audio
from speechkit.data.batch import Batch, pad
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding import codebook
from speechkit.decoding.codebook import Coder

SECONDS = [1.0, 0.9, 1.3, 0.01]  # the last one is shorter than a frame


def loudness(folder):
    """A phone every 10 ms, by the loudness of its sound."""
    data, rows = read_data_dir(folder), {}
    for name in data.utterances:
        samples = read_audio(data.wav[name], rate=16000)
        pieces = samples[: len(samples) // 160 * 160].reshape(-1, 160)
        rows[name] = " ".join("loud" if np.abs(piece).mean() > 0.1 else "soft" for piece in pieces)
    write_table(folder / "phones.txt", rows)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codebook")
    data = loudness(make_dump(folder / "data", 4, seconds=SECONDS))
    return folder, data, make_checkpoint(folder / "model", WAV2VEC2, model="wav2vec2", cmvn=False)


def command(world, out, *options):
    _, data, model = world
    words = ["codebook", "--exp", model, "--data", data, "--phones", data / "phones.txt", "--out", out]
    return main([str(word) for word in [*words, *options]])


def test_the_command_counts_every_frame(world, tmp_path, capsys):
    assert command(world, tmp_path) == 0
    report = json.loads((tmp_path / "codebook.json").read_text())
    frames = sum((round(16000 * seconds) - 400) // 320 + 1 for seconds in SECONDS[:3])
    assert report["frames"] + report["frames_without_phone"] == frames
    assert report["frames_without_phone"] == 0 and set(report["phones"]) == {"loud", "soft"}
    assert sum(phone["frames"] for phone in report["phones"].values()) == frames
    assert sum(phone["codewords"] for phone in report["phones"].values()) == report["active"] > 1
    assert (report["codewords"], report["kind"], report["utterances"]) == (320**2, "wav2vec2", 4)
    assert 0 <= report["entropy_often"] <= np.log(2) and 0 <= report["phone_purity"] <= 1
    assert report["command"].startswith("speechkit codebook --exp") and "--device" not in report["command"]
    assert (tmp_path / "codebook.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().err
    assert f"{report['active']} of 102400 codewords in use" in said and len(said.splitlines()) == 1
    assert command(world, tmp_path) == 0 and "is up to date" in capsys.readouterr().err
    first = (tmp_path / "codebook.json").read_bytes()
    assert command(world, tmp_path, "--force", "true") == 0
    assert (tmp_path / "codebook.json").read_bytes() == first


def test_other_segmentations_of_the_same_phones_say_the_same(world, tmp_path):
    assert command(world, tmp_path / "table") == 0
    rows = [line.split() for line in (world[1] / "phones.txt").read_text().splitlines()]
    lines = [f"{i} 1 {n / 100:.2f} 0.01 {phone}\n" for i, *phones in rows for n, phone in enumerate(phones)]
    (tmp_path / "phones.ctm").write_text("".join(lines))
    (tmp_path / "phn").mkdir()
    for i, *phones in rows:
        text = "".join(f"{160 * n} {160 * n + 160} {phone}\n" for n, phone in enumerate(phones))
        (tmp_path / f"phn/{i}.phn").write_text(text)
    assert command(world, tmp_path / "ctm", "--phones", tmp_path / "phones.ctm") == 0
    assert command(world, tmp_path / "files", "--phones", tmp_path / "phn") == 0
    table, *others = (
        json.loads((tmp_path / n / "codebook.json").read_text()) for n in ("table", "ctm", "files")
    )
    for other in others:
        same = other.keys() - {"command", "phones_from"}
        assert {name: other[name] for name in same} == {name: table[name] for name in same}


@pytest.mark.parametrize(
    "encoder", [WAV2VEC2, {**CONFORMER, "mask_embedding": True}], ids=["samples", "features"]
)
def test_codes_are_those_of_the_model(tmp_path, encoder):
    """What the model's own forward pass makes its targets of, in evaluation."""
    features = encoder["name"] == "conformer"
    coder = Coder(make_checkpoint(tmp_path / "m", encoder, model="wav2vec2", cmvn=features))
    own = Coder(tmp_path / "m").encoder.model
    waveform = np.random.default_rng(0).standard_normal(32000).astype(np.float32) / 9
    kept = []
    own.quantizer.register_forward_hook(lambda module, given, made: kept.append(made.codes))
    field = own.inputs[0]
    batch = Batch(["u"], torch.tensor([5]), fields={field: pad([coder.encoder.inputs(waveform)])})
    own.masked = lambda batch, masked=own.masked: _everything(masked(batch))
    own.encoder.keep_local = True
    with torch.no_grad():
        own.loss(batch, 0)
    codes = coder(waveform)
    assert codes.shape == (coder.encoder.frames(32000), 2) and len(np.unique(codes)) > 1
    assert np.array_equal(codes, kept[0].numpy())
    words = coder.words(codes)
    assert np.array_equal(words, codes[:, 0] * 320 + codes[:, 1])


def _everything(masked):
    """All frames as masked ones, so that all become targets."""
    import dataclasses

    mask = torch.ones_like(masked.mask)
    return dataclasses.replace(masked, mask=mask, count=int(mask.sum()))


def test_long_audio_goes_in_chunks(tmp_path, monkeypatch):
    """An encoder whose frames depend on their window alone: chunks change nothing."""
    encoder = {**WAV2VEC2, "extractor": "layer", "norm": "pre"}
    coder = Coder(make_checkpoint(tmp_path / "m", encoder, model="wav2vec2", cmvn=False))
    waveform = np.random.default_rng(1).standard_normal(50000).astype(np.float32) / 9
    whole = coder(waveform)
    monkeypatch.setattr(codebook, "CHUNK_SECONDS", 1.0)
    assert len(coder.encoder.pieces(coder.encoder.inputs(waveform), 1.0)) > 2
    assert np.array_equal(coder(waveform), whole)
