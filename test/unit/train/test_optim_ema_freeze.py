"""Optimisers, averaged weights and freezing against formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speechkit.config import load_kind
from speechkit.encoders import ENCODERS, conformer, wav2vec2
from speechkit.errors import InputError
from speechkit.layers import subsampling
from speechkit.train import optim
from speechkit.train.distributed import Ranks
from speechkit.train.ema import EMA
from speechkit.train.freeze import Freeze, Freezing
from speechkit.train.gradients import FlatGradients


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_the_optimiser_follows_the_published_update(name):
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2."""
    lr, b1, b2, eps, decay = 0.1, 0.8, 0.9, 1e-6, 0.3
    net = nn.Linear(3, 2, bias=False).double()
    optimizer = optim.build(optim.Config(name, lr, [b1, b2], eps, decay), net)
    w, m, v = net.weight.detach().clone(), 0, 0
    for t in range(1, 5):
        g = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
        net.weight.grad = g.clone()
        optim.set_rate(optimizer, lr)
        optimizer.step()
        if name == "adam":
            g = g + decay * w
        else:
            w = w - lr * decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        torch.testing.assert_close(net.weight.detach(), w, atol=1e-9, rtol=1e-9)


def test_groups_scale_rates_and_vectors_are_not_decayed():
    net = model()
    config = optim.Config(groups=[optim.Group("0.*", 0.1, 0.5), optim.Group("2.weight", 3.0)])
    optimizer = optim.build(config, net)
    optim.set_rate(optimizer, 0.01)
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = next(n for n, p in net.named_parameters() if p is parameter)
            found[name] = (round(group["lr"], 6), group["weight_decay"])
    assert found == {
        "0.weight": (0.001, 0.5),
        "0.bias": (0.001, 0.0),
        "1.weight": (0.01, 0.0),
        "1.bias": (0.01, 0.0),
        "2.weight": (0.03, 0.01),
        "2.bias": (0.01, 0.0),
    }
    with pytest.raises(InputError, match="no parameter is left for the pattern 'decoder"):
        optim.build(optim.Config(groups=[optim.Group("decoder.*")]), net)


