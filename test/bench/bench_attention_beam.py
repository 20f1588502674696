"""Joint CTC/attention beam search: ours over all utterances at once against ESPnet's, one after the other.

    python test/bench/bench_attention_beam.py [--utterances 50] [--frames 150] [--beam 10] [--ctc-weight 0.3]
                                              [--dim 256] [--layers 6] [--vocab 500]
                                              [--checkpoint exp/att/seed1 --data dump/test]

With a Python that has ESPnet (tools/install_espnet.sh). Without --checkpoint the weights are made up: a
decoder that begins by looking at the frames of its own place, and is trained for a moment to write down what
noisy frames say, so that hypotheses end. With one, its
Transformer decoder and CTC go into ESPnet's modules, and the frames are those of --data. Both get the same
frames of fp32 and as many threads; what is timed begins behind the encoder. The hypotheses must be the same,
and as many must have ended: the searches then stopped at the same length.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]

from espnet_decoders import copy_transformer, find  # noqa: E402

from speechkit.config import from_dict  # noqa: E402
from speechkit.decoders import Reading, transformer  # noqa: E402
from speechkit.layers.positions import sinusoids  # noqa: E402
from speechkit.search.attention_beam import AttentionBeam, AttentionBeamConfig  # noqa: E402

SPAN = 6
"""Frames of a token."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {"utterances": 50, "frames": 150, "beam": 10, "dim": 256, "layers": 6, "vocab": 500}
    for name, value in {**numbers, "heads": 4, "feed-forward": 2048, "updates": 150, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ctc-weight", type=float, default=0.3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine")
    parser.add_argument("--checkpoint", help="a system with a Transformer decoder and CTC")
    parser.add_argument("--data", help="data directory whose utterances the checkpoint hears")
    return parser.parse_args()


