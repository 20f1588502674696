"""Adapter-BERT: its losses, what learns, the lengths it expects, and Mask-Predict through a whole system."""

from functools import partial

import pytest
import torch
from fusion_models import check_alone, gradients, learn_by_heart, make_model, parts_of, texts_of
from tiny_linguistic import TEXTS, make_batch, shake

from speechkit.decoding import mask_predict as search
from speechkit.decoding.resources import Resources
from speechkit.errors import InputError, ProblemsError
from speechkit.fusion.conditional_mlm import add_noise
from speechkit.models import adapter_bert, linguistic_input, wavbert
from speechkit.models.assets import Assets
from speechkit.models.linguistic_input import text_input
from speechkit.search import mask_predict

SMALL = ["adapters.heads=2", "adapters.feed_forward=24"]
RETOKENISED = "units=retokenised"
TEXT = "weights.text=0.5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bert")


@pytest.fixture
def make(folder):
    return partial(make_model, adapter_bert, folder, *SMALL)


def chosen_tokens(model, batch):
    """How many tokens of each utterance the noise hides."""
    pieces = batch["bert_tokens"]
    return add_noise(pieces.values, pieces.lengths, batch.keys, len(model.units.vocab)).chosen.sum().item()


@pytest.mark.parametrize("options", [(), (RETOKENISED,), ("length=predict",), ("normaliser=tokens",)])
def test_terms_are_the_counted_ones_and_finite(make, options):
    model = make(TEXT, *options).train()
    for batch in (make_batch(model), texts_of(make_batch(model))):
        losses = model.loss(batch, 15)
        assert {name: count for name, (_, count) in losses.items()} == model.counts(batch)
        assert all(torch.isfinite(value) for value, _ in losses.values())
    counts, text_counts = model.counts(make_batch(model)), model.counts(batch)
    length = {"length"} if "length=predict" in options else set()
    assert set(counts) == {"ctc", "cmlm"} | length and set(text_counts) == {"text_cmlm"}
    assert set(model.weights) == set(counts) | set(text_counts)
    if "normaliser=tokens" in options:
        hidden = chosen_tokens(model, batch)
        assert counts == {"ctc": 10, "cmlm": hidden} and text_counts == {"text_cmlm": hidden}
    else:
        assert {*counts.values(), *text_counts.values()} == {3}


def test_the_hidden_tokens_cost_smoothed_cross_entropy(make):
    """Against a loop over single utterances and positions; nothing else is looked at."""
    model = shake(make(double=True, positions=12)).eval()
    batch, size = make_batch(model, torch.float64), len(model.units.vocab)
    pieces, expected = batch["bert_tokens"], torch.zeros((), dtype=torch.float64)
    noised = add_noise(pieces.values, pieces.lengths, batch.keys, size)
    frames, lengths = model.hear(batch)
    for row, length in enumerate(pieces.lengths.tolist()):
        ids = model.bert.bert_ids[noised.tokens[row, :length]].masked_fill(noised.masked[row, :length], 4)
        ids = torch.cat([torch.tensor([2]), ids, torch.tensor([3])])[None]
        heard = model.adapters.hear(frames[row : row + 1, : lengths[row]], lengths[row : row + 1])
        states = model.adapters(model.bert, model.bert.embed(ids), torch.tensor([length + 2]), heard)
        log_probs = model.bert.head(states).log_softmax(-1)[0]
        for place in range(length):
            if noised.chosen[row, place]:
                right = log_probs[1 + place, pieces.values[row, place]]
                expected -= 0.9 * right + 0.1 * log_probs[1 + place].mean()
    value, _ = model.loss(batch, 0)["cmlm"]
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)


def test_each_term_moves_its_own_part(make):
    model = shake(make("length=predict")).eval()
    batch = make_batch(model)
    moved = {term: gradients(model, batch, term) for term in ("ctc", "cmlm", "length")}
    assert parts_of(moved["ctc"]) == {"encoder", "head"}
    assert parts_of(moved["cmlm"]) == {"encoder", "adapters", "bert"}
    assert parts_of(moved["length"]) == {"encoder", "length_predictor"}
    assert {n for n, _ in model.adapters.named_parameters(prefix="adapters")} <= moved["cmlm"]


