"""Transducer systems: their terms, padding, recognition, and that they learn."""

from __future__ import annotations

import pytest
import torch

from speechkit.config import load_config
from speechkit.data.batch import Batch, Padded, pad
from speechkit.decoding import transducer_beam, transducer_greedy
from speechkit.decoding.resources import Resources
from speechkit.errors import InputError, ProblemsError
from speechkit.losses.ctc import ctc_loss
from speechkit.models import transducer
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import build_tokenizer

BINS = 20
SMALL = [
    "encoder.dim=16",
    "encoder.layers=1",
    "encoder.heads=2",
    "encoder.feed_forward=32",
    "encoder.dropout=0",
]
SMALL += ["prediction.dropout=0", "joint.dim=24"]
TOKENIZER = build_tokenizer("char", ["abc cab", "b a"])
TEXTS = ["ab", "cab b", ""]
ASSETS = Assets(TOKENIZER, {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100})


def make(*options: str, seed: int = 3) -> transducer.TransducerModel:
    """A tiny system."""
    torch.manual_seed(seed)
    config = load_config(transducer.Config, overrides=[*SMALL, *options])
    return transducer.build(config, ASSETS)


def make_batch() -> Batch:
    """Three utterances, one of them without words."""
    torch.manual_seed(5)
    features = pad([torch.randn(n, BINS) for n in (60, 80, 47)])
    tokens = pad([torch.tensor(TOKENIZER.encode(text), dtype=torch.int64) for text in TEXTS])
    return Batch(
        ["u1", "u2", "u3"], torch.tensor([11, 12, 13]), None, {"features": features, "tokens": tokens}
    )


def alone(batch: Batch, row: int) -> Batch:
    """One utterance without padding."""
    fields = {
        name: Padded(field.values[row : row + 1, : int(field.lengths[row])], field.lengths[row : row + 1])
        for name, field in batch.fields.items()
    }
    return Batch(batch.ids[row : row + 1], batch.keys[row : row + 1], None, fields)


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
@pytest.mark.parametrize("combine", ["add", "multiply"])
def test_terms_are_sums_over_utterances_that_padding_does_not_change(kind, combine):
    model = make(f"prediction.name={kind}", f"joint.combine={combine}", "weights.ctc=0.3").double().eval()
    batch = make_batch()
    batch["features"].values = batch["features"].values.double()
    whole = model.loss(batch, 0)
    assert model.weights == {"transducer": 1.0, "ctc": 0.3}
    assert {name: count for name, (_, count) in whole.items()} == {"transducer": 3, "ctc": 3}
    parts = [model.loss(alone(batch, row), 0) for row in range(3)]
    for name, (value, _) in whole.items():
        torch.testing.assert_close(value, sum(part[name][0] for part in parts), rtol=1e-12, atol=0)
    tokens = batch["tokens"]
    wanted = ctc_loss(*model.encode(batch)["ctc"], tokens.values, tokens.lengths).sum()
    torch.testing.assert_close(whole["ctc"][0], wanted)


def test_without_a_weight_there_is_no_ctc():
    model, batch = make().eval(), make_batch()
    assert not [name for name, _ in model.named_parameters() if name.startswith("head")]
    assert set(model.encode(batch)) == {"transducer"} and set(model.loss(batch, 0)) == {"transducer"}


def test_a_pruned_joint_network_of_all_labels_has_the_same_loss():
    whole, pruned = make().eval(), make("joint.pruned=9").eval()
    missing, unexpected = pruned.load_state_dict(whole.state_dict(), strict=False)
    assert not unexpected and {name.split(".")[1] for name in missing} == {"simple_frames", "simple_states"}
    batch = make_batch()
    terms = pruned.loss(batch, 0)
    assert pruned.weights == {"transducer": 1.0, "simple": 0.5}
    assert torch.equal(terms["transducer"][0], whole.loss(batch, 0)["transducer"][0])
    terms["simple"][0].backward()
    assert pruned.joint.simple_states.weight.grad.abs().sum() > 0
    assert pruned.joint.of_frames.weight.grad.abs().sum() > 0 and pruned.joint.out.weight.grad is None
    config, left_out = pruned.for_recognition()
    assert config == whole.for_recognition()[0]
    assert all(name.startswith(left_out) for name in missing)


