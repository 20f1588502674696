"""The attention model keeps the Model contract, and learns; its loss is that of its formulas."""

import math

import pytest
import torch

from speechkit.config import load_config
from speechkit.data.batch import Batch, Padded, pad
from speechkit.errors import InputError, ProblemsError
from speechkit.losses.ctc import ctc_loss
from speechkit.models import attention
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import build_tokenizer

BINS = 20
SMALL = [
    *(
        "encoder.dim=16",
        "encoder.layers=1",
        "encoder.heads=2",
        "encoder.feed_forward=32",
        "encoder.dropout=0",
    ),
    "decoder={name: transformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, dropout: 0.0}",
]
LAS = "decoder={name: las, embedding: 12, cells: 16, attention_dim: 12, kernel: 5, dropout: 0.0}"
CMVN = {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100}
TEXTS = ["abb", "cabc", "a"]


def make(*overrides, tokenizer=None):
    tokenizer = tokenizer or build_tokenizer("char", ["abc"])
    return attention.build(
        load_config(attention.Config, overrides=[*SMALL, *overrides]), Assets(tokenizer, CMVN)
    )


def make_batch(model):
    features = pad([torch.randn(n, BINS) for n in (60, 80, 47)])
    tokens = pad([torch.tensor(model.tokenizer.encode(text)) for text in TEXTS])
    tokens.values[1:] = tokens.values[1:].where(tokens.values[1:] > 0, 3)  # padding of any content
    return Batch(
        ["u1", "u2", "u3"], torch.tensor([11, 12, 13]), None, {"features": features, "tokens": tokens}
    )


def select(batch, *rows):
    index = torch.tensor(rows)
    fields = {k: Padded(v.values[index], v.lengths[index]) for k, v in batch.fields.items()}
    return Batch([batch.ids[i] for i in rows], batch.keys[index], None, fields)


def smoothed(log_probs, token, share):
    """Cross entropy with the distribution (1 - share) [token] + share / V."""
    return -(1 - share) * float(log_probs[token]) - share * float(log_probs.mean())


@pytest.mark.parametrize("decoder", [LAS, "decoder.layers=2"])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_losses_equal_a_loop_over_tokens(decoder, share):
    model = make(decoder, f"label_smoothing={share}").eval()
    batch = make_batch(model)
    found = model.loss(batch, 0)
    cross_entropy, right = 0.0, 0
    for i, text in enumerate(TEXTS):
        frames, lengths = model.encode(select(batch, i))["frames"]
        ids, eos = model.tokenizer.encode(text), model.tokenizer.eos
        for place, token in enumerate([*ids, eos]):
            phi = model.decoder(torch.tensor([[eos, *ids[:place]]]), frames, lengths)
            log_probs = model.decoder.output(phi)[0, -1].log_softmax(-1)
            cross_entropy += smoothed(log_probs, token, share)
            right += int(log_probs.argmax()) == token
    tokens = batch["tokens"]
    ctc = ctc_loss(*model.encode(batch)["ctc"], tokens.values, tokens.lengths).sum()
    assert float(found["attention"][0]) == pytest.approx(cross_entropy, rel=1e-5)
    assert float(found["ctc"][0]) == pytest.approx(float(ctc), rel=1e-5)
    assert int(found["accuracy"][0]) == right
    assert {name: count for name, (_, count) in found.items()} == model.counts(batch)


def test_counts_and_weights():
    model = make("weights={ctc: 0.4, attention: 0.6}", "normaliser=tokens")
    batch = make_batch(model)
    assert model.weights == {"attention": 0.6, "ctc": 0.4}
    assert model.counts(batch) == {"attention": 11, "ctc": 8, "accuracy": 11}
    assert make().counts(batch) == {"attention": 3, "ctc": 3, "accuracy": 11}