def test_text_alone_moves_berts_side_only(make):
    """And of the adapters nothing that looks at frames."""
    model = shake(make(TEXT, "length=predict")).eval()
    moved = gradients(model, texts_of(make_batch(model)), "text_cmlm")
    assert parts_of(moved) == {"adapters", "bert"}
    assert any("feed_forward" in name for name in moved) and any("layer.0" in name for name in moved)
    adapters = [name for name in moved if name.startswith("adapters.")]
    assert not any(part in name for name in adapters for part in (".query.", ".key_value."))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_text_alone_is_masked_prediction_by_a_bert_that_hears_nothing(make, norm):
    """At the start, adapters that are the identity leave the loss of a plain BERT; speech changes nothing."""
    model = make(TEXT, f"adapters.norm={norm}", "label_smoothing=0", double=True).eval()
    batch = make_batch(model, torch.float64)
    pieces, size = batch["bert_tokens"], len(model.units.vocab)
    given = text_input(linguistic_input.Config(), pieces, batch.keys, size)
    ids, sizes = given.bert_ids(model.bert.bert_ids, model.units.vocab)
    with torch.no_grad():
        value, count = model.loss(texts_of(batch), 0)["text_cmlm"]
        log_probs = model.bert.head(model.bert(ids, sizes))[:, 1:-1].log_softmax(-1)
        places = given.cmlm != linguistic_input.IGNORE
        plain = -log_probs[places].gather(1, given.cmlm[places][:, None]).sum()
        torch.testing.assert_close(value, plain, rtol=1e-4 if norm == "post" else 1e-10, atol=0)
        shake(model)
        apart = model.loss(batch, 0)["cmlm"][0] - model.loss(texts_of(batch), 0)["text_cmlm"][0]
    assert count == 3 and apart.abs() > 1e-6


def test_a_frozen_bert_learns_nothing_and_its_adapters_do(make):
    model = shake(make(TEXT, "freeze_bert=true")).eval()
    assert not any(p.requires_grad for p in model.bert.parameters())
    assert parts_of(gradients(model, make_batch(model), "cmlm")) == {"encoder", "adapters"}
    assert parts_of(gradients(model, texts_of(make_batch(model)), "text_cmlm")) == {"adapters"}


@pytest.mark.parametrize("options", [(), (RETOKENISED,), ("length=predict", "filling.length_beam=3")])
def test_a_batch_equals_its_utterances_alone(make, options):
    model = shake(make(*options, double=True)).eval()
    with torch.no_grad():
        model.head.weight.mul_(20)  # CTC then says something
    check_alone(model)


def spoken(model, texts):
    """Heads of a CTC that is sure of some texts, over frames that say nothing."""
    rows = [model.units.tokenizer.encode(text) if text else [] for text in texts]
    log_probs = torch.full((len(rows), 60, model.units.ctc_size), -9.0)
    log_probs[..., 0] = 0.0
    for row, ids in enumerate(rows):
        for place, id_ in enumerate(ids):
            log_probs[row, 2 * place, id_] = 9.0
    lengths = torch.full((len(rows),), 60)
    torch.manual_seed(2)
    acoustic = torch.randn(len(rows), 60, 16)
    return {"ctc": (log_probs.log_softmax(-1), lengths), "acoustic": (acoustic, lengths)}


@pytest.mark.parametrize("units", ["units=shared", RETOKENISED])
def test_as_many_tokens_are_expected_as_ctc_recognised_pieces(make, units):
    model = shake(make(units)).eval()
    heads = spoken(model, ["the dog", "", "a cat sat on"])
    assert model.expected(heads).tolist() == [2, 0, 4]
    texts = model.recognise(heads)
    assert texts["ctc"] == ["the dog", "", "a cat sat on"]
    filled = model.fill(heads, model.config.filling)
    assert [len(answer.tokens) for answer in filled] == [2, 0, 4]
    assert texts[""] == [model.units.vocab.decode(answer.tokens) for answer in filled]