def test_a_narrow_window_loses_paths():
    whole, pruned = make().eval(), make("joint.pruned=2").eval()
    pruned.load_state_dict(whole.state_dict(), strict=False)
    batch = make_batch()
    terms = pruned.loss(batch, 0)
    assert (terms["transducer"][0] - whole.loss(batch, 0)["transducer"][0]).detach() > 1e-3
    sum(value for value, _ in terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.joint.parameters())


@torch.no_grad()
def test_searches_and_validation_recognise_alike():
    model, batch = make(seed=8).eval(), make_batch()
    model.joint.out.weight.mul_(8)
    model.joint.out.bias[[1, -1]] = -60  # <unk> and <sos/eos>, which the beam never says
    model.joint.out.bias[0] = 6
    heads, resources = model.encode(batch), Resources(model, ASSETS)
    greedy = transducer_greedy.build(transducer_greedy.Config(), resources)
    texts = [greedy.text(nbest[0]) for nbest in greedy(heads)]
    assert texts == model.recognise(heads)[""] and any(texts)
    beam = transducer_beam.build(transducer_beam.Config(beam=8, nbest=3), resources)
    for nbest, (first,) in zip(beam(heads), greedy(heads)):
        assert len(nbest) == 3 and nbest[0].score >= first.score - 1e-6
        assert not {0, TOKENIZER.unk} & {token for h in nbest for token in h.tokens}
    for row in range(3):
        assert model.recognise(model.encode(alone(batch, row)))[""] == texts[row : row + 1]


def test_searches_refuse_what_they_cannot_use(tmp_path):
    model = make()
    lexicon = Resources(model, ASSETS, lexicon_path=tmp_path)
    with pytest.raises(InputError, match="takes no --lexicon"):
        transducer_beam.build(transducer_beam.Config(), lexicon)
    with pytest.raises(InputError, match="search.name=transducer_beam"):
        transducer_greedy.build(transducer_greedy.Config(), Resources(model, ASSETS, lm_path=tmp_path))


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
def test_learns_a_batch_by_heart(kind):
    model, batch = make(f"prediction.name={kind}"), make_batch()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for update in range(400):
        optimiser.zero_grad()
        total, count = model.train().loss(batch, update)["transducer"]
        (total / count).backward()
        optimiser.step()
        model.eval()
        with torch.no_grad():
            search = transducer_beam.build(transducer_beam.Config(beam=5), Resources(model, ASSETS))
            # noise says nothing of when: a label may come in many frames, and greedily that is in none
            if update % 20 == 19 and [search.text(h[0]) for h in search(model.encode(batch))] == TEXTS:
                return
    raise AssertionError(f"loss {float(total.detach()):.3f} after {update + 1} updates")


def test_a_loss_that_is_not_finite_stays_with_its_utterance():
    model, batch = make().eval(), make_batch()
    batch["features"].values[1] = torch.nan
    total, _ = model.loss(batch, 0)["transducer"]
    assert not total.isfinite()
    assert model.loss(alone(batch, 0), 0)["transducer"][0].isfinite()
    assert not model.loss(alone(batch, 1), 0)["transducer"][0].isfinite()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prediction.name=gru", "known: lstm, stateless"),
        ("prediction.cells=0", "cells=0"),
        ("joint.combine=concat", "not one of add, multiply"),
        ("joint.pruned=1", "pruned=1"),
        ("joint.loss=theirs", "not one of auto, ours, warp_rnnt"),
        ("weights.simple=-1", "simple=-1"),
        ("fastemit=-1", "fastemit=-1"),
        ("weights.ctc=-1", "ctc=-1"),
    ],
)
def test_bad_configurations_name_the_key_and_the_value(override, said):
    with pytest.raises(ProblemsError, match=said):
        make(override)


def test_a_tokenizer_is_needed():
    with pytest.raises(InputError, match="--tokenizer"):
        transducer.build(transducer.Config(), Assets())