def rates(optimizer, net):
    """Name -> factor of the rate."""
    names = {id(p): name for name, p in net.named_parameters()}
    return {names[id(p)]: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_rates_decay_towards_the_input(norm):
    """Block l of L at decay^(L - l), before them decay^(L + 1), the head 1; times the groups' scales."""
    net = nn.Module()
    options = {"preset": "tiny", "norm": norm, "layers": 3, "feature_grad_mult": 0.0}
    net.encoder = load_kind(ENCODERS, "wav2vec2").build(wav2vec2.Config(**options))
    net.head = nn.Linear(3, 2)
    config = optim.Config(
        layer_decay=0.5, groups=[optim.Group("head.*", 4.0), optim.Group("*.1.attention.*", 3.0)]
    )
    found = rates(optim.build(config, net), net)
    assert not any(".conv_layers." in name for name in found)  # frozen
    assert found["head.weight"] == 4 and found["encoder.encoder.layers.2.attention.q_proj.weight"] == 0.5
    assert found["encoder.encoder.layers.1.attention.q_proj.weight"] == 0.75
    assert found["encoder.encoder.layers.1.layer_norm.weight"] == 0.25
    assert found["encoder.encoder.layers.0.layer_norm.bias"] == 0.125
    assert found["encoder.encoder.layer_norm.weight"] == (1 if norm == "pre" else 0.0625)
    front = ("masked_spec_embed", "feature_projection.projection.weight", "encoder.pos_conv_embed.conv.bias")
    assert all(found[f"encoder.{name}"] == 0.0625 for name in front)


def test_rates_decay_in_the_feature_encoders_too():
    net = nn.Module()
    shape = {"dim": 8, "heads": 2, "layers": 2, "feed_forward": 8}
    net.encoder = load_kind(ENCODERS, "conformer").build(
        conformer.Config(**shape, subsampling=subsampling.Config("stack")), 20
    )
    found = rates(optim.build(optim.Config(layer_decay=0.5), net), net)
    assert found["encoder.subsampling.layers.0.weight"] == 0.125 and found["encoder.norm.weight"] == 1
    assert (
        found["encoder.blocks.0.norm_out.weight"] == 0.25 and found["encoder.blocks.1.norm_out.weight"] == 0.5
    )
    with pytest.raises(InputError, match="optim.layer_decay: the model has no encoder with blocks"):
        optim.build(optim.Config(layer_decay=0.5), model())


def test_ema_is_the_recursion_with_its_warm_up():
    net = model()
    ema = EMA(net, 0.9)
    expected = [p.detach().clone() for p in net.parameters()]
    for n in range(200):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(n)))
        ema.update(n)
        stay = min(0.9, (1 + n) / (10 + n))
        expected = [stay * e + (1 - stay) * p.detach() for e, p in zip(expected, net.parameters())]
    own = {name: value.clone() for name, value in net.state_dict().items()}
    averaged = ema.state_dict()
    for (name, p), e in zip(net.named_parameters(), expected):
        torch.testing.assert_close(averaged[name], e, atol=1e-4, rtol=1e-4)
        assert torch.equal(p, own[name]) and not torch.equal(p, averaged[name])
    with ema.swapped():
        assert all(torch.equal(value, averaged[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())
    other = EMA(net, 0.9)
    other.load_state_dict(averaged)
    assert all(torch.equal(a, b) for a, b in zip(other.copy, ema.copy))


def test_freezing_until_an_update():
    net = model()
    net[1].weight.requires_grad_(False)  # the model's own choice
    freezing = Freezing(net, [Freeze("0.*", until=10), Freeze("0.weight", until=4), Freeze("*.bias")])
    freezing_all = {"0.weight", "2.weight"}
    assert {name for name, p in net.named_parameters() if p.requires_grad} == freezing_all
    for update, trained in ((0, {"2.weight"}), (9, {"2.weight"}), (10, freezing_all), (3, {"2.weight"})):
        freezing(update)
        assert {name for name, p in net.named_parameters() if p.requires_grad} == trained
    with pytest.raises(
        InputError, match=r"no parameter matches 'encoder.\*'; the first ones are \['0.weight'"
    ):
        Freezing(net, [Freeze("encoder.*")])
    with pytest.raises(InputError, match="nothing would learn in update 0"):
        Freezing(model(), [Freeze("*", until=3)])
    Freezing(model(), [Freeze("*", until=0)])


def test_frozen_parameters_stay_and_their_moments_do_not_start():
    net = model()
    freezing = Freezing(net, [Freeze("0.*", until=2), Freeze("1.*")])
    optimizer = optim.build(optim.Config(lr=0.1, weight_decay=0.5), net)
    gradients = FlatGradients(net, 0)
    ema = EMA(net, 0.5)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for update in range(4):
        freezing(update)
        gradients.reset()
        net(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()
        moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
        assert ("0.weight" in moved) == (update >= 2) and "2.weight" in moved
    assert (
        int(optimizer.state[net[0].weight]["step"]) == 2 and int(optimizer.state[net[2].weight]["step"]) == 4
    )
    # what is frozen for good takes no memory anywhere
    assert all(torch.equal(p, before[f"1.{name}"]) for name, p in net[1].named_parameters())
    kept = sum(p.numel() for part in (net[0], net[2]) for p in part.parameters())
    assert len(gradients.flat) == kept == sum(copy.numel() for copy in ema.copy)
    assert kept == sum(p.numel() for group in optimizer.param_groups for p in group["params"])


def test_flat_gradients_are_the_gradients_and_are_clipped_together():
    net, again = model(), model()
    gradients = FlatGradients(net, 2)
    for scale in (1.0, 3.0):  # the second round must not remember the first
        gradients.reset()
        for m in (net, again):
            m.zero_grad() if m is again else None
            (scale * m(torch.arange(6.0).reshape(2, 3)).pow(2).sum()).backward()
        gradients.reduce(Ranks())
        for p, q in zip(net.parameters(), again.parameters()):
            assert torch.equal(p.grad, q.grad)
    norm = torch.nn.utils.clip_grad_norm_(again.parameters(), 1.5)
    assert float(gradients.norm()) == pytest.approx(float(norm))
    gradients.clip(float(gradients.norm()), 1.5)
    for p, q in zip(net.parameters(), again.parameters()):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-5)
    before = gradients.flat.clone()
    gradients.clip(1.0, 1.5)
    gradients.clip(100.0, 0)
    assert torch.equal(before, gradients.flat)