def test_without_ctc_there_is_nothing_of_it():
    model = make("weights.ctc=0")
    batch = make_batch(model)
    assert model.weights == {"attention": 0.7} and model.outputs == ("",)
    assert set(model.loss(batch, 0)) == set(model.counts(batch)) == {"attention", "accuracy"}
    assert not any(name.startswith("head") for name in model.state_dict())
    heads = model.eval().encode(batch)
    assert set(heads) == {"frames"} and set(model.recognise(heads)) == {""}


@pytest.mark.parametrize("decoder", [LAS, "decoder.layers=1"])
def test_gradient_of_one_batch_is_the_sum_over_its_parts(decoder):
    model = make(decoder, "specaugment={}").double().train()
    batch = make_batch(model)
    batch["features"].values = batch["features"].values.double()

    def gradient(*parts):
        model.zero_grad()
        for part in parts:
            losses = model.loss(part, 0)
            sum(weight * losses[name][0] for name, weight in model.weights.items()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.testing.assert_close(
        gradient(batch), gradient(select(batch, 2, 0), select(batch, 1)), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("decoder", [LAS, "decoder.layers=1"])
def test_learns_a_batch_by_heart(decoder):
    torch.manual_seed(1)
    model = make("encoder.layers=2", "encoder.dim=32", decoder, "label_smoothing=0")
    batch = make_batch(model)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    wanted = {"": TEXTS, "ctc": TEXTS}
    assert model.eval().recognise(model.encode(batch))[""] != TEXTS
    for update in range(150):
        optimiser.zero_grad()
        losses = model.train().loss(batch, update)
        sum(w * losses[name][0] / losses[name][1] for name, w in model.weights.items()).backward()
        optimiser.step()
        if update % 15 == 14 and model.eval().recognise(model.encode(batch)) == wanted:
            break
    assert model.eval().recognise(model.encode(batch)) == wanted
    assert model.loss(batch, 0)["accuracy"][0] == 11
    assert float(model.loss(batch, 0)["attention"][0]) < 0.1 * 11 * math.log(6)


def test_training_step_is_bitwise_repeatable():
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            torch.manual_seed(4)
            model = make("specaugment={}", LAS, "decoder.dropout=0.3").train()
            losses = model.loss(make_batch(model), 0)
            (losses["attention"][0] + losses["ctc"][0]).backward()
            runs.append([parameter.grad for parameter in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_empty_texts_and_too_short_speech_are_heard():
    model = make().eval()
    batch = make_batch(model)
    batch["tokens"].lengths[:] = torch.tensor([0, 0, 1])
    losses = model.loss(batch, 0)
    assert losses["accuracy"][1] == 4 and math.isfinite(float(losses["attention"][0]))
    batch["features"].lengths[:] = torch.tensor([3, 0, 6])
    heads = model.encode(batch)
    assert heads["frames"][1].tolist() == [0, 0, 0]
    assert model.recognise(heads) == {"": ["", "", ""], "ctc": ["", "", ""]}


@pytest.mark.parametrize("decoder", [LAS, "decoder.layers=2"])
def test_look_draws_where_each_token_listens(decoder):
    model = make(decoder, "max_ratio=0.4").eval()
    batch = select(make_batch(model), 1)
    look = model.look(batch)
    assert look.tokens[-1] == "<sos/eos>"
    assert len(look.attention) == (1 if decoder == LAS else 2)
    for weights in look.attention.values():
        assert weights.shape == (len(look.tokens), look.frames)
        torch.testing.assert_close(weights.sum(1), torch.ones(len(look.tokens)))


def test_unusable_settings_are_refused():
    with pytest.raises(InputError, match="tokenizer"):
        attention.build(attention.Config(), Assets())
    for override, said in (
        ("weights.attention=0", "attention=0.0 must be above 0; for CTC alone"),
        ("label_smoothing=1", "label_smoothing=1"),
        ("decoder.name=lass", "did you mean 'las'"),
        ("max_ratio=0", "max_ratio=0"),
    ):
        with pytest.raises(ProblemsError, match=said):
            load_config(attention.Config, overrides=[override])
