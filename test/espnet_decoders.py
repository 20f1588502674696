"""ESPnet's attention decoders: their weights put into ours, and what their search finds."""

from __future__ import annotations

import torch


def copy(target, source):
    """Copies the tensors of one module into another of the same names and shapes."""
    target.load_state_dict(source.state_dict(), strict=False)


def pairs(ours, theirs):
    """Equal modules, or tensors, of our Transformer decoder and of ESPnet's `TransformerDecoder`."""
    yield ours.embedding, theirs.embed[0]
    yield ours.norm, theirs.after_norm
    yield ours.output, theirs.output_layer
    for mine, other in zip(ours.blocks, theirs.decoders, strict=True):
        own, source = other.self_attn, other.src_attn
        yield from ((mine.norm_attention, other.norm1), (mine.norm_context, other.norm2))
        yield from ((mine.norm_feed_forward, other.norm3), (mine.attention.out, own.linear_out))
        yield from ((mine.context.query, source.linear_q), (mine.context.out, source.linear_out))
        yield from ((mine.feed_forward.inner, other.feed_forward.w_1),)
        yield from ((mine.feed_forward.outer, other.feed_forward.w_2),)
        for joined, parts in (
            (mine.attention.qkv, (own.linear_q, own.linear_k, own.linear_v)),
            (mine.context.key_value, (source.linear_k, source.linear_v)),
        ):
            yield from zip(joined.weight.chunk(len(parts)), (part.weight for part in parts))
            yield from zip(joined.bias.chunk(len(parts)), (part.bias for part in parts))


@torch.no_grad()
def copy_transformer(ours, theirs, back=False):
    """Copies ESPnet's `TransformerDecoder` into our decoder, or back."""
    for mine, other in pairs(ours, theirs):
        target, source = (other, mine) if back else (mine, other)
        if isinstance(target, torch.Tensor):
            target.copy_(source)
        else:
            copy(target, source)


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


def find(decoder, ctc, frames, beam, weight, bonus=0.0, ratio=0.0):
    """ESPnet's hypotheses of one utterance `(T, D)`: tokens without <sos/eos>, score, that of CTC."""
    from espnet.nets.batch_beam_search import BatchBeamSearch
    from espnet.nets.scorers.ctc import CTCPrefixScorer
    from espnet.nets.scorers.length_bonus import LengthBonus

    vocab = ctc.ctc_lo.out_features
    eos = vocab - 1
    search = BatchBeamSearch(
        scorers={
            "decoder": decoder,
            "ctc": CTCPrefixScorer(ctc, eos),
            "length_bonus": LengthBonus(vocab),
        },
        weights={"decoder": 1 - weight, "ctc": weight, "length_bonus": bonus},
        beam_size=beam, vocab_size=vocab, sos=eos, eos=eos, pre_beam_score_key="full",
    )  # fmt: skip
    search.to(dtype=frames.dtype).eval()
    found = search(frames, maxlenratio=ratio)
    kept = [h for h in found if float(h.score) > -1e8]  # what CTC forbids is there with -1e10
    return [
        ([t for t in h.yseq.tolist() if t != eos], float(h.score), float(h.scores.get("ctc", 0)))
        for h in kept
    ]
