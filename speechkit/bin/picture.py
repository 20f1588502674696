"""`speechkit picture`: how runs go, what they mask, where tokens listen, what is seen in clips."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    curves = actions.add_parser(
        "curves", help="perplexities, accuracies, gates, distances and losses", allow_abbrev=False
    )
    curves.add_argument("--exp", type=Path, required=True, help="folder of a run, with metrics.jsonl")
    curves.add_argument("--out", type=Path, help="PNG to write (pretraining.png in that folder)")
    mask = actions.add_parser("mask", help="masked frames over a spectrogram", allow_abbrev=False)
    mask.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    fusion = actions.add_parser(
        "fusion", help="gates, attention and firing of a system with BERT", allow_abbrev=False
    )
    alignment = actions.add_parser(
        "alignment", help="attention of a decoder, or the lattice of a transducer", allow_abbrev=False
    )
    context = actions.add_parser(
        "context", help="which tokens of an AV-BERT a recogniser's frames read", allow_abbrev=False
    )
    clusters = actions.add_parser(
        "clusters", help="a clip put together from its clusters, masked, and told again", allow_abbrev=False
    )
    clusters.add_argument("--codebook", type=Path, required=True, help="k-means model of the video patches")
    clusters.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    runs = {
        mask: "pre-training run",
        fusion: "run of a system with BERT",
        alignment: "run with an attention decoder, or of a transducer",
        context: "run that reads an AV-BERT",
        clusters: "pre-training run with video",
    }
    for action, trained in runs.items():
        action.add_argument("--model", type=Path, required=True, help=f"checkpoint or folder of a {trained}")
        action.add_argument(
            "--data", type=Path, required=True, help="data directory made by speechkit format"
        )
        action.add_argument("--utterance", help="which one (the first)")
        action.add_argument("--out", type=Path, required=True, help="PNG to write")


def run(args: argparse.Namespace) -> None:
    """Draws the picture."""
    from speechkit.metrics.plots_pretraining import draw_pretraining

    if args.action == "curves":
        path = args.out or args.exp / "pretraining.png"
        draw_pretraining(args.exp / "metrics.jsonl", path)
    else:
        path = args.out
        {"mask": _mask, "context": _context, "clusters": _clusters}.get(args.action, _look)(args)
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


def _look(args: argparse.Namespace) -> None:
    import torch

    from speechkit.data.audio import resample
    from speechkit.decoding.encoder_features import FrozenEncoder
    from speechkit.decoding.recognizer import Recognizer
    from speechkit.errors import InputError
    from speechkit.metrics.plots_frames import read_utterance
    from speechkit.metrics.plots_fusion import Clock, draw_look

    recognizer, encoder = Recognizer.load(args.model), FrozenEncoder(args.model)
    if not hasattr(recognizer.model, "look"):
        kind = recognizer.run.model.name
        raise InputError(
            f"{args.model}: a model of kind {kind} has neither a BERT beside speech nor a decoder to draw"
        )
    name, waveform = read_utterance(args.data, args.utterance)
    samples = waveform if encoder.rate == 16000 else resample(waveform, 16000, encoder.rate)
    with torch.no_grad():
        look = recognizer.model.look(recognizer.batch([samples], [name]).to(recognizer.device))
    clock = Clock(encoder.rate / encoder.shift, encoder.middle / encoder.rate)
    draw_look(waveform, look, clock, name, args.out)


def _context(args: argparse.Namespace) -> None:
    from speechkit.decoding.recognizer import Recognizer
    from speechkit.errors import InputError
    from speechkit.metrics.plots_av import draw_context
    from speechkit.metrics.plots_frames import read_utterance
    from speechkit.models.deep_fusion import context_maps

    recognizer = Recognizer.load(args.model)
    model = recognizer.model
    if getattr(model, "fusion", None) is None:
        raise InputError(f"{args.model}: this {recognizer.run.model.name} reads no AV-BERT")
    name, waveform = read_utterance(args.data, args.utterance)
    batch = recognizer.batch([waveform], [name]).to(recognizer.device)
    maps = {block: weights.numpy() for block, weights in context_maps(model, batch).items()}
    rate = model.fusion.rate
    seconds = model.fusion.av_bert.config.audio_patch / rate
    draw_context(waveform, maps, rate / model.encoder.stride, seconds, name, args.out)


def _clusters(args: argparse.Namespace) -> None:
    from speechkit.clustering.codebook import Codebook
    from speechkit.decoding.one_utterance import one_by_one
    from speechkit.errors import InputError
    from speechkit.metrics.plots_av import draw_mosaics
    from speechkit.models.av_pictures import mosaics
    from speechkit.train.checkpoint import load_model

    model, run, assets = load_model(args.model)
    if run.model.name != "av_bert" or assets.video is None:
        raise InputError(f"{args.model}: a model of kind {run.model.name}, which knows no clusters of video")
    batch = one_by_one(model, run, args.data)(args.utterance, args.seed)
    pictures = mosaics(model, batch, Codebook.load(args.codebook).centres, assets.video)
    draw_mosaics(pictures, batch.ids[0], args.out)
