"""Our attention decoders with ESPnet's weights say what ESPnet's say, and our search finds what theirs finds.

tools/install_espnet.sh installs it.
"""

import logging

import pytest
import torch
from espnet_decoders import copy_rnn, copy_transformer, find

from speechkit.config import from_dict
from speechkit.decoders import Reading, las, transformer
from speechkit.search.attention_beam import AttentionBeam, AttentionBeamConfig

pytestmark = pytest.mark.peers
pytest.importorskip("espnet2.asr.decoder.transformer_decoder", reason="ESPnet is not installed")

VOCAB, DIM, HEADS, UNITS, LAYERS = 20, 16, 4, 24, 3
EOS = VOCAB - 1


def randomise(module):
    """Random weights everywhere, biases included; sharper outputs than untrained ones."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def both_transformers():
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

    theirs = randomise(TransformerDecoder(VOCAB, DIM, HEADS, UNITS, LAYERS))
    sizes = {"dim": DIM, "heads": HEADS, "feed_forward": UNITS, "layers": LAYERS, "norm_eps": 1e-12}
    ours = transformer.build(from_dict(transformer.Config, sizes), VOCAB, DIM).eval()
    copy_transformer(ours, theirs)
    return ours, theirs


def both_rnns(kind, layers, residual):
    from espnet2.asr.decoder.rnn_decoder import RNNDecoder

    attention = {"atype": kind, "adim": 12, "aconv_chans": 3, "aconv_filts": 4}
    theirs = randomise(
        RNNDecoder(VOCAB, DIM, "lstm", layers, 14, context_residual=residual, att_conf=attention)
    )
    sizes = {
        "embedding": 14, "cells": 14, "layers": layers, "attention_dim": 12, "channels": 3, "kernel": 9,
        "attention": {"location": "location", "add": "additive"}[kind], "context": residual,
        "projection": None,
    }  # fmt: skip
    ours = las.build(from_dict(las.Config, sizes), VOCAB, DIM).eval()
    copy_rnn(ours, theirs)
    return ours, theirs


def batch():
    torch.manual_seed(2)
    lengths, sizes = torch.tensor([23, 9, 15]), torch.tensor([7, 5, 2])
    frames, tokens = torch.randn(3, 23, DIM).double(), torch.randint(0, VOCAB, (3, 7))
    for row, length in zip(frames, lengths):
        row[length:] = 0
    return frames, lengths, tokens, sizes


@torch.no_grad()
def assert_same(ours, theirs, tolerance):
    ours, theirs = ours.double(), theirs.double()
    frames, lengths, tokens, sizes = batch()
    expected, _ = theirs(frames, lengths, tokens, sizes)
    found = ours.output(ours(tokens, frames, lengths))
    for mine, other, size in zip(found, expected, sizes):
        torch.testing.assert_close(mine[:size], other[:size], rtol=0, atol=tolerance)


def test_transformer_decoder():
    assert_same(*both_transformers(), 1e-5)  # ESPnet's table of positions is of fp32


@pytest.mark.parametrize("kind", ["location", "add"])
@pytest.mark.parametrize(("layers", "residual"), [(1, False), (2, True)])
def test_rnn_decoder(kind, layers, residual):
    assert_same(*both_rnns(kind, layers, residual), 1e-10)


def make_ctc():
    from espnet2.asr.ctc import CTC

    ctc = randomise(CTC(VOCAB, DIM))
    with torch.no_grad():
        ctc.ctc_lo.weight.mul_(1.5)
        ctc.ctc_lo.bias[0] += 2  # blanks
    return ctc.double()


@pytest.mark.parametrize(
    ("beam", "weight", "bonus", "ratio"),
    [(1, 0.3, 0.0, 0.0), (4, 0.3, 0.0, 0.0), (10, 0.3, 0.2, 0.0), (10, 0.5, 0.0, 0.6), (5, 0.7, -0.1, -6.0)],
)
@torch.no_grad()
def test_search_finds_the_same_hypotheses_with_the_same_scores(beam, weight, bonus, ratio):
    """Ours all utterances at once, ESPnet's one after the other; all that ended, in the same order."""
    logging.disable(logging.WARNING)
    (ours, theirs), ctc = both_transformers(), make_ctc()
    ours, theirs = ours.double(), theirs.double()
    torch.manual_seed(3)
    lengths = torch.tensor([31, 12, 20, 8, 26])  # ESPnet fails where there are fewer frames than tokens
    frames = 1.5 * torch.randn(5, 31, DIM).double()
    options = {"beam": beam, "nbest": 1000, "ctc_weight": weight, "length_bonus": bonus, "maxlenratio": ratio}
    search = AttentionBeam(AttentionBeamConfig(**options), EOS)
    log_probs = ctc.log_softmax(frames)
    found = search([(Reading(ours, frames, lengths), 1 - weight)], lengths, log_probs)
    compared = 0
    for row, length in enumerate(lengths.tolist()):
        expected = find(theirs, ctc, frames[row, :length], beam, weight, bonus, ratio)
        assert [h.tokens for h in found[row]] == [tokens for tokens, _, _ in expected]
        for h, (_, score, ctc_score) in zip(found[row], expected):
            assert h.score == pytest.approx(score, abs=1e-4)
            assert h.ctc == pytest.approx(ctc_score, abs=1e-4)
            compared += 1
    assert compared >= (5 if beam == 1 else 20)
