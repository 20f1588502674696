"""Representation aggregation and embedding attention: the paper's equations a frame and a head at a time."""

import math

import pytest
import torch
from torch import nn

from speechkit.config import from_dict
from speechkit.errors import InputError, ProblemsError
from speechkit.fusion import embedding_attention, representation_aggregation
from speechkit.fusion.embedding_attention import EmbeddingAttention
from speechkit.fusion.gate import Gate, mean_gates
from speechkit.fusion.representation_aggregation import RepresentationAggregation

A, L, HEADS = 12, 8, 2
FRAMES, TOKENS = [7, 3, 5], [4, 6, 2]


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(kind, **options):
    """The module with small sizes and without dropout, all its parameters random unless told otherwise."""
    init = options.pop("init", None)
    values = {"heads": HEADS, "feed_forward": 10, "dropout": 0.0, "attention_dropout": 0.0, **options}
    values["init"] = init or "xavier"
    if kind == "aggregation":
        module = RepresentationAggregation(representation_aggregation.Config(**values), A, L)
    else:
        module = EmbeddingAttention(embedding_attention.Config(**values), L, A)
    if init is None:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    return module


def speech_and_text(seed=1):
    """Padded H_A and H_L (or E) with NaN at padding, and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    acoustic = torch.randn(3, 9, A, generator=generator)
    linguistic = torch.randn(3, 8, L, generator=generator)
    for row in range(3):
        acoustic[row, FRAMES[row] :] = linguistic[row, TOKENS[row] :] = torch.nan
    return acoustic, torch.tensor(FRAMES), linguistic, torch.tensor(TOKENS)


# ---- the equations, written out for one utterance -----------------------------------------------------


def normal(norm, x):
    return norm(x) if isinstance(norm, nn.LayerNorm) else x


def att(query, key, value, out, q, memory):
    """ATT with explicit heads and loops over queries."""
    q, k, v = query(q), key(memory), value(memory)
    size = q.size(1) // HEADS
    rows = []
    for t in range(len(q)):
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            scores = torch.stack([q[t, part] @ k[m, part] / math.sqrt(size) for m in range(len(k))])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(weights[m] * v[m, part] for m in range(len(k))))
        rows.append(torch.cat(heads))
    return out(torch.stack(rows))


def parts(linear, count):
    """Linear functions that one layer holds side by side."""
    chunks = zip(linear.weight.chunk(count), linear.bias.chunk(count))
    return [lambda x, w=w, b=b: x @ w.T + b for w, b in chunks]


def gated(read, h, memory):
    """Equations 2, 4 and 5 (or 3, 6 and 7)."""
    att_ = read.attention
    key, value = parts(att_.key_value, 2)
    c = att(att_.query, key, value, att_.out, normal(att_.query_norm, h), normal(att_.memory_norm, memory))
    phi = 1.0
    if read.gate is not None:
        layer = read.gate.linear
        phi = 1 / (1 + torch.exp(-(torch.cat([c, h], 1) @ layer.weight.T + layer.bias)))
    return normal(read.norm, h + phi * c), phi


def fed_forward(ffn, h):
    inner = ffn.inner(normal(ffn.norm_in, h))
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return normal(ffn.norm_out, h + ffn.outer(inner))


def self_attended(block, e):
    x = normal(block.norm_in, e)
    e = normal(block.norm_out, e + att(*parts(block.attention.qkv, 3), block.attention.out, x, x))
    return fed_forward(block.feed_forward, e)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
@pytest.mark.parametrize("gate", ["vector", "scalar", "none"])
def test_the_aggregation_equals_the_equations(norm, gate):
    module = make("aggregation", norm=norm, gate=gate)
    h_a, frames, h_l, tokens = speech_and_text()
    out = module(h_a, frames, h_l, tokens, inspect=True)
    assert set(out.pictures) == {
        f"{side}.{what}"
        for side in ("acoustic", "linguistic")
        for what in (["attention"] if gate == "none" else ["attention", "gate"])
    }
    for row, (t, m) in enumerate(zip(FRAMES, TOKENS)):
        a, b = h_a[row, :t], h_l[row, :m]
        h_agl, phi_a = gated(module.acoustic.read, a, b)
        h_lga, phi_l = gated(module.linguistic.read, b, a)
        torch.testing.assert_close(out.acoustic[row, :t], fed_forward(module.acoustic.feed_forward, h_agl))
        torch.testing.assert_close(
            out.linguistic[row, :m], fed_forward(module.linguistic.feed_forward, h_lga)
        )
        assert not out.acoustic[row, t:].any() and not out.linguistic[row, m:].any()
        if gate != "none":
            torch.testing.assert_close(out.pictures["acoustic.gate"][row, :t], phi_a)
            torch.testing.assert_close(out.pictures["linguistic.gate"][row, :m], phi_l)


@pytest.mark.parametrize("norm, gate", [("pre", "vector"), ("post", "scalar"), ("none", "none")])
def test_the_embedding_attention_equals_the_equations(norm, gate):
    module = make("embedding", norm=norm, gate=gate)
    h_a, frames, e, tokens = speech_and_text()
    out = module(e, tokens, h_a, frames).embeddings
    for row, (t, m) in enumerate(zip(FRAMES, TOKENS)):
        expected, _ = gated(module.read, self_attended(module.block, e[row, :m]), h_a[row, :t])
        torch.testing.assert_close(out[row, :m], expected)
        assert not out[row, m:].any()


# ---- what must hold for any parameters ----------------------------------------------------------------


def test_pictures_show_whom_each_frame_and_token_reads():
    module = make("aggregation")
    pictures = module(*speech_and_text(), inspect=True).pictures
    for name, own, others in (("acoustic", FRAMES, TOKENS), ("linguistic", TOKENS, FRAMES)):
        attention = pictures[f"{name}.attention"]
        assert attention.shape == (3, HEADS, max(own), max(others))
        for row in range(3):
            sums = attention[row, :, : own[row], : others[row]].sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums))
        assert attention.sum().item() == pytest.approx(HEADS * sum(own))
    shown = make("embedding")(*speech_and_text()[2:], *speech_and_text()[:2], inspect=True).pictures
    assert shown["embedding.attention"].shape == (3, HEADS, max(TOKENS), max(FRAMES))
    assert shown["embedding.gate"].shape == (3, max(TOKENS), L)


@pytest.mark.parametrize("gate", ["vector", "scalar", "none"])
def test_the_mean_of_each_gate_is_watched(gate):
    """Over valid frames or tokens, all of the batch together, without gradient."""
    for kind, sides in (("aggregation", ("acoustic", "linguistic")), ("embedding", ("embedding",))):
        module = make(kind, gate=gate)
        given = (
            speech_and_text() if kind == "aggregation" else (*speech_and_text()[2:], *speech_and_text()[:2])
        )
        out = module(*given, inspect=True)
        watched = mean_gates(out.gates, 3)
        assert module.gated == ([] if gate == "none" else list(sides))
        assert list(watched) == [f"gate_{side}" for side in module.gated]
        for side in module.gated:
            values = out.pictures[f"{side}.gate"]
            sizes = FRAMES if side == "acoustic" else TOKENS
            inside = torch.cat([values[row, : sizes[row]].flatten() for row in range(3)])
            assert watched[f"gate_{side}"].item() == pytest.approx(3 * inside.mean().item(), abs=1e-12)
            assert not watched[f"gate_{side}"].requires_grad and out.gates[side].requires_grad


def test_nothing_is_kept_for_pictures_when_none_are_asked_for():
    assert make("aggregation")(*speech_and_text()).pictures == {}
    assert make("embedding")(*speech_and_text()[2:], *speech_and_text()[:2]).pictures == {}


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_padding_and_the_order_of_the_batch_change_nothing(norm):
    fuse, embed = make("aggregation", norm=norm), make("embedding", norm=norm)
    h_a, frames, h_l, tokens = speech_and_text()
    whole = (*fuse(h_a, frames, h_l, tokens)[:2], embed(h_l, tokens, h_a, frames).embeddings)
    order = torch.tensor([2, 0, 1])
    h_a, frames, h_l, tokens = (x[order] for x in (h_a, frames, h_l, tokens))
    turned = (*fuse(h_a, frames, h_l, tokens)[:2], embed(h_l, tokens, h_a, frames).embeddings)
    for one, other in zip(whole, turned):
        torch.testing.assert_close(one[order], other, rtol=0, atol=1e-10)
    for place in range(3):
        t, m = int(frames[place]), int(tokens[place])
        a, b = h_a[place, None, :t], h_l[place, None, :m]
        lengths = torch.tensor([t]), torch.tensor([m])
        alone = (
            *fuse(a, lengths[0], b, lengths[1])[:2],
            embed(b, lengths[1], a, lengths[0]).embeddings,
        )
        for one, other in zip(turned, alone):
            torch.testing.assert_close(one[place, : other.size(1)], other[0], rtol=0, atol=1e-10)


def test_utterances_without_frames_and_without_tokens_stay_finite():
    fuse, embed = make("aggregation"), make("embedding")
    h_a, h_l = torch.randn(2, 3, A), torch.randn(2, 3, L)
    none, some = torch.tensor([0, 3]), torch.tensor([3, 0])
    out = fuse(h_a, none, h_l, some)
    assert out.acoustic.isfinite().all() and out.linguistic.isfinite().all()
    assert embed(h_l, some, h_a, none).embeddings.isfinite().all()


def test_every_parameter_and_both_inputs_learn():
    for kind in ("aggregation", "embedding"):
        module = make(kind)
        h_a, frames, h_l, tokens = (torch.nan_to_num(x) for x in speech_and_text())
        h_a.requires_grad_(), h_l.requires_grad_()
        sides = (h_a, frames, h_l, tokens) if kind == "aggregation" else (h_l, tokens, h_a, frames)
        outputs = [x for x in module(*sides)[:2] if isinstance(x, torch.Tensor)]
        sum(out.square().sum() for out in outputs).backward()
        for name, parameter in module.named_parameters():
            if not name.endswith("bias"):  # a bias of the keys moves all scores alike
                assert parameter.grad.abs().max() > 1e-9, (kind, name)
        for x, lengths in ((h_a, FRAMES), (h_l, TOKENS)):
            for row, length in enumerate(lengths):
                assert (x.grad[row, :length].abs().sum(-1) > 0).all() and not x.grad[row, length:].any()


def test_gradients_are_those_of_finite_differences():
    module = make("aggregation", feed_forward=3)
    lengths = torch.tensor([2, 1]), torch.tensor([1, 3])
    inputs = torch.randn(2, 2, A, requires_grad=True), torch.randn(2, 3, L, requires_grad=True)

    def run(h_a, h_l):
        return module(h_a, lengths[0], h_l, lengths[1])[:2]

    assert torch.autograd.gradcheck(run, inputs)


def test_dropout_takes_part_in_training_only():
    module = make("aggregation", dropout=0.5, attention_dropout=0.5)
    inputs = speech_and_text()
    one, other = module(*inputs).acoustic, module(*inputs).acoustic
    assert not torch.equal(one, other)
    module.eval()
    assert torch.equal(module(*inputs).acoustic, module(*inputs).acoustic)


# ---- how training begins, and the variants ------------------------------------------------------------


@pytest.mark.parametrize("norm", ["pre", "none"])
def test_at_first_nothing_is_added(norm):
    h_a, frames, h_l, tokens = speech_and_text()
    out = make("aggregation", norm=norm, init="identity", dropout=0.1)(h_a, frames, h_l, tokens, True)
    assert torch.equal(out.acoustic, torch.nan_to_num(h_a[:, : max(FRAMES)]))
    assert torch.equal(out.linguistic, torch.nan_to_num(h_l[:, : max(TOKENS)]))
    embedded = make("embedding", norm=norm, init="identity")(h_l, tokens, h_a, frames).embeddings
    assert torch.equal(embedded, torch.nan_to_num(h_l[:, : max(TOKENS)]))


def test_at_first_gates_let_in_an_eighth_and_everything_begins_to_learn():
    module = make("aggregation", init="identity")
    assert module.acoustic.read.gate.linear.bias.eq(-2).all()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        out = module(*speech_and_text())
        (out.acoustic.sin().sum() + out.linguistic.sin().sum()).backward()
        optimizer.step()
    idle = [n for n, p in module.named_parameters() if not n.endswith("bias") and not p.grad.abs().max() > 0]
    assert idle == []


def test_bert_reads_its_own_embeddings_at_first():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=40, hidden_size=L, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    bert = BertModel(config, add_pooling_layer=False).eval()
    ids, lengths = torch.randint(40, (3, 8)), torch.tensor(TOKENS)
    visible = (torch.arange(8) < lengths[:, None]).long()
    plain = bert(input_ids=ids, attention_mask=visible).last_hidden_state
    embeddings = bert.embeddings(input_ids=ids)
    h_a, frames, _, _ = speech_and_text()
    for init, same in (("identity", True), ("xavier", False)):
        heard = make("embedding", init=init)(embeddings, lengths, h_a, frames).embeddings
        mask = (1.0 - visible[:, None, None, : heard.size(1)]) * torch.finfo(torch.float64).min
        states = bert.encoder(heard, attention_mask=mask).last_hidden_state
        worst = max((states[i, :n] - plain[i, :n]).abs().max() for i, n in enumerate(TOKENS))
        assert bool(worst < 1e-6) is same


def test_closed_gates_leave_the_speech_as_it_is():
    module = make("aggregation")
    for branch in (module.acoustic, module.linguistic):
        nn.init.zeros_(branch.read.gate.linear.weight)
        nn.init.constant_(branch.read.gate.linear.bias, -torch.inf)
    h_a, frames, h_l, tokens = speech_and_text()
    seen = []
    for branch in (module.acoustic, module.linguistic):
        branch.feed_forward.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(h_a, frames, h_l, tokens)
    assert torch.equal(seen[0], torch.cat([h_a[i, :n] for i, n in enumerate(FRAMES)]))
    assert torch.equal(seen[1], torch.cat([h_l[i, :n] for i, n in enumerate(TOKENS)]))


def test_variants_hold_nothing_of_what_they_leave_out():
    both = dict(make("aggregation").named_parameters())
    for branches, kept, gone in (
        ("acoustic_guided", "acoustic", "linguistic"),
        ("linguistic_guided", "linguistic", "acoustic"),
    ):
        module = make("aggregation", branches=branches)
        names = {name for name, _ in module.named_parameters()}
        assert names == {name for name in both if name.startswith(f"{kept}.")}
        out = module(*speech_and_text())
        assert getattr(out, gone) is None and getattr(out, kept) is not None
    ungated = {name for name, _ in make("aggregation", gate="none").named_parameters()}
    assert set(both) - ungated == {
        f"{side}.read.gate.linear.{what}"
        for side in ("acoustic", "linguistic")
        for what in ("weight", "bias")
    }


def test_shapes_of_gates():
    assert make("aggregation").acoustic.read.gate.linear.weight.shape == (A, 2 * A)
    assert make("aggregation", gate="scalar").linguistic.read.gate.linear.weight.shape == (1, 2 * L)


def test_gates_are_not_computed_in_half_precision():
    gate, zeros = Gate(4).float(), torch.zeros(1, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        phi = gate(zeros + 0.1, zeros)
    assert phi.dtype == torch.float32
    assert Gate(4)(torch.zeros(1, 4), torch.zeros(1, 4)).dtype == torch.float64


def test_settings_are_checked():
    with pytest.raises(InputError, match="heads=5 does not divide the dimension 12"):
        make("aggregation", heads=5)
    with pytest.raises(InputError, match="heads=3 does not divide the dimension 8"):
        make("embedding", heads=3)
    with pytest.raises(ProblemsError, match="dropout=1"):
        from_dict(representation_aggregation.Config, {"dropout": 1.0})
    assert from_dict(representation_aggregation.Config, {"branches": "acoustic_guided"}).feed_forward == 2048


def test_mixed_precision_stays_near_full_precision():
    for kind in ("aggregation", "embedding"):
        module = make(kind).float()
        h_a, frames, h_l, tokens = (x.float() if x.is_floating_point() else x for x in speech_and_text())
        sides = (h_a, frames, h_l, tokens) if kind == "aggregation" else (h_l, tokens, h_a, frames)
        exact = module(*sides)[0]
        with torch.autocast("cpu", torch.bfloat16):
            near = module(*sides, inspect=True)[0]
        assert near.dtype == torch.float32 and not torch.equal(near, exact)
        torch.testing.assert_close(near, exact, rtol=0.05, atol=0.3)
