"""From FLAC files to a word error rate of zero: a small set of real sentences learned by heart.

    SPEECHKIT_REAL_DATA=/path/to/recordings test/run.sh --slow test/real/test_overfit.py -s

takes about 40 s of processor time.
"""

from __future__ import annotations

import json
import time

import pytest

from speechkit.data.kaldi_dir import read_data_dir

# The default Conformer (1.4 M parameters, frames of 40 ms) without anything against overfitting.
CONFIG = """
model: {name: ctc, encoder: {name: conformer, dropout: 0.0}, specaugment: null}
plan: {seconds: 20}
optim: {lr: 2.0e-3, weight_decay: 0.0}
schedule: {name: tri_stage, warmup: 0.1, hold: 0.4}
loop: {max_updates: 300, tensorboard: false}
validation: {every: 100}
checkpoints: {average: none}
"""


@pytest.fixture
def dump(corpus, data_dir, speechkit, tmp_path):
    """All sentences, validated, formatted, with features, statistics and a tokenizer."""
    utterances = corpus("librispeech_test_other")
    source, dump = data_dir(utterances, "all"), tmp_path / "dump/all"
    speechkit("validate", source, "--read-audio", "true")
    speechkit("format", "--data", source, "--out", dump, "--kind", "evaluation")
    speechkit("features", "--data", dump, "--cmvn", "true")
    speechkit("tokenizer", "--text", dump / "text", "--kind", "char", "--out", tmp_path / "char")
    made = read_data_dir(dump)
    assert made.text == {one.id: one.transcript for one in utterances} and len(made.text) == 100
    for one in utterances:
        samples = int(made.tables["utt2num_samples"][one.id])
        assert abs(samples - 16000 * one.seconds) <= 8.001, one.id  # the manifest has three decimals
        assert int(made.tables["utt2num_frames"][one.id]) == 1 + (samples - 400) // 160, one.id
    return dump


def two_shortest_of_each_speaker(utterances):
    chosen = {}
    for one in sorted(utterances, key=lambda one: one.seconds):
        chosen.setdefault(one.speaker, []).append(one)
    return [one for of_speaker in chosen.values() for one in of_speaker[:2]]


@pytest.mark.timeout(1800)
def test_twenty_sentences_are_learned_by_heart(corpus, dump, speechkit, tmp_path, record_property):
    chosen = two_shortest_of_each_speaker(corpus("librispeech_test_other"))
    assert len(chosen) == 20
    few, exp = tmp_path / "dump/few", tmp_path / "exp/ctc/seed1"
    (tmp_path / "few").write_text("".join(f"{one.id}\n" for one in chosen))
    (tmp_path / "train.yaml").write_text(CONFIG)
    speechkit("subset", dump, few, "--utt-list", tmp_path / "few")

    begun = time.process_time()
    data = ["--train", few, "--dev", few, "--cmvn", dump / "cmvn.json", "--tokenizer", tmp_path / "char"]
    speechkit("train", "--config", tmp_path / "train.yaml", *data, "--exp", exp)
    seconds = time.process_time() - begun
    record_property("processor_seconds", seconds)
    print(f"trained in {seconds:.1f} s of processor time")

    speechkit("decode", "--model", exp, "--data", few)
    decode = exp / "decode_few_greedy"
    speechkit("score", decode, "--data", few)
    heard = dict(line.split(" ", 1) for line in (decode / "text").read_text().splitlines())
    assert heard == {one.id: one.transcript for one in chosen}
    words = sum(len(one.transcript.split()) for one in chosen)
    assert f"%WER 0.00 [ 0 / {words}, 0 ins, 0 del, 0 sub ]" in (decode / "wer").read_text()
    result = json.loads((decode / "result.json").read_text())
    assert result["counts"] == {"words": words, "errors": 0, "ins": 0, "del": 0, "sub": 0}
    assert result["sentences"] == {"count": 20, "errors": 0} and result["cer"]["counts"]["errors"] == 0