def test_lengths_may_be_predicted_or_known(make):
    model = make("length=predict", positions=8).eval()
    batch = make_batch(model)
    with torch.no_grad():
        model.length_predictor.out.bias[5] = 1e3
        heads = model.encode(batch)
    assert heads["length"][0].shape == (3, 1, 7) and model.expected(heads).tolist() == [5, 5, 5]
    said = model.length_predictor(*model.hear(batch)).double().log_softmax(-1)
    expected = -said[torch.arange(3), batch["bert_tokens"].lengths].sum()
    torch.testing.assert_close(model.loss(batch, 0)["length"][0].double(), expected, rtol=1e-5, atol=0)

    model = make("length=oracle").eval()
    with torch.no_grad():
        heads = model.encode(batch)
    assert model.expected(heads).tolist() == [2, 6, 2]
    del batch.fields["bert_tokens"]
    with pytest.raises(InputError, match="decoding has none"):
        model.fill(model.encode(batch), mask_predict.Config())


def test_no_more_tokens_are_filled_in_than_bert_has_positions_for(make):
    model = make(positions=5).eval()
    filled = model.fill(spoken(model, ["the dog sat on a mat"]), mask_predict.Config(length_beam=3))
    assert len(filled[0].tokens) == 3


def test_one_pass_is_what_bert_says_of_masks_alone(make):
    """The searcher of one iteration, against BERT with its adapters, called once for each utterance."""
    model = shake(make()).eval()
    heads = spoken(model, ["the dog", "a cat sat on"])
    searcher = search.build(search.Config(iterations=1), Resources(model, Assets()))
    found = searcher(heads)
    for row, size in enumerate((2, 4)):
        ids = torch.tensor([[2, *[4] * size, 3]])
        heard = model.adapters.hear(heads["acoustic"][0][row : row + 1], torch.tensor([60]))
        with torch.no_grad():
            states = model.adapters(model.bert, model.bert.embed(ids), torch.tensor([size + 2]), heard)
            best, tokens = model.bert.head(states[0, 1:-1]).log_softmax(-1).max(-1)
        assert found[row][0].tokens == tokens.tolist()
        assert found[row][0].score == pytest.approx(best.mean().item(), abs=1e-5)
        assert searcher.text(found[row][0]) == model.units.vocab.decode(tokens.tolist())


def test_every_pass_reads_what_the_last_one_left(make):
    """Ten passes over the candidate lengths of all utterances, with as many masks as published."""
    model = shake(make()).eval()
    heads, seen, asked = spoken(model, ["the dog sat on", ""]), [], model.predictor

    def watched(heads, copies):
        predict = asked(heads, copies)
        return lambda ids, lengths: seen.append(ids.clone()) or predict(ids, lengths)

    model.predictor = watched
    answers = model.fill(heads, mask_predict.Config(length_beam=3))
    mask = len(model.units.vocab)
    assert [[(row == mask).sum().item() for row in ids] for ids in seen] == [
        [max(1, size * (10 - k) // 10) if size else 0 for size in (4, 5, 3, 0, 0, 0)] for k in range(10)
    ]
    assert answers[1].tokens == [] and model.recognise(heads)[""][1] == ""
    assert 3 <= len(answers[0].tokens) <= 5 and max(answers[0].tokens) < mask


def test_what_cannot_be_is_refused(make, folder):
    with pytest.raises(InputError, match="model adapter_bert: needs --tokenizer"):
        adapter_bert.build(adapter_bert.Config(), Assets())
    with pytest.raises(InputError, match="heads=3 does not divide"):
        make("adapters.heads=3")
    for option in (
        "label_smoothing=1",
        "weights.cmlm=-1",
        "weights.text=-1",
        "adapters.clock=true",
        "filling.iterations=0",
        "length=none",
    ):
        with pytest.raises(ProblemsError):
            make(option)
    small = [
        f"{p}.{o}" for p in ("embedding_attention", "aggregation") for o in ("heads=2", "feed_forward=8")
    ]
    other = make_model(wavbert, folder, *small)
    with pytest.raises(InputError, match="fills in no masks"):
        search.build(search.Config(), Resources(other, Assets()))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("units", ["units=shared", RETOKENISED])
def test_a_few_utterances_are_learnt_by_heart(make, units):
    """T14: 400 updates; masks alone are filled in with the training text."""
    model = make(units)
    assert learn_by_heart(model, make_batch(model)) == {"": TEXTS, "ctc": TEXTS}
