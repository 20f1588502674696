"""The masked language model: counts and losses by hand, against transformers, and its way to a folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bert_folders import write_bert
from factories import write_table

from speechkit.bin.__main__ import main
from speechkit.config import from_dict
from speechkit.data.batch import Batch, pad
from speechkit.errors import InputError
from speechkit.integrations.bert import load_bert, load_pretrained
from speechkit.lm.word_groups import WordGroups, read_groups
from speechkit.models.assets import Assets
from speechkit.models.masked_lm import Config, bert_assets, build
from speechkit.text.wordpiece_cut import Rules
from speechkit.text.wordpiece_train import train_vocab, write_vocab

TEXTS = ["the baker buys the flour", "the gardener buys the flower", "a flower", "no", "sea see"]
SIZE = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "positions": 12, "dropout": 0.0}


@pytest.fixture
def folder(tmp_path):
    """A vocabulary of whole words."""
    (tmp_path / "vocab").mkdir()
    write_vocab(tmp_path / "vocab", train_vocab(TEXTS, Rules(), whole_words=True), Rules())
    return tmp_path / "vocab"


def make(folder, seed=0, **values):
    values = {"size": SIZE, "bert": {"folder": str(folder), "init": "random"}, **values}
    config = from_dict(Config, values)
    torch.manual_seed(seed)
    assets = Assets(bert=bert_assets(config, TEXTS))
    return build(config, assets), assets


def batch_of(vocab, texts=TEXTS, epoch=0):
    rows = [torch.tensor(vocab.encode(text)) for text in texts]
    keys = torch.arange(len(texts)) * 7919 + epoch * 104729 + 5
    return Batch([f"u{i}" for i in range(len(texts))], keys, None, {"bert_tokens": pad(rows, 3)})


def caught(model, batch):
    """The ids and lengths that the BERT read in one loss, and what the loss was."""
    seen = []
    forward = model.bert.forward
    model.bert.forward = lambda ids, lengths: seen.append((ids, lengths)) or forward(ids, lengths)
    losses = model.loss(batch, 0)
    del model.bert.forward
    return *seen[0], losses


def test_counts_and_what_is_hidden(folder):
    """Over many epochs: the share of tokens, 80/10/10, never a special one, at least one a sentence."""
    model, assets = make(folder, mask=0.4)
    vocab = assets.bert.vocab
    lookup, special = vocab.lookup(), {vocab.cls_id, vocab.sep_id, vocab.pad_id}
    changed = {"mask": 0, "other": 0}
    chosen = tokens = 0
    for epoch in range(300):
        batch = batch_of(vocab, epoch=epoch)
        counts = model.counts(batch)
        ids, lengths, losses = caught(model, batch)
        assert lengths.tolist() == [7, 7, 4, 3, 4]
        assert {name: count for name, (_, count) in losses.items()} == counts
        assert counts["mlm"] == counts["accuracy"] >= len(batch)
        chosen, tokens = chosen + counts["mlm"], tokens + sum(len(text.split()) for text in TEXTS)
        for row, text in zip(ids.tolist(), TEXTS):
            true = [vocab.cls_id, *lookup[vocab.encode(text)].tolist(), vocab.sep_id]
            assert row[len(true) :] == [vocab.pad_id] * (len(row) - len(true))
            differing = [(a, b) for a, b in zip(row, true) if a != b]
            assert not any(b in special for _, b in differing)
            assert not any(a in special or a == lookup[0] for a, _ in differing)
            changed["mask"] += sum(a == vocab.mask_id for a, _ in differing)
            changed["other"] += sum(a != vocab.mask_id for a, _ in differing)
    assert tokens == 300 * 15
    # one of "no" always; 2 of 5 words and 0.8 of 2 on average, the latter never 0: E = 1 + 2 + 2 + 1 + 1
    assert chosen == pytest.approx(300 * 7, rel=0.03)
    assert changed["mask"] / chosen == pytest.approx(0.8, abs=0.03)
    # 10 % others, of which 1 in 10 (V' - 1 tokens) is the true one by chance
    assert changed["other"] / chosen == pytest.approx(0.1 * 9 / 10, abs=0.02)


def test_a_sentence_is_hidden_in_the_same_way_in_any_batch(folder):
    model, assets = make(folder)
    batch = batch_of(assets.bert.vocab)
    ids, lengths, losses = caught(model.eval(), batch)
    total = {"mlm": 0.0, "accuracy": 0.0}
    for i in range(len(batch)):
        row = batch["bert_tokens"].values[i, : int(batch["bert_tokens"].lengths[i])]
        one = Batch([batch.ids[i]], batch.keys[i : i + 1], None, {"bert_tokens": pad([row])})
        alone, _, own = caught(model, one)
        assert alone[0].tolist() == ids[i, : int(lengths[i])].tolist()
        total = {name: total[name] + float(own[name][0].detach()) for name in total}
    assert total["mlm"] == pytest.approx(float(losses["mlm"][0].detach()), rel=1e-5)
    assert total["accuracy"] == int(losses["accuracy"][0])


def test_the_loss_is_that_of_transformers(folder):
    """`BertForMaskedLM` with labels, on the same ids: the mean over the predicted tokens; gradients too."""
    model, assets = make(folder, mask=0.5)
    vocab, batch = assets.bert.vocab, batch_of(assets.bert.vocab)
    ids, lengths, losses = caught(model, batch)
    losses["mlm"][0].backward()
    found = {name: p.grad.clone() for name, p in model.bert.model.named_parameters() if p.grad is not None}
    model.zero_grad()
    labels = torch.full_like(ids, -100)
    from speechkit.fusion.conditional_mlm import hide
    from speechkit.hashing import mix
    from speechkit.models.masked_lm import SALT

    tokens = batch["bert_tokens"]
    numbers = model._numbers(batch)[1]
    noised = hide(tokens.values, tokens.lengths, numbers, mix(batch.keys.numpy(), SALT), len(vocab))
    inner = labels[:, 1:-1]
    inner[noised.chosen] = vocab.lookup()[tokens.values[noised.chosen]]
    mask = (torch.arange(ids.size(1)) < lengths[:, None]).long()
    theirs = model.bert.model(input_ids=ids, attention_mask=mask, labels=labels)
    # theirs is over all of BERT's tokens, ours over the linguistic vocabulary: compare on its columns
    logits = theirs.logits[:, 1:-1][noised.chosen][:, vocab.lookup()]
    expected = torch.nn.functional.cross_entropy(logits, tokens.values[noised.chosen], reduction="sum")
    assert float(losses["mlm"][0]) == pytest.approx(float(expected), rel=1e-5)
    expected.backward()
    for name, parameter in model.bert.model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_groups_are_chosen_among_by_context_alone(folder, tmp_path):
    """Brute force: every word of a group masked alone by hand, the best of its group."""
    (tmp_path / "groups").write_text("flour flower\n\nsea see\n")
    model, assets = make(folder, groups=str(tmp_path / "groups"))
    vocab, batch = assets.bert.vocab, batch_of(assets.bert.vocab)
    torch.nn.init.normal_(model.bert.model.bert.embeddings.word_embeddings.weight)
    model.train()
    assert model.counts(batch)["accuracy_groups"] == 0 and model.loss(batch, 0)["accuracy_groups"] == (0, 0)
    model.eval()
    right, answers = 0, []
    for text in TEXTS:
        words = text.split()
        for place, word in enumerate(words):
            group = next((g for g in (["flour", "flower"], ["sea", "see"]) if word in g), None)
            if group is None:
                continue
            known = [vocab.cls_id, *vocab.lookup()[vocab.encode(text)].tolist(), vocab.sep_id]
            known[place + 1] = vocab.mask_id
            logits = model.bert.model(input_ids=torch.tensor([known])).logits[0, place + 1]
            best = max(group, key=lambda w: float(logits[vocab.bert_ids[vocab.encode(w)[0]]]))
            right, answers = right + (best == word), [*answers, best]
    found, count = model.loss(batch, 0)["accuracy_groups"]
    assert count == model.counts(batch)["accuracy_groups"] == len(answers) == 5
    assert int(found) == right and 0 < right < 5


def test_groups_that_cannot_be_asked_about(folder, tmp_path):
    _, assets = make(folder)
    vocab = assets.bert.vocab
    groups = WordGroups([["flour", "flower", "flaur"], ["two", "to"], ["sea", "xxx"]], vocab)
    assert groups.left_out == ["flaur", "two", "to", "sea", "xxx"]
    with pytest.raises(InputError, match="none of the 1 word groups"):
        WordGroups([["two", "to"]], vocab)
    (tmp_path / "alone").write_text("flour flower\nsea\n")
    with pytest.raises(InputError, match="alone:2: 'sea' alone is no group"):
        read_groups(tmp_path / "alone")
    (tmp_path / "twice").write_text("flour flower\nsea flour\n")
    with pytest.raises(InputError, match="twice:2: 'flour' stands in line 1 already"):
        read_groups(tmp_path / "twice")
    model, _ = make(folder, groups=str(tmp_path / "gone"))  # a trained model is built without its file
    with pytest.raises(InputError, match="model.groups: .*gone: no such file"):
        model.counts(batch_of(vocab))


def test_a_new_bert_needs_no_weights_and_says_so(folder):
    with pytest.raises(InputError, match=r"size: makes a new BERT; say bert.init=random"):
        make(folder, bert={"folder": str(folder)})
    with pytest.raises(InputError, match="dim=10 is no multiple of heads=4"):
        make(folder, size={**SIZE, "dim": 10, "heads": 4})
    with pytest.raises(InputError, match="model.bert.folder: name a folder with a vocab.txt"):
        make(folder, bert={"init": "random"})
    with pytest.raises(InputError, match="needs a BERT's vocabulary"):
        build(from_dict(Config, {}), Assets())


def test_a_trained_bert_goes_to_transformers_and_comes_back(tmp_path, capsys):
    """Trained further from a folder; the export gives the same logits in transformers and here."""
    from transformers import BertForMaskedLM, BertTokenizerFast

    start = write_bert(tmp_path / "start")
    texts = {f"s{i:02d}": text for i, text in enumerate(["the cats", "don't", "the dog", "a cat"] * 5)}
    for name in ("train", "dev"):
        write_table(tmp_path / name / "text", texts)
    command = ["train", "--train", tmp_path / "train", "--dev", tmp_path / "dev", "--exp", tmp_path / "exp"]
    options = {"model.name": "masked_lm", "model.bert.folder": start, "loop.max_updates": 2, "optim.lr": 0.01}
    options |= {"loop.tensorboard": "false", "loop.precision": "fp32", "validation.every": 2}
    assert main([*map(str, command), *(f"{key}={value}" for key, value in options.items())]) == 0
    assert "init bert" in capsys.readouterr().err
    out = tmp_path / "hf"
    assert main(["convert", "--model", str(tmp_path / "exp"), "--to", "huggingface", "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    theirs, info = BertForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, vocab = load_bert(out)
    cut = BertTokenizerFast.from_pretrained(out)
    given = cut("the dog don't", return_tensors="pt")["input_ids"]
    ids, lengths = ours.sequences(torch.tensor([vocab.encode("the dog don't")]), torch.tensor([5]))
    assert ids.tolist() == given.tolist() and lengths.tolist() == [7]
    with torch.no_grad():
        expected = theirs.eval()(given).logits[..., vocab.lookup()]
        torch.testing.assert_close(ours.head(ours(ids, lengths)), expected, atol=1e-5, rtol=1e-5)
        before, _ = load_bert(start)
        assert not torch.allclose(before.model(given).logits, theirs(given).logits, atol=1e-3), (
            "it has learnt"
        )
    # and a further training starts from it
    config = from_dict(Config, {"bert": {"folder": str(out)}})
    assets = Assets(bert=bert_assets(config, list(texts.values())))
    again = build(config, assets)
    assert not load_pretrained(again.bert, assets.bert.vocab, out).missing
    np.testing.assert_array_equal(
        again.bert.model.bert.embeddings.word_embeddings.weight.detach(),
        theirs.bert.embeddings.word_embeddings.weight.detach(),
    )
