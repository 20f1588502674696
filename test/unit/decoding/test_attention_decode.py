"""Decoding a data directory with an attention model, with a language model, greedily; and what is refused."""

import json
from types import SimpleNamespace

import pytest
import torch
from tiny_training import World

from speechkit.bin.__main__ import main
from speechkit.decoding import DecodeConfig, attention_beam
from speechkit.decoding.recognizer import Recognizer
from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.lm import train_ngram, write_arpa

ENCODER = "{name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, kernel: 5, dropout: 0.0}"
DECODER = "{name: las, embedding: 8, cells: 12, attention_dim: 8, kernel: 5, dropout: 0.0}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    changes = {"model__name": "attention", "model__encoder": ENCODER, "model__decoder": DECODER}
    assert world.run("exp/las/seed1", loop__max_updates=4, **changes) == 0
    return world


@pytest.fixture
def exp(world):
    return world.folder / "exp/las/seed1"


def decode(world, exp, *options, how="beam"):
    command = ["decode", "--model", str(exp), "--data", str(world.dev), "--how", how, "--force", "true"]
    return main([*command, "search.name=attention_beam", *options])


def test_training_reports_the_error_rates_of_both_outputs(exp):
    rows = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    dev = [row for row in rows if row["kind"] == "dev"][-1]
    assert {"wer", "cer", "wer_ctc", "blank_ratio", "accuracy", "loss_attention", "loss_ctc"} <= set(dev)
    assert dev["loss"] == pytest.approx(0.7 * dev["loss_attention"] + 0.3 * dev["loss_ctc"])


def test_decoded_text_does_not_depend_on_the_batch(world, exp):
    texts = []
    for seconds in (1, 100):
        assert decode(world, exp, f"seconds={seconds}", "search.beam=4", "search.nbest=3") == 0
        texts.append((exp / "decode_dev_beam" / "text").read_bytes())
    assert texts[0] == texts[1]
    lines = (exp / "decode_dev_beam" / "nbest.jsonl").read_text().splitlines()
    for line in lines:
        scores = [each["score"] for each in json.loads(line)["nbest"]]
        assert 1 <= len(scores) <= 3 and scores == sorted(scores, reverse=True)
    record = json.loads((exp / "decode_dev_beam" / "decode.json").read_text())
    assert record["decode_config"]["search"]["name"] == "attention_beam"


def test_greedy_is_what_validation_reads(world, exp):
    options = ["search.beam=1", "search.ctc_weight=0", "search.maxlenratio=1"]
    assert decode(world, exp, *options, how="greedy") == 0
    said = (exp / "decode_dev_greedy" / "text").read_text().splitlines()
    recognizer = Recognizer.load(exp)
    for batch in recognizer.batches(world.dev)[1]:
        for utterance, text in zip(batch.ids, recognizer.model.recognise(recognizer.encode(batch))[""]):
            assert f"{utterance} {text}".strip() in said


def test_a_language_model_of_tokens_counts(world, exp, tmp_path):
    arpa, words = tmp_path / "tokens.arpa", tmp_path / "words.arpa"
    sentences = ["o n e", "s i x", "t h r e e", "n i n e"] * 3
    write_arpa(train_ngram(sentences, 2, discount_fallback=(0.5, 1.0, 1.5)), arpa)
    found = []
    for weight in (0.0, 5.0):
        options = ["--lm", str(arpa), f"search.lm_weight={weight}", "search.length_bonus=3"]
        assert decode(world, exp, *options, how=f"lm{weight:g}") == 0
        lines = (exp / f"decode_dev_lm{weight:g}" / "nbest.jsonl").read_text().splitlines()
        found.append([json.loads(line)["nbest"][0]["tokens"] for line in lines])
    assert found[0] != found[1]
    write_arpa(train_ngram(["one six three", "six nine"], 1, discount_fallback=(0.5, 1.0, 1.5)), words)
    with pytest.raises(InputError, match="none of the model's tokens"):
        Recognizer.load(exp, DecodeConfig(search=attention_beam.Config()), lm=words)


class Deaf:
    """A model with three utterances whose decoder says the third token for ever; the last has no frames."""

    heads = {"frames": (torch.zeros(3, 4, 1), torch.tensor([4, 2, 0]))}

    def reading(self, heads):
        class Endless:
            def __call__(self, tokens, rows):
                return torch.tensor([[-9.0, -9.0, -0.1, -50.0]] * len(tokens))

            def keep(self, utterances):
                pass

        return Endless()


TOKENS = SimpleNamespace(
    vocab=["<blank>", "<unk>", "a", "<sos/eos>"], blank=0, unk=1, eos=3, decode=lambda ids: "a" * len(ids)
)


def search(model, **options):
    config = attention_beam.Config(**{"ctc_weight": 0.0, "beam": 1, **options})
    return attention_beam.build(config, Resources(model, SimpleNamespace(tokenizer=TOKENS)))


def test_what_does_not_end_is_counted_and_told(capsys):
    beam = search(Deaf())
    found = beam(Deaf.heads)
    assert [nbest[0].words for nbest in found] == [["aaaa"], ["aa"], []]
    assert [nbest[0].complete for nbest in found] == [False, False, True]
    assert (beam.searched, beam.cut, beam.failed) == (3, 2, 0)
    assert "of 3 utterances so far 2 did not end" in capsys.readouterr().err
    beam(Deaf.heads)
    assert "of 6 utterances so far 4 did not end" in capsys.readouterr().err
    assert beam.text(found[0][0]) == "aaaa"


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="no attention decoder"):
        search(SimpleNamespace())
    with pytest.raises(InputError, match="trained without CTC; set ctc_weight=0"):
        search(Deaf(), ctc_weight=0.3)(Deaf.heads)
    resources = Resources(Deaf(), SimpleNamespace(tokenizer=TOKENS), lexicon_path=tmp_path)
    with pytest.raises(InputError, match="takes no --lexicon"):
        attention_beam.build(attention_beam.Config(), resources)
    resources = Resources(Deaf(), SimpleNamespace(tokenizer=TOKENS), bert_path=tmp_path)
    with pytest.raises(InputError, match="attention_beam takes no --bert"):
        attention_beam.build(attention_beam.Config(), resources)
