"""What every attention decoder must keep, in every option that changes how it computes."""

import math

import pytest
import torch

from speechkit.config import from_dict, load_config, load_kind
from speechkit.decoders import DECODERS, Reading
from speechkit.decoders.attention import AdditiveAttention
from speechkit.errors import ProblemsError

VOCAB, DIM = 7, 10
SMALL = {
    "las": {"embedding": 6, "cells": 8, "attention_dim": 9, "channels": 3, "kernel": 5, "projection": 12},
    "transformer": {"dim": 12, "layers": 2, "heads": 3, "feed_forward": 16},
}
OPTIONS = [
    ("las", {}),
    ("las", {"attention": "additive", "layers": 2}),
    ("las", {"layers": 3, "projection": None}),
    ("las", {"context": False, "projection": None, "kernel": 21}),
    ("transformer", {}),
    ("transformer", {"activation": "gelu", "layers": 1}),
]
LENGTHS = [5, 9, 1, 0, 7]


@pytest.fixture(params=OPTIONS, ids=lambda p: "-".join([p[0], *(f"{k}={v}" for k, v in p[1].items())]))
def decoder(request):
    return make(*request.param)


def make(name, options=()):
    """Random weights everywhere, also where modules begin with zeros or ones; fp64."""
    module = load_kind(DECODERS, name)
    config = from_dict(module.Config, {"name": name, **SMALL[name], **dict(options)})
    decoder = module.build(config, VOCAB, DIM).double()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return decoder.eval()


def speech(lengths=LENGTHS, padding=None):
    """Frames with random padding, or padding of one value."""
    torch.manual_seed(6)
    frames, lengths = torch.randn(len(lengths), max(lengths) + 2, DIM).double(), torch.tensor(lengths)
    if padding is not None:
        for row, length in zip(frames, lengths):
            row[length:] = padding
    return frames, lengths


def texts(rows=5, size=6):
    torch.manual_seed(7)
    return torch.randint(0, VOCAB, (rows, size))


def same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@torch.no_grad()
def test_a_batch_equals_utterances_alone_whatever_the_padding(decoder):
    tokens = texts()
    together = decoder(tokens, *speech())
    assert together.shape == (5, 6, decoder.output_dim)
    assert not together.isnan().any()  # also of the utterance without frames
    assert decoder.output(together).shape == (5, 6, VOCAB)
    frames, lengths = speech()
    for i, length in enumerate(lengths.tolist()):
        alone = decoder(tokens[i : i + 1], frames[i : i + 1, :length], lengths[i : i + 1])
        same(together[i : i + 1], alone)
    frames, lengths = speech(padding=math.nan)
    spoilt = speech()[0].where(~frames.isnan(), math.nan)
    same(decoder(tokens, spoilt, lengths), together)


@torch.no_grad()
def test_a_token_changes_what_follows_and_nothing_before(decoder):
    tokens = texts()
    before = decoder(tokens, *speech())
    tokens[:, 3] = (tokens[:, 3] + 1) % VOCAB
    after = decoder(tokens, *speech())
    same(before[:, :3], after[:, :3], 0)
    assert ((before[:, 3:] - after[:, 3:]).abs().amax(-1) > 1e-6).all()


@torch.no_grad()
def test_every_frame_is_heard(decoder):
    frames, lengths = speech([6])
    tokens = texts(1)
    before = decoder(tokens, frames, lengths)
    for place in range(6):
        changed = frames.clone()
        changed[0, place] += 1
        assert ((decoder(tokens, changed, lengths) - before).abs().amax() > 1e-9).all(), place


@torch.no_grad()
def test_step_by_step_equals_all_at_once(decoder):
    frames, lengths = speech()
    tokens = texts(size=40)  # more than the room that is made at once
    expected = decoder.output(decoder(tokens, frames, lengths)).log_softmax(-1)
    reading = Reading(decoder, frames, lengths)
    for place in range(40):
        same(reading(tokens[:, place], torch.arange(5)), expected[:, place])