def speech(
    o: argparse.Namespace, table: Tensor, count: int, seed: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Noisy frames, their lengths, and the tokens; every token stands for six, and so does the end.

    Frames hold a code of their place too, as those of an encoder do.
    """
    generator = torch.Generator().manual_seed(seed)
    frames, tokens = [], []
    for _ in range(count):
        length = int(torch.randint(o.frames // 2, o.frames + 1, (1,), generator=generator))
        said = torch.randint(1, o.vocab - 1, (max(1, length // SPAN - 1),), generator=generator)
        clean = torch.cat([table[said], table[:1] + table[-1:]]).repeat_interleave(SPAN, 0)
        places = sinusoids(torch.arange(len(clean)) / SPAN, o.dim)
        tokens.append(said)
        frames.append(clean + places + 0.5 * torch.randn(clean.shape, generator=generator))
    lengths = torch.tensor([len(row) for row in frames])
    return nn.utils.rnn.pad_sequence(frames, True), lengths, tokens


def make_theirs(o: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    from espnet2.asr.ctc import CTC
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

    sizes = (o.vocab, o.dim, o.heads, o.feed_forward, o.layers)
    return TransformerDecoder(*sizes, dropout_rate=0.0, positional_dropout_rate=0.0), CTC(o.vocab, o.dim)


def train(o: argparse.Namespace, decoder: nn.Module, ctc: nn.Module, table: Tensor) -> None:
    """A few updates of cross entropy, and CTC, whose layers begin as the table of what tokens look like."""
    with torch.no_grad():
        for layer in (ctc.ctc_lo, decoder.output_layer):
            layer.weight.copy_(table)
            layer.bias.zero_()
        ctc.ctc_lo.bias[-1] = -10  # <sos/eos>
        decoder.embed[0].weight.mul_(0.5 / o.dim**0.5)
        heard = decoder.decoders[0].src_attn
        for layer in (heard.linear_q, heard.linear_k, heard.linear_v, heard.linear_out):
            layer.weight.copy_(torch.eye(o.dim))
    optimiser = torch.optim.Adam([*decoder.parameters(), *ctc.parameters()], 1e-3)
    for update in range(o.updates):
        frames, lengths, tokens = speech(o, table, 8, 1000 + update)
        given = [torch.cat([torch.tensor([o.vocab - 1]), row]) for row in tokens]
        wanted = [torch.cat([row, torch.tensor([o.vocab - 1])]) for row in tokens]
        given, sizes = nn.utils.rnn.pad_sequence(given, True), torch.tensor([len(row) for row in wanted])
        logits, _ = decoder(frames, lengths, given, sizes)
        targets = nn.utils.rnn.pad_sequence(wanted, True, -100)
        loss = nn.functional.cross_entropy(logits.transpose(1, 2), targets)
        padded, counts = nn.utils.rnn.pad_sequence(tokens, True), sizes - 1
        loss = loss + nn.functional.ctc_loss(
            ctc.log_softmax(frames).transpose(0, 1), padded, lengths, counts, zero_infinity=True
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % 25 == 24:
            print(f"update {update + 1}: {loss.item():.3f} nats a token, and CTC", flush=True)


def hear(o: argparse.Namespace) -> tuple[nn.Module, nn.Module, nn.Module, Tensor, Tensor]:
    """Our decoder of a checkpoint, ESPnet's decoder and CTC with its weights, and frames of the data."""
    from speechkit.decoding import DecodeConfig, attention_beam
    from speechkit.decoding.recognizer import Recognizer

    recognizer = Recognizer.load(o.checkpoint, DecodeConfig(search=attention_beam.Config()), device="cpu")
    model, config = recognizer.model, recognizer.run.model.decoder
    o.vocab, o.dim, o.layers = len(model.tokenizer.vocab), config.dim, config.layers
    o.heads, o.feed_forward = config.heads, config.feed_forward
    theirs, ctc = make_theirs(o)
    if model.encoder.output_dim != config.dim:
        raise SystemExit(
            "ESPnet's decoder is as wide as its encoder; take a checkpoint in which they are equal"
        )
    copy_transformer(model.decoder, theirs, back=True)
    for part in theirs.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = config.norm_eps
    ctc.ctc_lo.load_state_dict(model.head.state_dict())
    parts = [recognizer.encode(batch)["frames"] for batch in recognizer.batches(o.data)[1]]
    rows = [row[:length] for values, sizes in parts for row, length in zip(values, sizes.tolist())]
    rows = rows[: o.utterances]
    lengths = torch.tensor([len(row) for row in rows])
    return model.decoder, theirs.eval(), ctc, nn.utils.rnn.pad_sequence(rows, True), lengths


@torch.no_grad()
def compare(
    o: argparse.Namespace,
    ours: nn.Module,
    theirs: nn.Module,
    ctc: nn.Module,
    frames: Tensor,
    lengths: Tensor,
) -> None:
    """Prints utterances a second of both, and where they differ."""
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[o.clock]
    config = AttentionBeamConfig(beam=o.beam, nbest=10**6, ctc_weight=o.ctc_weight)
    beam = AttentionBeam(config, o.vocab - 1)
    begun = clock()
    log_probs = ctc.log_softmax(frames)
    found = beam([(Reading(ours, frames, lengths), 1 - o.ctc_weight)], lengths, log_probs)
    taken = [clock() - begun]
    begun, expected = clock(), []
    for row, length in zip(frames, lengths.tolist()):
        expected.append(find(theirs, ctc, row[:length], o.beam, o.ctc_weight))
    taken.append(clock() - begun)
    tokens = sum(len(h[0].tokens) for h in found)
    print(f"{len(found)} utterances, {int(lengths.sum())} frames, {tokens} tokens, beam {o.beam}")
    for name, seconds in zip(("SpeechKit", "ESPnet"), taken):
        print(f"{name:10} {len(found) / seconds:8.2f} utterances/s ({o.clock})")
    same = sum(h[0].tokens == e[0][0] for h, e in zip(found, expected))
    apart = max(abs(h[0].score - e[0][1]) for h, e in zip(found, expected))
    print(f"{taken[1] / taken[0]:.1f} times; {same} best hypotheses are the same, scores within {apart:.1e}")
    ended = sum(len(h) == len(e) for h, e in zip(found, expected))
    lists = sum([h.tokens for h in nbest[: o.beam]] == [t for t, *_ in e[: o.beam]]
                for nbest, e in zip(found, expected))  # fmt: skip
    print(f"{lists} lists of the {o.beam} best are the same; as many have ended of {ended} utterances")


def main() -> None:
    """Makes or loads the networks, and compares."""
    o = options()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    if o.checkpoint:
        compare(o, *hear(o))
        return
    table = torch.randn(o.vocab, o.dim) / o.dim**0.25
    theirs, ctc = make_theirs(o)
    train(o, theirs, ctc, table)
    sizes = {"dim": o.dim, "heads": o.heads, "feed_forward": o.feed_forward, "layers": o.layers}
    ours = transformer.build(from_dict(transformer.Config, {**sizes, "norm_eps": 1e-12}), o.vocab, o.dim)
    copy_transformer(ours, theirs.eval())
    frames, lengths, _ = speech(o, table, o.utterances, 1)
    compare(o, ours.eval(), theirs, ctc, frames, lengths)


if __name__ == "__main__":
    main()
