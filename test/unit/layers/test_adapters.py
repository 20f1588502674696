"""LoRA and bottleneck adapters against their formulas, on the Transformer encoder."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from speechkit.config import from_dict, load_kind
from speechkit.encoders import ENCODERS, transformer
from speechkit.errors import InputError
from speechkit.layers.adapters import (
    Bottleneck,
    BottleneckAdapter,
    Lora,
    LoraLinear,
    adapt,
    apply_bottlenecks,
    apply_lora,
    merge_lora,
)

LENGTHS = torch.tensor([40, 23])


def encoder():
    torch.manual_seed(2)
    config = transformer.Config(dim=12, layers=2, heads=2, feed_forward=20, dropout=0.0)
    return transformer.build(config, 8).double().eval()


def features():
    return torch.randn(2, 40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def disturb(module, pattern):
    """Moves the adapters away from their neutral start."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if pattern in name:
                parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("lora", [None, Lora(3, targets=["qkv", "out"])])
@pytest.mark.parametrize("bottleneck", [None, Bottleneck(5)])
def test_adapters_change_nothing_at_the_start_and_keep_the_names(lora, bottleneck):
    plain, adapted = encoder(), encoder()
    adapt(adapted, 12, lora, bottleneck)
    assert torch.equal(adapted(features(), LENGTHS).frames, plain(features(), LENGTHS).frames)
    before, after = plain.state_dict(), adapted.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    new = set(after) - set(before)
    blocks, parts = ("blocks.0", "blocks.1"), ("attention", "feed_forward")
    expected = set()
    if lora:
        expected |= {f"{b}.attention.{x}.lora_{y}" for b in blocks for x in ("qkv", "out") for y in "ab"}
    if bottleneck:
        names = ("down.weight", "down.bias", "up.weight", "up.bias")
        expected |= {f"{b}.{p}.adapter.{n}" for b in blocks for p in parts for n in names}
    assert {n for n in new if "subsampling" not in n} == expected
    assert not new or all("subsampling" not in n or "out.lora" in n for n in new)


