"""The CTC model keeps the Model contract, and learns."""

from types import SimpleNamespace

import pytest
import torch

from speechkit.config import load_config
from speechkit.data.batch import Batch, Padded, pad
from speechkit.errors import InputError, ProblemsError
from speechkit.losses.ctc import ctc_loss
from speechkit.models import ctc
from speechkit.models.assets import Assets

BINS = 20
SMALL = ["encoder.dim=16", "encoder.layers=1", "encoder.heads=2", "encoder.feed_forward=32"]
TOKENIZER = SimpleNamespace(vocab=["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"])
CMVN = {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100}


def make(*overrides, cmvn=CMVN):
    return ctc.build(load_config(ctc.Config, overrides=[*SMALL, *overrides]), Assets(TOKENIZER, cmvn))


def make_batch():
    features = pad([torch.randn(n, BINS) for n in (60, 80, 47)])
    tokens = pad([torch.tensor(t) for t in ([2, 3, 3], [4, 2, 3, 4], [2])])
    return Batch(
        ["u1", "u2", "u3"], torch.tensor([11, 12, 13]), None, {"features": features, "tokens": tokens}
    )


def select(batch, *rows):
    index = torch.tensor(rows)
    fields = {k: Padded(v.values[index], v.lengths[index]) for k, v in batch.fields.items()}
    return Batch([batch.ids[i] for i in rows], batch.keys[index], None, fields)


def test_loss_is_the_sum_of_ctc_losses_with_its_count():
    model, batch = make().eval(), make_batch()
    total, count = model.loss(batch, 0)["ctc"]
    log_probs, lengths = model.encode(batch)["ctc"]
    tokens = batch["tokens"]
    torch.testing.assert_close(total, ctc_loss(log_probs, lengths, tokens.values, tokens.lengths).sum())
    assert count == 3 == model.counts(batch)["ctc"]
    assert make("normaliser=tokens").counts(batch) == {"ctc": 8}
    assert torch.equal(lengths, model.output_lengths(batch["features"].lengths))


def test_log_probabilities_are_fp32_and_sum_to_one_under_autocast_too():
    model, batch = make().eval(), make_batch()
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            log_probs, _ = model.encode(batch)["ctc"]
            total, _ = model.loss(batch, 0)["ctc"]
        assert log_probs.dtype == total.dtype == torch.float32
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))


def test_batch_equals_utterances_alone_in_evaluation():
    model, batch = make("specaugment={}").eval(), make_batch()
    together, lengths = model.encode(batch)["ctc"]
    for i in range(3):
        alone, length = model.encode(select(batch, i))["ctc"]
        assert length.item() == lengths[i].item()
        torch.testing.assert_close(alone[0, :length], together[i, :length], rtol=0, atol=1e-4)


def test_gradient_of_one_batch_is_the_sum_over_its_parts():
    model, batch = make("encoder.dropout=0", "specaugment={}").double().train(), make_batch()
    for name, padded in batch.fields.items():
        if name == "features":
            padded.values = padded.values.double()

    def gradient(*parts):
        model.zero_grad()
        for part in parts:
            model.loss(part, 0)["ctc"][0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.testing.assert_close(
        gradient(batch), gradient(select(batch, 2, 0), select(batch, 1)), rtol=1e-9, atol=1e-9
    )


def test_augments_in_training_only_and_by_key():
    model, batch = make("encoder.dropout=0", "specaugment={}"), make_batch()
    plain = model.eval().encode(batch)["ctc"][0]
    model.train()
    first, again = model.encode(batch)["ctc"][0], model.encode(batch)["ctc"][0]
    assert torch.equal(first, again) and not torch.equal(first, plain)


def test_features_are_normalised():
    batch = make_batch()
    torch.manual_seed(3)
    with_statistics = make().eval()
    torch.manual_seed(3)
    without = make(f"input_dim={BINS}", cmvn=None).eval()
    expected = with_statistics.encode(batch)["ctc"][0]
    batch["features"].values.sub_(0.5).div_(2)
    torch.testing.assert_close(without.encode(batch)["ctc"][0], expected)


def greedy(log_probs, lengths):
    paths = [row[:frames].argmax(-1).unique_consecutive() for row, frames in zip(log_probs, lengths)]
    return [path[path != 0].tolist() for path in paths]


@pytest.mark.parametrize("encoder", ["conformer", "transformer", "blstm"])
def test_learns_a_batch_by_heart(encoder):
    torch.manual_seed(1)
    config = load_config(ctc.Config, overrides=[f"encoder={{name: {encoder}, layers: 2, dropout: 0}}"])
    model, batch = ctc.build(config, Assets(TOKENIZER, CMVN)), make_batch()
    targets = [[2, 3, 3], [4, 2, 3, 4], [2]]
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    assert greedy(*model.eval().encode(batch)["ctc"]) != targets
    for update in range(150):
        optimiser.zero_grad()
        total, count = model.train().loss(batch, update)["ctc"]
        (total / count).backward()
        optimiser.step()
        if update % 15 == 14 and greedy(*model.eval().encode(batch)["ctc"]) == targets:
            break
    assert greedy(*model.eval().encode(batch)["ctc"]) == targets


def test_training_step_is_bitwise_repeatable():
    batch = make_batch()
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(3):
            torch.manual_seed(4)
            model = make("specaugment={}").train()
            model.loss(batch, 0)["ctc"][0].backward()
            runs.append([parameter.grad for parameter in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run))


def test_too_short_utterances_get_no_frames():
    model, batch = make().eval(), make_batch()
    batch["features"].lengths[:] = torch.tensor([3, 0, 6])
    log_probs, lengths = model.encode(batch)["ctc"]
    assert lengths.tolist() == [0, 0, 0] and log_probs.shape == (3, 0, 6)


def test_unusable_assets_are_refused():
    with pytest.raises(InputError, match="tokenizer"):
        ctc.build(ctc.Config(), Assets())
    with pytest.raises(InputError, match="input_dim=40.*20 dimensions"):
        make("input_dim=40")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("encoder.heads=5", "dim=16 must be divisible by heads=5"),
        ("encoder.kernel=8", "kernel=8 must be odd"),
        ("encoder.dropout=1", "dropout=1"),
        ("encoder.heads=16", "even dim / heads"),
        ("encoder.positions=absolute", "not one of rotary"),
        ("encoder.subsampling.factor=3", "not one of 1, 2, 4, 6, 8"),
        ("encoder.layer=3", "did you mean 'layers'"),
        ("encoder.name=convformer", "did you mean 'conformer'"),
        ("normaliser=frames", "not one of utterances, tokens"),
        ("specaugment={time_ratio: 2}", "time_ratio=2"),
    ],
)
def test_bad_configurations_name_the_key_and_the_value(override, said):
    with pytest.raises(ProblemsError, match=said):
        load_config(ctc.Config, overrides=[*SMALL, override])
