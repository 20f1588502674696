"""BERTs that cannot be used: one clear line each."""

import json
import os

import pytest
import torch
from bert_folders import CONFIG, VOCAB, theirs, weights_of, write_bert

from speechkit.config import load_config
from speechkit.encoders import bert
from speechkit.errors import InputError
from speechkit.integrations.bert import load_bert, load_pretrained, make_assets, open_bert
from speechkit.models.assets import Assets
from speechkit.train.linguistic import start_bert
from speechkit.train.run import RunConfig
from speechkit.train.setup import build_model

TEXTS = ["the dogs don't"]


def refusal(call, *arguments):
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def load(folder, assets=None):
    assets = assets or make_assets(bert.Config(folder=str(folder)), TEXTS)
    model = bert.build(bert.Config(), assets)
    return load_pretrained(model, assets.vocab, folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "roberta"}, "config.json: model_type 'roberta'; only BERTs (model_type 'bert')"),
        ({"model_type": None}, "config.json: model_type 'None'; only BERTs"),
        ({"is_decoder": True}, "config.json: is_decoder=True is not supported, only False"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key' is not supp"),
        (
            {"vocab_size": 30522},
            "21 tokens, but config.json says vocab_size=30522: the vocabulary of another",
        ),
        ({"vocab_size": 20}, "21 tokens, but config.json says vocab_size=20: the vocabulary of another"),
        ({"pad_token_id": 1}, "[PAD] is token 0, but config.json says pad_token_id=1: the vocabulary of ano"),
    ],
)
def test_configurations(tmp_path, changes, expected):
    folder = write_bert(tmp_path / "b", weights={"x": torch.zeros(1)}, **changes)
    assert expected in refusal(open_bert, folder)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json:1: not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json: model_type 'None'"),
        (lambda f: (f / "vocab.txt").unlink(), "no vocab.txt and no tokenizer.json; copy BERT's vocab.txt"),
        (lambda f: (f / "vocab.txt").write_text(""), "vocab.txt: the file is empty"),
        (lambda f: (f / "vocab.txt").write_bytes(b"[PAD]\n\xff\n"), "vocab.txt:2: not UTF-8"),
        (lambda f: (f / "vocab.txt").write_text("[PAD]\nthe\nthe\n"), "vocab.txt:3: token 'the' is empty or"),
        (
            lambda f: (f / "vocab.txt").write_text("[PAD]\nthe\n"),
            "vocab.txt: no [UNK]; is this the vocab.txt",
        ),
        (lambda f: (f / "tokenizer_config.json").write_text("7"), "tokenizer_config.json: not a table"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "tokenizer_config.json:1: not JSON"),
    ],
)
def test_folders(tmp_path, damage, expected):
    folder = write_bert(tmp_path / "b")
    damage(folder)
    assert expected in refusal(open_bert, folder)


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return os.system, ("touch /tmp/was-run",)


def without(*pieces):
    return lambda weights: {k: v for k, v in weights.items() if not any(piece in k for piece in pieces)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("layer.1.attention.self.query"), "attention.self.query.weight: missing in the file"),
        (without("transform.dense.bias"), "cls.predictions.transform.dense.bias: missing in the file"),
        (
            lambda w: {**w, "bert.extra.weight": torch.zeros(1)},
            "bert.extra.weight: unexpected, the model has",
        ),
        (
            lambda w: {**w, "bert.encoder.layer.2.output.dense.bias": torch.zeros(16)},
            "bert.encoder.layer.2.output.dense.bias: unexpected",
        ),
        (
            lambda w: {**w, "bert.embeddings.word_embeddings.weight": torch.zeros(30, 16)},
            "bert.embeddings.word_embeddings.weight: (30, 16) in the file, (21, 16) in the model",
        ),
        (
            lambda w: {**w, "cls.predictions.bias": torch.full((21,), float("nan"))},
            "cls.predictions.bias: holds numbers that are not finite",
        ),
    ],
)
def test_weights(tmp_path, change, expected):
    weights = {k: v for k, v in weights_of(theirs()).items() if ".decoder." not in k}
    folder = write_bert(tmp_path / "b", weights=change(weights))
    message = refusal(load, folder)
    assert expected in message and str(folder) in message