@torch.no_grad()
def test_hypotheses_branch_move_and_lose_utterances(decoder):
    """Three hypotheses each, chosen anew at every step, and after the second step two utterances less."""
    frames, lengths = speech()
    reading, generator = Reading(decoder, frames, lengths), torch.Generator().manual_seed(8)
    sequences, utterances = [[] for _ in LENGTHS], list(range(5))
    for step in range(5):
        width = len(sequences) // len(utterances)
        if step == 2:
            utterances = [utterances[u] for u in (0, 2, 4)]
            reading.keep(torch.tensor([0, 2, 4]))
            starts = [0, 2 * width, 4 * width]
        else:
            starts = [u * width for u in range(len(utterances))]
        rows = [s + int(torch.randint(width, (1,), generator=generator)) for s in starts for _ in range(3)]
        tokens = torch.randint(0, VOCAB, (len(rows),), generator=generator)
        said = reading(tokens, torch.tensor(rows))
        sequences = [[*sequences[row], token] for row, token in zip(rows, tokens.tolist())]
        for i, sequence in enumerate(sequences):
            u = utterances[i // 3]
            phi = decoder(torch.tensor([sequence]), frames[u : u + 1], lengths[u : u + 1])
            same(said[i], decoder.output(phi)[0, -1].log_softmax(-1))


@torch.no_grad()
def test_maps_are_weights_of_frames(decoder):
    frames, lengths = speech([5, 9, 1])
    for weights in decoder.maps(texts(3), frames, lengths).values():
        assert weights.shape[0] == 3 and weights.shape[2] == 6 and weights.min() >= 0
        same(weights.sum(-1), torch.ones(weights.shape[:3]).double())
        for row, length in zip(weights, lengths):
            assert not row[..., length:].any()


def test_gradients_reach_every_parameter_and_the_frames(decoder):
    frames, lengths = speech()
    frames.requires_grad_(True)
    loss = decoder.train().output(decoder(texts(), frames, lengths)).log_softmax(-1)[..., 0].sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())
    for row, length in zip(frames.grad, LENGTHS):
        assert row[:length].any() == (length > 0) and not row[length:].any()


def test_no_frames_at_all(decoder):
    frames, lengths = torch.zeros(2, 0, DIM).double(), torch.zeros(2, dtype=torch.int64)
    phi = decoder(texts(2), frames, lengths)
    reading = Reading(decoder, frames, lengths)
    same(reading(texts(2)[:, 0], torch.arange(2)), decoder.output(phi)[:, 0].log_softmax(-1))


def test_additive_attention_is_the_published_formula():
    torch.manual_seed(1)
    attention = AdditiveAttention(3, 2, 4, channels=2, kernel=3, sharpness=1.7).double()
    h, s = torch.randn(1, 5, 3).double(), torch.randn(1, 1, 2).double()
    before = torch.rand(1, 1, 5).double().softmax(-1)
    with torch.no_grad():
        found, weights = attention(s, attention.remember(h, torch.tensor([5])), before)
        energies = []
        for t in range(5):
            seen = [float(before[0, 0, t + k]) if 0 <= t + k < 5 else 0.0 for k in (-1, 0, 1)]
            f = torch.tensor(seen, dtype=torch.float64) @ attention.convolution.weight[:, 0].T
            sum_ = attention.frames(h[0, t]) + attention.state(s[0, 0]) + attention.place(f)
            energies.append(1.7 * float(attention.score(sum_.tanh())))
        expected = torch.tensor(energies, dtype=torch.float64).softmax(0)
    same(weights[0, 0], expected)
    same(found[0, 0], expected @ h[0])


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("las", "kernel=4", "kernel=4 must be odd"),
        ("las", "sharpness=0", "sharpness=0"),
        ("las", "attention=dot", "not one of additive, location"),
        ("transformer", "heads=5", "dim=12 must be divisible by heads=5"),
        ("transformer", "dropout=1", "dropout=1"),
    ],
)
def test_bad_configurations_name_the_key(name, override, said):
    options = [f"{key}={value}" for key, value in SMALL[name].items()]
    with pytest.raises(ProblemsError, match=said):
        load_config(load_kind(DECODERS, name).Config, overrides=[*options, override])
