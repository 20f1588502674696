"""Our attention decoders with ESPnet's weights say what ESPnet's say, and our search finds what theirs finds.

tools/install_espnet.sh installs it.
"""

import logging

import pytest
import torch

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


def copy(target, source):
    """Copies the tensors of one module into another of the same names and shapes."""
    target.load_state_dict(source.state_dict(), strict=False)


@torch.no_grad()
def copy_transformer(ours, theirs):
    """Copies ESPnet's `TransformerDecoder` into our decoder."""
    copy(ours.embedding, theirs.embed[0])
    copy(ours.norm, theirs.after_norm)
    copy(ours.output, theirs.output_layer)
    for mine, other in zip(ours.blocks, theirs.decoders, strict=True):
        for norm, number in ((mine.norm_attention, 1), (mine.norm_context, 2), (mine.norm_feed_forward, 3)):
            copy(norm, getattr(other, f"norm{number}"))
        own, source = other.self_attn, other.src_attn
        mine.attention.qkv.weight.copy_(
            torch.cat([x.weight for x in (own.linear_q, own.linear_k, own.linear_v)])
        )
        mine.attention.qkv.bias.copy_(torch.cat([x.bias for x in (own.linear_q, own.linear_k, own.linear_v)]))
        copy(mine.attention.out, own.linear_out)
        copy(mine.context.query, source.linear_q)
        mine.context.key_value.weight.copy_(torch.cat([source.linear_k.weight, source.linear_v.weight]))
        mine.context.key_value.bias.copy_(torch.cat([source.linear_k.bias, source.linear_v.bias]))
        copy(mine.context.out, source.linear_out)
        copy(mine.feed_forward.inner, other.feed_forward.w_1)
        copy(mine.feed_forward.outer, other.feed_forward.w_2)


@torch.no_grad()
def copy_rnn(ours, theirs):
    """Copies ESPnet's `RNNDecoder`; the bias of its energies, which no softmax sees, has no place here."""
    copy(ours.embedding, theirs.embed)
    copy(ours.output, theirs.output)
    for mine, other in zip(ours.cells, theirs.decoder, strict=True):
        copy(mine, other)
    (attention,) = theirs.att_list
    copy(ours.attention.frames, attention.mlp_enc)
    copy(ours.attention.state, attention.mlp_dec)
    ours.attention.score.weight.copy_(attention.gvec.weight)
    if ours.attention.convolution is not None:
        ours.attention.convolution.weight.copy_(attention.loc_conv.weight[:, :, 0])
        copy(ours.attention.place, attention.mlp_att)


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


def theirs_find(decoder, ctc, frames, beam, weight, bonus, ratio):
    """ESPnet's hypotheses of one utterance `(T, D)`: tokens without <sos/eos>, score, that of CTC."""
    from espnet.nets.batch_beam_search import BatchBeamSearch
    from espnet.nets.scorers.ctc import CTCPrefixScorer
    from espnet.nets.scorers.length_bonus import LengthBonus

    search = BatchBeamSearch(
        scorers={
            "decoder": decoder,
            "ctc": CTCPrefixScorer(ctc, EOS),
            "length_bonus": LengthBonus(VOCAB),
        },
        weights={"decoder": 1 - weight, "ctc": weight, "length_bonus": bonus},
        beam_size=beam, vocab_size=VOCAB, sos=EOS, eos=EOS, pre_beam_score_key="full",
    )  # fmt: skip
    search.to(dtype=frames.dtype).eval()
    found = search(frames, maxlenratio=ratio)
    kept = [h for h in found if float(h.score) > -1e8]  # what CTC forbids is there with -1e10
    return [
        ([t for t in h.yseq.tolist() if t != EOS], float(h.score), float(h.scores.get("ctc", 0)))
        for h in kept
    ]


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
        expected = theirs_find(theirs, ctc, frames[row, :length], beam, weight, bonus, ratio)
        assert [h.tokens for h in found[row]] == [tokens for tokens, _, _ in expected]
        for h, (_, score, ctc_score) in zip(found[row], expected):
            assert h.score == pytest.approx(score, abs=1e-4)
            assert h.ctc == pytest.approx(ctc_score, abs=1e-4)
            compared += 1
    assert compared >= (5 if beam == 1 else 20)