def test_weights_that_are_not_there_damaged_or_would_run_code(tmp_path):
    folder = write_bert(tmp_path / "b")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    assert "model.safetensors: damaged or cut short" in refusal(load, folder)
    file.unlink()
    assert "no weights (model.safetensors or pytorch_model.bin" in refusal(load, folder)
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin: refused: it names" in refusal(load, folder)
    assert not os.path.exists("/tmp/was-run")


def test_a_checkpoint_of_another_vocabulary(tmp_path):
    first = make_assets(bert.Config(folder=str(write_bert(tmp_path / "a"))), TEXTS)
    swapped = [*VOCAB[:-2], VOCAB[-1], VOCAB[-2]]
    other = write_bert(tmp_path / "b", vocab=swapped)
    assert "its 21 tokens are not the 21 that the system was made for" in refusal(load, other, first)


def test_a_checkpoint_of_another_size(tmp_path):
    first = make_assets(bert.Config(folder=str(write_bert(tmp_path / "a"))), TEXTS)
    other = write_bert(tmp_path / "b", num_hidden_layers=3)
    assert "bert.encoder.layer.2" in refusal(load, other, first)
    smaller = write_bert(tmp_path / "c", intermediate_size=20)
    assert "(20, 16) in the file, (24, 16) in the model" in refusal(load, smaller, first)


def test_texts_that_nothing_is_left_of(tmp_path):
    config = bert.Config(folder=str(write_bert(tmp_path / "a")))
    assert "empty: no text has a piece that BERT knows" in refusal(make_assets, config, ["привет"])
    assert "bert.folder: name a Hugging Face folder" in refusal(make_assets, bert.Config(), TEXTS)


@pytest.fixture
def headless(tmp_path):
    """A BERT without a masked-language-model head."""
    kept = {k: v for k, v in weights_of(theirs()).items() if k.startswith("bert.")}
    return write_bert(tmp_path / "a", weights=kept)


def test_a_scorer_needs_a_head(headless):
    assert "has no masked-language-model head, so it cannot say" in refusal(load_bert, headless)


def test_a_run_begins_with_a_new_head_only_where_it_says_so(headless):
    values = [f"model.{v}" for v in ("name=masked_lm", f"bert.folder={headless}")]
    config = load_config(RunConfig, overrides=values)
    assets = Assets(bert=make_assets(config.model.bert, TEXTS))
    model = build_model(config, assets)
    head = model.bert.model.cls.predictions.transform.dense.weight.clone()
    message = refusal(start_bert, config, assets, model)
    assert f"{headless}: has no masked-language-model head (cls.predictions)" in message
    assert "model.bert.allow_new_head=true" in message

    config.model.bert.allow_new_head = True
    told = start_bert(config, assets, model)
    assert any("missing, drawn at random: cls.predictions.bias: the checkpoint has no" in t for t in told)
    transform, words = model.bert.model.cls.predictions.transform, theirs().bert.embeddings.word_embeddings
    assert torch.equal(transform.dense.weight, head)
    assert torch.equal(model.bert.model.bert.embeddings.word_embeddings.weight, words.weight)


@pytest.mark.parametrize("name", ["nobody/nothing", "../nowhere", "a b", "", "x/y/z", "-rf"])
def test_names_that_are_nowhere(name, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert f"{name}: neither a folder nor a model in transformers' cache" in refusal(open_bert, name)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoints_assets_that_are_broken(tmp_path):
    folder = tmp_path / "bert"
    make_assets(bert.Config(folder=str(write_bert(tmp_path / "a"))), TEXTS).save(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_attention_heads": 5}))
    again = bert.BertAssets.load(folder)
    assert "BERT's config.json: " in refusal(bert.build, bert.Config(), again)
    (folder / "config.json").unlink()
    assert "config.json: no such file" in refusal(bert.BertAssets.load, folder)


def test_dropout_out_of_range():
    with pytest.raises(ValueError, match="dropout"):
        bert.Config(dropout=1.0)
