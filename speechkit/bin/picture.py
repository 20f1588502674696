"""`speechkit picture curves|mask`: what a pre-training run does, and what it hides from the network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="curves|mask")
    curves = actions.add_parser("curves", help="perplexities, accuracies and losses", allow_abbrev=False)
    curves.add_argument("--exp", type=Path, required=True, help="folder of a run, with metrics.jsonl")
    curves.add_argument("--out", type=Path, help="PNG to write (pretraining.png in that folder)")
    mask = actions.add_parser("mask", help="masked frames over a spectrogram", allow_abbrev=False)
    mask.add_argument("--model", type=Path, required=True, help="checkpoint or folder of a pre-training run")
    mask.add_argument("--data", type=Path, required=True, help="data directory made by speechkit format")
    mask.add_argument("--utterance", help="which one (the first)")
    mask.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    mask.add_argument("--out", type=Path, required=True, help="PNG to write")


def run(args: argparse.Namespace) -> None:
    """Draws the picture."""
    from speechkit.metrics.plots_pretraining import draw_pretraining

    if args.action == "curves":
        path = args.out or args.exp / "pretraining.png"
        draw_pretraining(args.exp / "metrics.jsonl", path)
    else:
        path = args.out
        _mask(args)
    print(f"speechkit picture: {path}", file=sys.stderr)


def _mask(args: argparse.Namespace) -> None:
    import torch

    from speechkit.decoding.encoder_features import FrozenEncoder
    from speechkit.errors import InputError
    from speechkit.layers.span_mask import span_mask
    from speechkit.metrics.plots_frames import draw_mask, read_utterance

    encoder = FrozenEncoder(args.model)
    config = getattr(encoder.run.model, "mask", None)
    if config is None:
        raise InputError(f"{args.model}: a model of kind {encoder.run.model.name} has no mask")
    name, waveform = read_utterance(args.data, args.utterance)
    lengths = torch.tensor([encoder.frames(len(waveform))])
    mask = span_mask(lengths, config, torch.tensor([args.seed]))[0].numpy()
    rate, offset = encoder.rate / encoder.shift, encoder.middle / encoder.rate
    draw_mask(waveform, mask, rate, offset, name, args.out)
