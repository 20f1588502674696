"""Transducer beam search: ours over all utterances at once against ESPnet's `default`, one after the other.

    python test/bench/bench_transducer_beam.py [--utterances 30] [--frames 75] [--beam 10] [--vocab 500]
                                               [--checkpoint exp/transducer/seed1 --data dump/test]

With a Python that has ESPnet (tools/install_espnet.sh). Without --checkpoint the weights are made up: an LSTM
and a joint network, trained for a moment to write down what noisy frames say. With one, its prediction and
joint network go into ESPnet's modules (whose embeddings are as wide as its one or more LSTMs), and the frames
are those of --data. Both get the same frames of fp32 and as many threads; what is timed begins behind the
encoder. What each finds is judged by its exact log probability, the sum over all alignments.
ESPnet's search goes on in a frame until enough hypotheses are silent: with weights that learnt next to
nothing (--updates) it may never end.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]

from speechkit.decoders import joint, prediction_lstm  # noqa: E402
from speechkit.search.transducer_beam import TransducerBeam, TransducerBeamConfig  # noqa: E402

SPAN = 3
"""Frames of a token, about."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {"utterances": 30, "frames": 75, "beam": 10, "dim": 256, "vocab": 500, "max-symbols": 3}
    for name, value in {**numbers, "updates": 300, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine")
    parser.add_argument("--noise", type=float, default=0.6, help="of the made-up frames")
    parser.add_argument("--checkpoint", help="a transducer with an LSTM")
    parser.add_argument("--data", help="data directory whose utterances the checkpoint hears")
    return parser.parse_args()


class Networks:
    """A prediction and a joint network, as searches see them."""

    def __init__(self, prediction: nn.Module, joining: nn.Module) -> None:
        self.prediction, self.joint = prediction, joining

    def start(self, count: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `speechkit.search.transducer_networks.Networks`, here and below."""
        states, memory = self.prediction.start(count)
        return self.joint.of_states(states), memory

    def step(self, tokens: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One label more."""
        states, memory = self.prediction.step(tokens, memory)
        return self.joint.of_states(states), memory

    def score(self, frames: Tensor, states: Tensor) -> Tensor:
        """What comes next."""
        return self.joint(frames, states)

    def losses(self, frames: Tensor, lengths: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """`(B,)` minus the exact log probabilities of labels."""
        padded = nn.utils.rnn.pad_sequence(list(tokens), True)
        sizes = torch.tensor([len(row) for row in tokens])
        f, g = self.joint.of_frames(frames), self.joint.of_states(self.prediction(padded))
        return self.joint.loss(f, g, padded, lengths, sizes)[0]


def speech(
    o: argparse.Namespace, table: Tensor, count: int, seed: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Noisy frames in which every token stands for a few, their lengths, and the tokens."""
    generator = torch.Generator().manual_seed(seed)
    frames, tokens = [], []
    for _ in range(count):
        length = int(torch.randint(o.frames // 2, o.frames + 1, (1,), generator=generator))
        said = torch.randint(1, o.vocab, (max(1, length // SPAN),), generator=generator)
        clean = table[said].repeat_interleave(SPAN, 0)
        tokens.append(said)
        frames.append(clean + o.noise * torch.randn(clean.shape, generator=generator))
    lengths = torch.tensor([len(row) for row in frames])
    return nn.utils.rnn.pad_sequence(frames, True), lengths, tokens


def train(o: argparse.Namespace, table: Tensor) -> Networks:
    """A few updates on made-up speech, from an output layer that knows what tokens look like."""
    sizes = {"embedding": o.dim, "cells": o.dim, "dropout": 0.0}
    prediction = prediction_lstm.build(prediction_lstm.Config(**sizes), o.vocab)
    joining = joint.Joint(joint.Config(o.dim), o.dim, o.dim, o.vocab)
    with torch.no_grad():
        joining.of_frames.weight.copy_(torch.eye(o.dim))
        joining.out.weight.copy_(table)
    networks = Networks(prediction, joining)
    optimiser = torch.optim.Adam([*prediction.parameters(), *joining.parameters()], 2e-3)
    for update in range(o.updates):
        frames, lengths, tokens = speech(o, table, 4, 1000 + update)
        loss = networks.losses(frames, lengths, tokens).sum() / sum(map(len, tokens))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % 50 == 49:
            print(f"update {update + 1}: {loss.item():.3f} nats a token", flush=True)
    return networks


def hear(o: argparse.Namespace) -> tuple[Networks, Tensor, Tensor]:
    """The networks of a checkpoint, and frames of the data."""
    from speechkit.decoding import DecodeConfig, transducer_beam
    from speechkit.decoding.recognizer import Recognizer

    recognizer = Recognizer.load(o.checkpoint, DecodeConfig(search=transducer_beam.Config()), device="cpu")
    model, rows = recognizer.model, []
    with torch.no_grad():
        for batch in recognizer.batches(o.data)[1]:
            rows += [frames[:length] for frames, length in zip(*map(list, model.hear(batch)))]
    rows = rows[:: max(1, len(rows) // o.utterances)][: o.utterances]
    o.vocab = model.joint.out.out_features
    lengths = torch.tensor([len(row) for row in rows])
    return Networks(model.prediction, model.joint), nn.utils.rnn.pad_sequence(rows, True), lengths


def make_theirs(o: argparse.Namespace, networks: Networks) -> object:
    """ESPnet's search with these weights."""
    from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
    from espnet2.asr.transducer.beam_search_transducer import BeamSearchTransducer
    from espnet2.asr_transducer.joint_network import JointNetwork

    lstm, ours = networks.prediction.lstm, networks.joint
    if lstm.input_size != lstm.hidden_size or ours.combine != "add":
        raise SystemExit("ESPnet embeds labels as widely as its LSTM is, and adds frames and states")
    decoder = TransducerDecoder(o.vocab, "lstm", lstm.num_layers, lstm.hidden_size)
    decoder.embed.load_state_dict(networks.prediction.embedding.state_dict())
    for layer, theirs in enumerate(decoder.decoder):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(theirs, f"{kind}_l0").data.copy_(getattr(lstm, f"{kind}_l{layer}"))
    width = ours.of_frames.out_features
    joining = JointNetwork(o.vocab, ours.of_frames.in_features, lstm.hidden_size, width, lin_dec_bias=False)
    pairs = (
        (joining.lin_enc, ours.of_frames),
        (joining.lin_dec, ours.of_states),
        (joining.lin_out, ours.out),
    )
    for theirs, mine in pairs:
        theirs.load_state_dict(mine.state_dict())
    return BeamSearchTransducer(decoder.eval(), joining.eval(), o.beam, score_norm=False)


@torch.no_grad()
def compare(o: argparse.Namespace, networks: Networks, frames: Tensor, lengths: Tensor) -> None:
    """Prints utterances a second of both, and what they found."""
    clock, found, taken = {"wall": time.perf_counter, "cpu": time.process_time}[o.clock], {}, {}
    for topology in ("exact", "one"):
        config = TransducerBeamConfig(beam=o.beam, max_symbols=o.max_symbols, topology=topology)
        search = TransducerBeam(config, [str(token) for token in range(o.vocab)])
        begun = clock()
        nbest = search(networks, networks.joint.of_frames(frames), lengths)
        name = f"SpeechKit, {topology}"
        taken[name], found[name] = clock() - begun, [h[0].tokens for h in nbest]
    theirs = make_theirs(o, networks)
    begun = clock()
    best = [theirs(row[:length])[0] for row, length in zip(frames, lengths.tolist())]
    taken["ESPnet, default"] = clock() - begun
    found["ESPnet, default"] = [h.yseq[1:] for h in best]
    print(f"{len(frames)} utterances, {int(lengths.sum())} frames, beam {o.beam}, V {o.vocab}")
    (first, *_), scores = found, {}
    for name, tokens in found.items():
        rows = [torch.tensor(row, dtype=torch.int64) for row in tokens]
        scores[name] = -networks.losses(frames, lengths, rows)
        speed, mean = len(frames) / taken[name], float(scores[name].mean())
        print(
            f"{name:17} {speed:8.2f} utterances/s ({o.clock}); exact score of the best, mean {mean:.4f}",
            flush=True,
        )
    for name in [*found][1:]:
        gain, ratio = scores[first] - scores[name], taken[name] / taken[first]
        better, worse = (int((sign * gain > 1e-3).sum()) for sign in (1, -1))
        print(f"{first} against {name}: {ratio:.1f} times as fast; {better} better, {worse} worse")


def main() -> None:
    """Makes or loads the networks, and compares."""
    o = options()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    if o.checkpoint:
        networks, frames, lengths = hear(o)
    else:
        table = torch.randn(o.vocab, o.dim) / o.dim**0.25
        networks = train(o, table)
        frames, lengths, _ = speech(o, table, o.utterances, 1)
    compare(o, networks, frames, lengths)


if __name__ == "__main__":
    main()
