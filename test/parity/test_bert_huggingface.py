"""BERT equals transformers' in float64, and its checkpoints load in every form they come in."""

import json
import shutil

import pytest
import torch
from bert_folders import CONFIG, SPECIAL, VOCAB, theirs, weights_of, write_bert
from safetensors.torch import save_file

from speechkit.encoders import bert
from speechkit.integrations.bert import load_bert, load_pretrained, locate, make_assets, open_bert

TEXTS = ["the dogs don't", "a boys' cat o'clock"]


def ours(folder, **options):
    """A BERT with a folder's weights, and the account."""
    config = bert.Config(folder=str(folder), **options)
    assets = make_assets(config, TEXTS)
    torch.manual_seed(99)
    model = bert.build(config, assets)
    account = load_pretrained(model, assets.vocab, folder, config.allow_new_head)
    return model.double().eval(), account, assets.vocab


@pytest.mark.parametrize("vocab", ["pruned", "full"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"hidden_act": "relu"}])
def test_hidden_states_and_restricted_logits(tmp_path, vocab, changes):
    reference = theirs(seed=1, **changes).double()
    write_bert(tmp_path / "b", weights={k: v.float() for k, v in weights_of(reference).items()}, **changes)
    reference = reference.float().double()
    model, account, linguistic = ours(tmp_path / "b", vocab=vocab)
    assert not account.missing and not account.unexpected and not account.notes
    ids, lengths = torch.randint(0, len(VOCAB), (3, 11)), torch.tensor([11, 4, 7])
    attention = (torch.arange(11) < lengths[:, None]).long()
    expected = reference(input_ids=ids, attention_mask=attention, output_hidden_states=True)
    states = []
    embedded = model.embed(ids)
    found = model.layers(embedded, lengths, lambda number, x: states.append(x) or x)
    seen = attention.bool()
    for mine, other in zip([embedded, *states], expected.hidden_states, strict=True):
        torch.testing.assert_close(mine[seen], other[seen], atol=1e-12, rtol=0)
    logits = expected.logits.index_select(-1, torch.tensor(linguistic.bert_ids))
    torch.testing.assert_close(model.head(found)[seen], logits[seen], atol=1e-12, rtol=0)
    assert logits.shape[-1] == {"pruned": 12, "full": len(VOCAB) - len(SPECIAL) + 1}[vocab]


def bare(weights):
    """A `BertModel`, as sentence encoders are saved: no prefix, a pooler, no head."""
    kept = {k.removeprefix("bert."): v for k, v in weights.items() if k.startswith("bert.")}
    return {**kept, "pooler.dense.weight": torch.zeros(16, 16), "pooler.dense.bias": torch.zeros(16)}


def of_2018(weights):
    """Norms as TensorFlow called them, both names of what is tied, a head for pairs of sentences."""
    names = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
    old = {}
    for name, value in weights.items():
        for new, former in names.items():
            name = name.removesuffix(new) + former if name.endswith(new) else name
        old[name] = value
    old["bert.embeddings.position_ids"] = torch.arange(12)[None]
    return {
        **old,
        "cls.seq_relationship.weight": torch.zeros(2, 16),
        "cls.seq_relationship.bias": torch.ones(2),
    }


def test_names_of_2018_in_a_bin_file(tmp_path):
    reference = theirs(seed=2)
    folder = write_bert(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    torch.save(of_2018(weights_of(reference)), folder / "pytorch_model.bin")
    model, account, _ = ours(folder)
    ids = torch.randint(0, len(VOCAB), (1, 6))
    torch.testing.assert_close(
        model(ids, torch.tensor([6])), reference.double()(ids, output_hidden_states=True).hidden_states[-1]
    )
    assert account.missing == {} and account.notes == []
    assert sorted(account.unexpected) == [
        "bert.embeddings.position_ids",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    ]


def test_an_encoder_without_a_head_gets_a_new_one(tmp_path):
    reference = theirs(seed=3)
    folder = write_bert(tmp_path / "b", weights=bare(weights_of(reference)), architectures=["BertModel"])
    model, account, _ = ours(folder, allow_new_head=True)
    ids = torch.randint(0, len(VOCAB), (1, 6))
    expected = reference.double()(ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(model(ids, torch.tensor([6])), expected)
    assert sorted(account.missing) == [
        "cls.predictions.bias",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.dense.weight",
    ]
    assert sorted(account.unexpected) == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert any("no masked-language-model head, so this one is new" in line for line in account.lines())
    words = model.model.bert.embeddings.word_embeddings.weight
    assert model.model.cls.predictions.decoder.weight is words  # still tied, to the loaded words


def test_shards(tmp_path):
    weights = {k: v for k, v in weights_of(theirs(seed=4)).items() if ".decoder." not in k}
    folder = write_bert(tmp_path / "b", weights=weights)
    whole, *_ = ours(folder)
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        save_file({name: weights[name] for name in places if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    parts, *_ = ours(folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_tied_names_with_two_tensors_follow_config_json(tmp_path):
    weights = weights_of(theirs(seed=5))
    weights["cls.predictions.decoder.weight"] = torch.zeros_like(weights["cls.predictions.decoder.weight"])
    _, account, _ = ours(write_bert(tmp_path / "b", weights=weights))
    assert [note.split(" ")[0] for note in account.notes] == ["cls.predictions.decoder.weight"]


def test_folders_that_transformers_saves(tmp_path):
    from transformers import BertTokenizerFast

    reference = theirs(seed=6)
    reference.save_pretrained(tmp_path / "b")
    ids = {token: id_ for id_, token in enumerate(VOCAB)}
    BertTokenizerFast(vocab=ids, do_lower_case=True).save_pretrained(tmp_path / "b")
    model, account, vocab = ours(tmp_path / "b")
    assert len(account.loaded) == len({id(p) for p in model.parameters()})
    whole, lengths = model.sequences(torch.tensor([vocab.encode("The cats")]), torch.tensor([3]))
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path / "b")
    assert whole.tolist() == [tokenizer("The cats")["input_ids"]]
    torch.testing.assert_close(
        model.head(model(whole, lengths)), reference.double()(whole).logits[..., vocab.bert_ids]
    )


def test_a_scorer_of_texts(tmp_path):
    """All pieces, whatever a training text has; or those of the folder's own choice."""
    folder = write_bert(tmp_path / "b")
    model, vocab = load_bert(folder)
    assert vocab.tokens[1:] == VOCAB[len(SPECIAL) :] and not model.training
    pruned = make_assets(bert.Config(folder=str(folder)), TEXTS).vocab
    pruned.save(folder)
    assert load_bert(folder)[1].bert_ids == pruned.bert_ids


def test_names_in_the_cache(tmp_path, monkeypatch):
    """The layout of huggingface_hub's cache, which transformers and `hf download` fill."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    for name in ("models--tiny-bert", "models--someone--tiny.bert"):
        (cache / name / "refs").mkdir(parents=True)
        (cache / name / "refs/main").write_text("0" * 40)
        write_bert(cache / name / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for name in ("tiny-bert", "someone/tiny.bert"):
        assert open_bert(name).vocab == VOCAB and locate(name).name == "0" * 40
        assert ours(name)[1].missing == {}
    shutil.rmtree(cache)


def test_config_keeps_what_makes_the_model(tmp_path):
    folder = write_bert(
        tmp_path / "b", transformers_version="4.1.0", _name_or_path="/secret", dtype="float16"
    )
    assert open_bert(folder).config == {k: v for k, v in CONFIG.items() if k != "architectures"}
    assert open_bert(folder).positions == 12
