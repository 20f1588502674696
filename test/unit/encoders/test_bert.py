"""BERT taken apart: what goes in, what padding must not do, what is trained."""

import pytest
import torch
from bert_folders import CONFIG, VOCAB

from speechkit.encoders import bert
from speechkit.encoders.bert import BertAssets
from speechkit.errors import InputError
from speechkit.models.assets import Assets
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.wordpiece_cut import Rules

TOKENS = ["the", "cat", "##s", "dog", "don", "t", "'"]
LIMIT = CONFIG["max_position_embeddings"] - 2


def assets(**changes):
    return BertAssets({**CONFIG, **changes}, BertVocab(VOCAB, Rules(), TOKENS))


@pytest.fixture
def model():
    torch.manual_seed(0)
    built = bert.build(bert.Config(), assets()).double().eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def test_sequences_by_hand(model):
    ids = torch.tensor([[1, 2, 3], [4, 7, 99], [9, 9, 9]])  # what lies beyond a length may be anything
    whole, lengths = model.sequences(ids, torch.tensor([3, 1, 0]))
    first, second = [model.bert_ids[i].item() for i in (1, 4)]
    assert whole.tolist() == [
        [3, first, *model.bert_ids[2:4].tolist(), 4],
        [3, second, 4, 0, 0],
        [3, 4, 0, 0, 0],
    ]
    assert lengths.tolist() == [5, 3, 2]


def test_no_hypothesis_at_all(model):
    whole, lengths = model.sequences(torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0]))
    assert whole.tolist() == [[3, 4], [3, 4]] and lengths.tolist() == [2, 2]
    assert model(whole, lengths).isfinite().all()


def test_hypotheses_are_cut_at_berts_positions_and_more_is_refused(model):
    whole, lengths = model.sequences(torch.ones(2, 30, dtype=torch.int64), torch.tensor([30, 4]))
    assert whole.shape == (2, LIMIT + 2) and lengths.tolist() == [LIMIT + 2, 6]
    assert whole[0, -1] == model.sep_id and whole[1, 5] == model.sep_id
    assert model(whole, lengths).shape == (2, LIMIT + 2, 16)
    with pytest.raises(InputError, match="13 tokens, and BERT has 12 positions"):
        model.embed(torch.zeros(1, 13, dtype=torch.int64))


def test_padding_changes_nothing(model):
    lengths = torch.tensor([7, 2, 12, 5])
    ids = torch.randint(0, len(VOCAB), (4, 12))
    found = model(ids, lengths)
    logits = model.head(found)
    for row, length in enumerate(lengths.tolist()):
        alone = model(ids[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(found[row : row + 1, :length], alone, atol=1e-10, rtol=0)
        torch.testing.assert_close(logits[row : row + 1, :length], model.head(alone), atol=1e-10, rtol=0)
        assert not found[row, length:].any()
    embedded = model.embed(ids)
    for row, length in enumerate(lengths.tolist()):
        embedded[row, length:] = float("nan")
    assert torch.equal(model.layers(embedded, lengths), found)


def test_nothing_flows_back_into_padding(model):
    lengths = torch.tensor([3, 6])
    x = model.embed(torch.randint(0, len(VOCAB), (2, 6))).detach().requires_grad_()
    (model.layers(x, lengths) ** 2).sum().backward()
    assert not x.grad[0, 3:].any() and x.grad[0, :3].any() and x.grad[1].any()


def test_what_stands_between_the_blocks_is_read_by_the_next(model):
    ids, lengths = torch.randint(0, len(VOCAB), (2, 5)), torch.tensor([5, 5])
    seen = []

    def double(number, x):
        seen.append(number)
        return 2 * x

    x, mask = model.embed(ids), model.attention_mask(model.embed(ids), lengths)
    for layer in model.layer_modules:
        x = 2 * model.run_layer(layer, x, mask)
    torch.testing.assert_close(model.layers(model.embed(ids), lengths, double), x)
    assert seen == [0, 1]


def test_embeddings_from_words(model):
    ids = torch.randint(0, len(VOCAB), (2, 5))
    torch.testing.assert_close(model.embed(words=model.word_embeddings(ids)), model.embed(ids))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "options",
    [(), ("train_embeddings",), ("train_layers",), ("train_head",), ("train_embeddings", "train_head")],
)
def test_what_is_frozen_has_no_gradient(options, tied):
    config = bert.Config(**dict.fromkeys(options, False))
    model = bert.build(config, assets(tie_word_embeddings=tied))
    model.head(model(torch.tensor([[3, 8, 4]]), torch.tensor([3]))).sum().backward()
    parts = {
        "train_embeddings": model.model.bert.embeddings,
        "train_layers": model.model.bert.encoder,
        "train_head": model.model.cls.predictions.transform,
    }
    for option, part in parts.items():
        assert any(p.grad is not None for p in part.parameters()) == (option not in options), option
    shared = model.model.cls.predictions.decoder.weight
    assert (shared is model.model.bert.embeddings.word_embeddings.weight) == tied
    assert shared.requires_grad == (("train_embeddings" if tied else "train_head") not in options)


def test_only_words_of_the_system_and_its_text_learn_from_the_head(model):
    """Rows of the word table that are neither read nor in the linguistic vocabulary get no gradient."""
    model.head(model(torch.tensor([[3, 8, 4]]), torch.tensor([3]))).pow(2).sum().backward()
    grad = model.word_embeddings(torch.tensor([0])).new_tensor(
        model.model.bert.embeddings.word_embeddings.weight.grad.abs().sum(1).tolist()
    )
    moved = set(grad.nonzero().flatten().tolist())
    assert moved == {*model.bert_ids.tolist(), 3, 4, 8}


def test_dropout_is_the_configurations(model):
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    changed = bert.build(bert.Config(dropout=0.0), assets())
    assert {m.p for m in changed.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(3)
    first = bert.build(bert.Config(init="random"), assets()).state_dict()
    torch.manual_seed(3)
    second = bert.build(bert.Config(init="random"), assets()).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_assets_of_a_checkpoint_come_back(tmp_path):
    before = Assets(bert=assets())
    before.save(tmp_path)
    after = Assets.load(tmp_path)
    assert after.bert.config == before.bert.config and after.bert.hash == before.bert.hash
    assert after.tokenizer is None and Assets().bert is None
    model = bert.build(bert.Config(), after.bert)
    assert model.bert_ids.tolist() == before.bert.vocab.bert_ids


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta': only BERT can be the linguistic encoder"),
        ({"num_attention_heads": 5}, "BERT's config.json: .*16.*5"),
        ({"hidden_act": "wavy"}, "BERT's config.json: .*wavy"),
        ({"hidden_size": "wide"}, "BERT's config.json: .*wide|BERT's config.json: .*hidden_size"),
    ],
)
def test_bad_architectures(changes, expected):
    with pytest.raises(InputError, match=expected) as error:
        bert.build(bert.Config(), assets(**changes))
    assert len(str(error.value).splitlines()) == 1
