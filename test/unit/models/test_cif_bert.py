"""w2v-CIF-BERT against loops over frames and slots; its heads, what learns, and what it recognises."""

from functools import partial

import pytest
import torch
from bert_folders import write_bert
from fusion_models import check_alone, gradients, learn_by_heart, make_model, parts_of
from tiny_linguistic import BINS, TEXTS, TOKENS, alone, make_batch, shake

from speechkit.config import load_config
from speechkit.decoding import fused
from speechkit.decoding.resources import Resources
from speechkit.encoders.bert import BertAssets
from speechkit.errors import InputError, ProblemsError
from speechkit.fusion.gold_rate import GoldRate
from speechkit.models import cif_bert, ctc
from speechkit.models.assets import Assets
from speechkit.search.greedy import ctc_greedy
from speechkit.train.linguistic import start_bert
from speechkit.train.run import RunConfig

RETOKENISED = ("units=retokenised", "ctc_head=linear")
HALF = ("gold.high=0.5", "gold.low=0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bert")


@pytest.fixture
def make(folder):
    return partial(make_model, cif_bert, folder)


def fire(x, alpha, count):
    """Integrate-and-fire as published, a frame at a time: `(T, D)` and `(T,)` to `(count, D)`."""
    tokens, state, total = [], torch.zeros_like(x[0]), 0.0
    for frame, left in zip(x, alpha):
        while len(tokens) < count and total + left >= 1 - 1e-12:
            part = 1 - total
            tokens.append(state + part * frame)
            left, state, total = left - part, torch.zeros_like(frame), 0.0
        state, total = state + left * frame, total + left
    return torch.stack(tokens) if tokens else x.new_zeros(0, x.size(1))


def answer(model, x, count, words):
    """Log-probabilities `(count, V')` for the frames of one utterance, through transformers' whole BERT.

    `words` says of acoustic log-probabilities which slots hold which linguistic id, None for the vector.
    """
    alpha = x[:, -1].sigmoid()
    vectors = model.cif.project(fire(x[:, :-1], alpha * count / alpha.sum(), count))
    acoustic = model.acoustic_head(vectors)
    table, ids = model.bert.model.bert.embeddings.word_embeddings.weight, model.bert.bert_ids
    said = words(acoustic.log_softmax(-1))
    slots = [vectors[u] if id_ is None else table[ids[id_]] for u, id_ in enumerate(said)]
    whole = torch.stack([table[TOKENS.index("[CLS]")], *slots, table[TOKENS.index("[SEP]")]])
    known = model.bert.model(inputs_embeds=whole[None]).logits[0, 1:-1][:, ids]
    return (0.8 * acoustic + 0.2 * known).log_softmax(-1)


def test_the_loss_is_the_published_one(make):
    """Cross entropy where no true word stands, quantity, CTC by tokens; one utterance after the other."""
    model = shake(make(*HALF, double=True)).train()
    batch = make_batch(model, torch.float64)
    pieces, tokens = batch["bert_tokens"], batch["tokens"]
    gold = GoldRate(model.config.gold).picks(batch.keys, pieces.lengths, 7)
    frames, lengths = model.hear(batch)
    expected = {"ce": 0.0, "quantity": 0.0, "ctc": 0.0, "gold": int(gold.sum())}
    for row, count in enumerate(pieces.lengths.tolist()):
        x, truth = frames[row, : lengths[row]], pieces.values[row, :count].tolist()
        words = [id_ if gold[row, u] else None for u, id_ in enumerate(truth)]
        log_probs = answer(model, x, count, lambda _, words=words: words)
        expected["ce"] -= sum(log_probs[u, id_] for u, id_ in enumerate(truth) if words[u] is None)
        expected["quantity"] += (x[:, -1].sigmoid().sum() - count).abs()
        content = torch.cat([x[:, :-1], torch.zeros(len(x), 1)], 1)
        heard = model.head(content).log_softmax(-1)[:, None]
        targets = tokens.values[row : row + 1, : tokens.lengths[row]]
        expected["ctc"] += torch.nn.functional.ctc_loss(
            heard, targets, lengths[row : row + 1], tokens.lengths[row : row + 1], reduction="sum"
        )
    model.set_update(7)
    losses = model.loss(batch, 7)
    for name, value in expected.items():
        assert float(losses[name][0]) == pytest.approx(float(value), rel=1e-9), name
    assert 0 < expected["gold"] < 10
    assert model.counts(batch) == {name: count for name, (_, count) in losses.items()}
    assert model.counts(batch) == {"ctc": 10, "ce": 10 - expected["gold"], "quantity": 3, "gold": 10}
    assert model.weights == {"ce": 1.0, "quantity": 0.2, "ctc": 2.0}


