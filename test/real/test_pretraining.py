"""wav2vec 2.0 on a few minutes of real speech: it tells masked frames apart for speakers it never heard.

SPEECHKIT_REAL_DATA=/path/to/recordings test/run.sh --slow test/real/test_pretraining.py -s
"""

from __future__ import annotations

import json

import pytest

CONFIG = """
model:
  name: wav2vec2
  encoder:
    {name: conformer, dim: 96, layers: 2, feed_forward: 192, mask_embedding: true, shared_dropout: true}
  mask: {probability: 0.65, length: 5}
  quantizer: {entries: 48, temperature_updates: 350}
  contrastive: {negatives: 50}
  projection_dim: 128
plan: {seconds: 30, crop_seconds: 4}
optim: {lr: 2.0e-3}
schedule: {name: tri_stage, warmup: 0.1, hold: 0.5}
loop: {max_updates: 500, tensorboard: false, precision: fp32}
validation: {every: 250}
checkpoints: {average: none}
"""


@pytest.mark.timeout(1800)
def test_held_out_speakers_are_told_apart(corpus, data_dir, speechkit, tmp_path):
    """Five times the accuracy of chance with 50 distractors, and more than 10 % of the 96 codes in use."""
    utterances = corpus("librispeech_unlabelled")
    speakers = sorted({one.speaker for one in utterances})
    held_out = set(speakers[::8])
    parts = {
        "train": [one for one in utterances if one.speaker not in held_out],
        "dev": [one for one in utterances if one.speaker in held_out],
    }
    assert len(held_out) >= 6 and len(parts["train"]) >= 50
    for name, part in parts.items():
        out = tmp_path / "dump" / name
        speechkit("format", "--data", data_dir(part, name), "--out", out)
        speechkit("features", "--data", out, "--cmvn", "true")
    (tmp_path / "train.yaml").write_text(CONFIG)
    data = ["--train", tmp_path / "dump/train", "--dev", tmp_path / "dump/dev"]
    cmvn = ["--cmvn", tmp_path / "dump/train/cmvn.json"]
    exp = tmp_path / "exp/pre/seed1"
    speechkit("train", "--config", tmp_path / "train.yaml", *data, *cmvn, "--exp", exp)
    dev = json.loads((exp / "final/run.json").read_text())["dev"]
    print({name: dev[name] for name in ("accuracy", "code_perplexity", "bits")})
    assert dev["accuracy"] > 5 / 51
    assert dev["code_perplexity"] > 0.1 * 2 * 48