def test_lora_is_the_low_rank_change_of_the_weight():
    """h = W x + alpha / r B A x (Hu et al. 2021, eq. 3)."""
    torch.manual_seed(1)
    linear = nn.Linear(7, 5).double()
    adapted = LoraLinear(linear, Lora(rank=2, alpha=6.0))
    assert adapted.weight is linear.weight and adapted.bias is linear.bias
    disturb(adapted, "lora")
    x = torch.randn(4, 7, dtype=torch.float64)
    change = 3.0 * adapted.lora_b @ adapted.lora_a
    assert torch.linalg.matrix_rank(change) == 2
    torch.testing.assert_close(
        adapted(x), x @ (linear.weight + change).T + linear.bias, rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(adapted.merged_weight(), linear.weight + change)


def test_lora_dropout_acts_on_the_change_alone():
    torch.manual_seed(1)
    linear = nn.Linear(400, 3)
    adapted = LoraLinear(linear, Lora(rank=2, alpha=2.0, dropout=0.5)).train()
    x = torch.randn(1, 400)
    assert torch.equal(adapted(x), linear(x))  # B is zero: nothing to drop
    disturb(adapted, "lora")
    with torch.no_grad():
        change = torch.stack([adapted(x) - linear(x) for _ in range(600)])
    assert change.std(0).min() > 0
    expected = adapted.eval()(x) - linear(x)
    torch.testing.assert_close(change.mean(0), expected, rtol=0, atol=0.25 * change.std(0).max().item())


def test_merging_gives_a_plain_network_with_the_same_answer():
    adapted, plain = encoder(), encoder()
    names = apply_lora(adapted, Lora(3, targets=["qkv", "inner"]))
    assert names == [f"blocks.{i}.{x}" for i in (0, 1) for x in ("attention.qkv", "feed_forward.inner")]
    disturb(adapted, "lora")
    expected = adapted(features(), LENGTHS).frames
    assert not torch.allclose(expected, plain(features(), LENGTHS).frames)
    assert merge_lora(adapted) == names and merge_lora(adapted) == []
    assert not any(isinstance(part, LoraLinear) for part in adapted.modules())
    plain.load_state_dict(adapted.state_dict(), strict=True)
    torch.testing.assert_close(plain(features(), LENGTHS).frames, expected, rtol=0, atol=1e-12)


def test_a_bottleneck_is_a_residual_after_the_part():
    torch.manual_seed(1)
    adapter = BottleneckAdapter(6, 3).double()
    disturb(adapter, "up")
    x = torch.randn(4, 6, dtype=torch.float64)
    inner = x @ adapter.down.weight.T + adapter.down.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(adapter(x), x + inner @ adapter.up.weight.T + adapter.up.bias)

    adapted, plain = encoder(), encoder()
    assert apply_bottlenecks(adapted, Bottleneck(3, ["feed_forward"]), 12) == [
        "blocks.0.feed_forward",
        "blocks.1.feed_forward",
    ]
    disturb(adapted, "adapter")
    for block, twin in zip(plain.blocks, adapted.blocks):
        block.feed_forward = Then(block.feed_forward, twin.feed_forward.adapter)
    expected = plain(features(), LENGTHS).frames
    torch.testing.assert_close(adapted(features(), LENGTHS).frames, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(expected, encoder()(features(), LENGTHS).frames)


class Then(nn.Module):
    """One module after another."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x, packing):
        return self.second(self.first(x, packing))


@pytest.mark.parametrize(
    ("lora", "bottleneck", "norms"),
    [(Lora(2, targets=["qkv"]), None, False), (None, Bottleneck(2), True)],
)
def test_only_adapters_learn_unless_asked(lora, bottleneck, norms):
    adapted = encoder()
    adapt(adapted, 12, lora, bottleneck)
    adapted(features(), LENGTHS).frames.square().sum().backward()
    learning = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert learning and all("lora" in n or "adapter" in n or (norms and "norm" in n) for n in learning)
    assert any("norm" in n for n in learning) == norms
    assert all(name.startswith("blocks.") or "lora" in name for name in learning)
    free = encoder()
    for config in (lora, bottleneck):
        if config is not None:
            config.train_base = True
    adapt(free, 12, lora, bottleneck)
    assert all(p.requires_grad for p in free.parameters())


def test_copies_are_independent():
    adapted = encoder()
    adapt(adapted, 12, Lora(2, targets=["qkv"]), Bottleneck(2))
    other = copy.deepcopy(adapted)
    disturb(other, "adapter")
    assert not torch.equal(other(features(), LENGTHS).frames, adapted(features(), LENGTHS).frames)
    assert torch.equal(adapted(features(), LENGTHS).frames, encoder()(features(), LENGTHS).frames)


def test_targets_that_match_nothing_name_what_is_there():
    with pytest.raises(
        InputError, match=r"lora.targets: nothing to adapt is named 'q_proj'; there are .*qkv"
    ):
        apply_lora(encoder(), Lora(targets=["qkv", "q_proj"]))
    with pytest.raises(InputError, match=r"adapter.targets: .* named 'mlp'; .*feed_forward"):
        apply_bottlenecks(encoder(), Bottleneck(targets=["attention", "mlp"]), 12)
    with pytest.raises(ValueError, match="rank=0"):
        Lora(rank=0)
    with pytest.raises(ValueError, match="adapts nothing"):
        Bottleneck(targets=[])


@pytest.mark.parametrize("name", ["conformer", "transformer", "wav2vec2"])
def test_encoders_take_adapters_by_configuration(name):
    module = load_kind(ENCODERS, name)
    own = name == "wav2vec2"
    lora = {"rank": 2, "targets": ["q_proj", "out_proj"] if own else ["qkv"]}
    bottleneck = {"dim": 3, "targets": ["first", "attention"] if name == "conformer" else ["feed_forward"]}
    sizes = {"dim": 16, "heads": 2, "layers": 2, "feed_forward": 8, **({"preset": "tiny"} if own else {})}
    config = from_dict(module.Config, {"name": name, **sizes, "lora": lora, "adapter": bottleneck})
    built = module.build(config, 20)
    learning = {n for n, p in built.named_parameters() if p.requires_grad}
    assert learning and all("lora" in n or "adapter" in n or "norm" in n for n in learning)
    x = torch.randn(1, 8000) if own else torch.randn(1, 50, 20)
    built(x, torch.tensor([x.size(1)])).frames.sin().sum().backward()
    assert {n for n, p in built.named_parameters() if p.grad is not None} >= {
        n for n in learning if "norm" not in n
    }