@pytest.mark.parametrize("sure", [0.0, 0.5, 1.0])
def test_a_slot_holds_the_word_that_is_sure_and_the_vector_elsewhere(make, sure):
    """Recognition against the loop, with all, some and none of the predicted words believed."""
    model = shake(make(double=True)).eval()
    batch = make_batch(model, torch.float64)
    with torch.no_grad():
        model.acoustic_head.out.weight.mul_(3)
        frames, lengths = model.hear(batch)
        _, _, fired = model._listen(batch)
        best = model.acoustic_head(fired.vectors).softmax(-1).amax(-1)[0, : fired.counts[0]]
        threshold = float(best.quantile(sure)) - (1e-6 if sure == 0 else 0)
        model.gold.config.confidence = threshold

        def words(log_probs):
            return [int(p.argmax()) if p.max().exp() > threshold else None for p in log_probs]

        log_probs, counts = model.encode(batch)["ce"]
        for row in range(3):
            x = frames[row, : lengths[row]]
            count = int(x[:, -1].sigmoid().sum() + 0.5)
            assert counts[row] == min(count, 10) > 1
            if count <= 10:
                expected = answer(model, x, count, words)
                torch.testing.assert_close(log_probs[row, :count], expected, rtol=0, atol=1e-9)


def test_no_slot_is_gold_in_evaluation(make):
    model = make("gold.high=1", "gold.low=1").train()
    batch = make_batch(model)
    assert model.counts(batch)["ce"] == model.loss(batch, 0)["ce"][0] == 0
    model.eval()
    losses = model.loss(batch, 0)
    assert model.counts(batch)["ce"] == losses["ce"][1] == 10
    assert losses["ce"][0] > 0 and losses["gold"][0] == 0


@pytest.mark.parametrize("options", [(), RETOKENISED, ("normaliser=utterances",)])
def test_terms_are_the_counted_ones_and_the_gold_rate_falls(make, options):
    model, batch, shares = make(*options, "gold.start=2", "gold.updates=10"), None, []
    for update in (0, 2, 7, 12, 100):
        batch = batch or make_batch(model)
        model.set_update(update)
        losses = model.loss(batch, update)
        assert {name: count for name, (_, count) in losses.items()} == model.counts(batch)
        assert all(torch.isfinite(value) for value, _ in losses.values())
        shares.append(int(losses["gold"][0]))
        asked = 3 if "normaliser=utterances" in options else 10 - shares[-1]
        assert losses["ce"][1] == asked
    assert shares == sorted(shares, reverse=True) and shares[0] == shares[1] > shares[-1]


def test_each_term_moves_its_own_part_and_the_words_stay(make):
    model = shake(make(*HALF)).train()
    batch = make_batch(model)
    moved = {term: gradients(model, batch, term) for term in ("ctc", "quantity", "ce")}
    assert parts_of(moved["ctc"]) == {"encoder", "head"}
    assert parts_of(moved["quantity"]) == {"encoder"}
    assert parts_of(moved["ce"]) == {"encoder", "cif", "acoustic_head", "bert"}
    assert not any("word_embeddings" in name or "decoder.weight" in name for name in moved["ce"])
    model = shake(make(*HALF, "train_words=true")).train()
    assert any("word_embeddings" in name for name in gradients(model, batch, "ce"))


def test_nothing_goes_back_through_a_bert_that_does_not_learn(make):
    """As published; the acoustic side is left out of the sum to see it."""
    batch = None
    for option, parts in (("true", {"encoder", "cif", "bert"}), ("false", {"bert"})):
        model = shake(make(*HALF, "lambda_am=0", f"bert.train_layers={option}", "bert.train_head=true"))
        batch = batch or make_batch(model)
        assert parts_of(gradients(model.train(), batch, "ce")) == parts
    assert not any("encoder.layer" in name for name in gradients(model, batch, "ce"))


def test_heads_begin_as_copies_of_berts(make, folder):
    """Of the random BERT, then of the weights that a training puts in; the blank has a row of its own."""
    model = make()
    states, kept = torch.randn(4, 16), model.head.out.weight[0].clone()
    tokenizer, vocab = model.units.tokenizer, model.units.vocab

    def check():
        alone = model.bert.head(states)
        torch.testing.assert_close(model.acoustic_head(states), alone)
        heard = model.head(states)
        for id_, token in enumerate(tokenizer.vocab):
            if token in vocab.tokens:
                torch.testing.assert_close(heard[:, id_], alone[:, vocab.tokens.index(token)])

    check()
    before = model.bert.head(states)
    pretrained = write_bert(folder / "pretrained", TOKENS)
    wanted = {"name": "cif_bert", "bert": {"folder": str(pretrained)}}
    assets = Assets(tokenizer, None, BertAssets({}, vocab))
    start_bert(load_config(RunConfig, model=wanted), assets, model)
    assert (model.bert.head(states) - before).abs().max() > 0.1
    check()
    torch.testing.assert_close(model.head.out.weight[0], kept)
    assert tokenizer.vocab[0] not in vocab.tokens


