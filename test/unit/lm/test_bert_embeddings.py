"""Embeddings of texts: equal to transformers' own, whatever stands beside them."""

from __future__ import annotations

import pytest
import torch
from bert_folders import theirs, weights_of, write_bert

from speechkit.encoders import bert
from speechkit.encoders.bert import Bert
from speechkit.errors import InputError
from speechkit.integrations.bert import load_pretrained, make_assets
from speechkit.lm.bert_embeddings import Config, Embedder
from speechkit.text.bert_vocab import BertVocab

TEXTS = ["the cats", "dog", "", "the boys don't a dog o'clock", "the cats"]


def read(folder) -> tuple[Bert, BertVocab]:
    """The BERT of a folder with all its pieces."""
    assets = make_assets(bert.Config(folder=str(folder), vocab="full"), ())
    model = bert.build(bert.Config(), assets)
    load_pretrained(model, assets.vocab, folder, allow_new_head=True)
    return model, assets.vocab


@pytest.fixture
def folder(tmp_path):
    return write_bert(tmp_path / "bert", weights=weights_of(theirs()))


@pytest.mark.parametrize("layers", [[-1], [1], [-2, -1]])
@pytest.mark.parametrize("specials", ["both", "sep_only", "none"])
def test_equals_transformers_one_sentence_at_a_time(folder, layers, specials):
    model, vocab = read(folder)
    embedder, peer = Embedder(model, vocab, Config(layers, specials)), theirs()
    found = embedder(TEXTS, tokens=20)
    for text, ours in zip(TEXTS, found):
        ids = [model.cls_id, *(vocab.bert_ids[k] for k in vocab.encode(text)), model.sep_id]
        with torch.no_grad():
            states = peer.bert(torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
        wanted = torch.stack([states[layer - 1 if layer > 0 else layer] for layer in layers]).mean(0)[0]
        wanted = wanted[{"both": 0, "sep_only": 1, "none": 1}[specials] :]
        wanted = wanted[: len(wanted) - (specials == "none")]
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0], found[4]) and embedder.dim == 16


def test_two_calls_are_equal_even_after_training_mode(folder):
    model, vocab = read(folder)
    model.train()
    embedder = Embedder(model, vocab, Config())
    assert all(torch.equal(a, b) for a, b in zip(embedder(TEXTS), embedder(TEXTS)))
    assert not embedder(TEXTS)[0].requires_grad


def test_the_identity_is_that_of_weights_tokens_and_choices(folder, tmp_path):
    def identity(folder, **options):
        return Embedder(*read(folder), Config(**options)).identity

    first = identity(folder)
    assert identity(folder) == first
    other = write_bert(tmp_path / "other", weights=weights_of(theirs(seed=1)))
    assert len({first, identity(other), identity(folder, layers=[1]), identity(folder, specials="none")}) == 4
    assert identity(folder, layers=[2]) == first, "the last block by another name"


def test_texts_and_layers_that_this_bert_has_not_are_refused(folder):
    model, vocab = read(folder)
    with pytest.raises(InputError, match="'the the.*12 word pieces, and BERT has room for 10"):
        Embedder(model, vocab, Config())(["the " * 12])
    with pytest.raises(ValueError, match="layers=3"):
        Embedder(model, vocab, Config([3]))
    for layers in ([], [0], [1, 1]):
        with pytest.raises(ValueError, match="different blocks"):
            Config(layers)