def test_a_linear_head_is_that_of_the_ctc_system(make):
    """Same names and sizes, so that a trained one can be loaded; it reads a zero for the last channel."""
    model = make("ctc_head=linear").eval()
    options = ["encoder.dim=16", "encoder.layers=1", "encoder.heads=2", "encoder.feed_forward=32"]
    cmvn = {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100}
    plain = ctc.build(load_config(ctc.Config, overrides=options), Assets(model.units.tokenizer, cmvn)).eval()
    state = plain.state_dict()
    with torch.no_grad():
        state["head.weight"][:, -1] = 0
        plain.load_state_dict(state)
        assert not model.load_state_dict(state, strict=False).unexpected_keys
        batch = make_batch(model)
        torch.testing.assert_close(model.encode(batch)["ctc"], plain.encode(batch)["ctc"])


def test_widths_that_differ_are_bridged(make):
    model = make(dim=24)
    assert model.bridge.weight.shape == (24, 15) and model.head.out.in_features == 24
    assert all(torch.isfinite(value) for value, _ in model.loss(make_batch(model), 0).values())
    assert make("ctc_head=linear", dim=24).bridge is None


@pytest.mark.parametrize("options", [(), RETOKENISED])
def test_a_batch_equals_its_utterances_alone(make, options):
    check_alone(shake(make(*options, double=True)).eval())


def with_weights(model, logits):
    """The model with given last channels, one for each utterance, in its frames."""
    hear = model.hear

    def heard(batch):
        frames, lengths = hear(batch)
        last = torch.tensor(logits)[:, None, None].expand(-1, frames.size(1), 1)
        return torch.cat([frames[..., :-1], last], -1), lengths

    model.hear = heard
    return model


def test_weights_tell_how_many_tokens_there_are(make):
    """None where they sum to less than a half, and no more than BERT has positions for."""
    model = with_weights(make(positions=8).eval(), [-30.0, -1.0, -1.0])
    batch = make_batch(model)
    frames = model.hear(batch)[1]
    with torch.no_grad():
        heads = model.encode(batch)
    sums = (frames[1:] * torch.tensor(-1.0).sigmoid() + 0.5).long().tolist()
    assert heads["ce"][1].tolist() == [0, *(min(6, count) for count in sums)]
    texts = model.recognise(heads)
    assert texts[""] == texts["ce"] and texts[""][0] == "" and texts[""][1]
    with torch.no_grad():
        heads = with_weights(make().eval(), [-30.0] * 3).encode(batch)
    assert heads["ce"][0].shape[:2] == (3, 0) and model.recognise(heads)[""] == [""] * 3
    assert torch.isfinite(torch.stack([v for v, _ in model.loss(batch, 0).values()])).all()


def test_a_look_shows_what_fires(make):
    model = with_weights(make().eval(), [-1.0])
    batch = alone(make_batch(model), 0)
    with torch.no_grad():
        look, (_, counts) = model.look(batch), model.encode(batch)["ce"]
        frames = int(model.hear(batch)[1])
    assert (len(look.tokens), look.frames) == (int(counts), frames) and look.tokens[0] in TOKENS
    torch.testing.assert_close(look.alpha, torch.full((frames,), int(counts) / frames))
    with torch.no_grad():
        assert with_weights(make().eval(), [-30.0]).look(batch).tokens == []


def test_the_fused_search_takes_the_only_linguistic_output(make):
    model = shake(make()).eval()
    with torch.no_grad():
        heads = model.encode(make_batch(model))
    found = fused.build(fused.Config(), Resources(model, Assets()))(heads)
    texts = model.recognise(heads)
    assert [" ".join(nbest[0].words) for nbest in found] == texts[""]
    assert {nbest[0].source for nbest in found} == {"ce"}
    heard = ctc_greedy(*heads["ctc"], 0)
    assert texts["ctc"] == [model.units.tokenizer.decode(ids) for ids in heard]


def test_what_cannot_be_is_refused(make):
    with pytest.raises(InputError, match="model cif_bert: needs --tokenizer"):
        cif_bert.build(cif_bert.Config(), Assets())
    for options in (("units=retokenised",), ("lambda_am=0", "lambda_lm=0"), ("weights.quantity=-1",)):
        with pytest.raises(ProblemsError):
            make(*options)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [(), RETOKENISED])
def test_a_few_utterances_are_learnt_by_heart(make, options):
    """T14: 400 updates; as many tokens fire as there are, and they are the training text."""
    model = make(*options, "gold.start=100", "gold.updates=200")
    texts = learn_by_heart(model, make_batch(model))
    assert texts[""] == texts["ctc"] == TEXTS
