"""`speechkit kmeans train|apply|report`: frames to clusters, labels of data directories, their quality.

Frames are dumped features, features computed from audio, or patches of audio or video (name=audio_patches,
name=video_patches).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|apply|report")
    _train_options(actions.add_parser("train", help="find the centres", allow_abbrev=False))
    apply = actions.add_parser("apply", help="label data directories", allow_abbrev=False)
    apply.add_argument("--model", type=Path, required=True, help="folder made by speechkit kmeans train")
    apply.add_argument("--data", type=Path, nargs="+", required=True, help="directories that get km.txt")
    apply.add_argument("--name", help="write km_<name>.txt instead of km.txt")
    apply.add_argument("--device", default="cpu", help="such as cuda (%(default)s)")
    apply.add_argument("--jobs", type=int, help="processes (all cores)")
    apply.add_argument("--force", type=true_or_false, default=False, help="also when nothing changed")
    report = actions.add_parser("report", help="compare labels with phones", allow_abbrev=False)
    report.add_argument("--labels", type=Path, nargs="+", required=True, help="km.txt files, a row each")
    report.add_argument("--phones", type=Path, required=True, help="phones.txt: utterance phone phone ...")
    report.add_argument("--phone-rate", type=float, default=100.0, help="phones a second (%(default)s)")
    report.add_argument("--label-rate", type=float, help="labels a second, where no .json lies beside them")
    report.add_argument("--out", type=Path, help="JSON file for the numbers")
    report.add_argument("--picture", type=Path, help="PNG: one utterance's spectrogram, labels and phones")
    report.add_argument("--utterance", help="which one (the first)")


def _train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("--data", type=Path, nargs="+", required=True, help="data directories")
    train.add_argument("--out", type=Path, required=True, help="folder of the model")
    train.add_argument("--config", help="YAML of a frontend whose features are computed where not dumped")
    train.add_argument("--clusters", type=int, default=100, help="(default: %(default)s)")
    train.add_argument(
        "--max-frames",
        type=int,
        default=2_000_000,
        help="at most so many, of utterances drawn at random (%(default)s)",
    )
    train.add_argument(
        "--batch",
        type=int,
        default=0,
        metavar="FRAMES",
        help="read chunks of so many again and again instead of holding all in memory; one initialisation",
    )
    train.add_argument("--restarts", type=int, default=20, help="initialisations tried (%(default)s)")
    train.add_argument("--iterations", type=int, default=100, help="steps over all frames (%(default)s)")
    train.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    train.add_argument("--subspace", default="1/1", help="i/n: part i of n of the dimensions (%(default)s)")
    train.add_argument("--label-rate", type=float, help="frames a second of features without features.json")
    train.add_argument("--device", default="cpu", help="such as cuda (%(default)s)")
    train.add_argument("--jobs", type=int, help="processes that read (all cores)")
    train.add_argument("--force", type=true_or_false, default=False, help="also when nothing changed")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="of the frontend, such as name=mfcc")


def run(args: argparse.Namespace) -> None:
    """Runs the chosen action."""
    {"train": _train, "apply": _apply, "report": _report}[args.action](args)


def _train(args: argparse.Namespace) -> None:
    from speechkit.clustering.codebook import Codebook, Subspace
    from speechkit.clustering.frames import KINDS, Kind, open_source, read_kind
    from speechkit.clustering.kmeans import Config
    from speechkit.config import from_dict
    from speechkit.data.feature_dump import load_feature_config
    from speechkit.errors import UsageError
    from speechkit.stamp import Stamp

    names = ("clusters", "restarts", "iterations", "seed")
    config = from_dict(Config, {name: getattr(args, name) for name in names})
    subspace = Subspace.parse(args.subspace)
    if args.max_frames < args.clusters:
        raise UsageError(f"--max-frames {args.max_frames}: fewer than --clusters {args.clusters}")
    if args.config or args.overrides:
        kind = Kind.of(load_feature_config(args.config, args.overrides, KINDS))
    else:
        kind = read_kind(args.data[0], args.label_rate)
    sources = [open_source(folder, kind) for folder in args.data]
    options = [
        vars(config),
        args.subspace,
        args.max_frames,
        repr(kind),
        *([args.batch] if args.batch else []),
    ]
    stamp = Stamp(args.out, "kmeans", options, [path for s in sources for path in s.inputs], args.force)
    if stamp.fresh():
        return
    dim = sources[0].part(sources[0].utterances[0], 0, 1).shape[1]
    work = _fit_chunks if args.batch else _fit_sample
    fitted, frames, utterances = work(args, config, sources, subspace.columns(dim), options)
    facts = {
        "data": [str(folder) for folder in args.data],
        "utterances": utterances,
        "frames": frames,
        "inertia": fitted.inertia,
        "steps": len(fitted.history) - 1,
        "empty": fitted.empty,
        **vars(config),
    }
    Codebook(fitted.centres.numpy(), dim, subspace, kind, facts).save(args.out)
    stamp.write()
    empty = f"; {fitted.empty} clusters own no frame" if fitted.empty else ""
    print(
        f"speechkit kmeans: {args.out}: {args.clusters} clusters of {frames} frames from {utterances} "
        f"utterances, inertia {fitted.inertia:.4f} a frame after {facts['steps']} steps{empty}",
        file=sys.stderr,
    )


def _fit_sample(
    args: argparse.Namespace, config: Any, sources: list, columns: slice, options: list
) -> tuple[Any, int, int]:
    """Centres of a sample in memory, its frames and utterances."""
    import torch

    from speechkit.clustering.frames import sample_frames
    from speechkit.clustering.kmeans import fit
    from speechkit.data.parallel import cores
    from speechkit.decoding.recognizer import choose_device

    jobs = args.jobs or cores()
    frames, utterances = sample_frames(sources, args.max_frames, config.seed, columns, jobs)
    return fit(torch.from_numpy(frames).to(choose_device(args.device)), config), len(frames), utterances


def _fit_chunks(
    args: argparse.Namespace, config: Any, sources: list, columns: slice, options: list
) -> tuple[Any, int, int]:
    """The same for a sample that is read in chunks."""
    from speechkit.clustering.chunks import ChunkReader, draw_chunks
    from speechkit.clustering.streaming import Keeper, fit_chunks, training_key
    from speechkit.data.parallel import cores
    from speechkit.decoding.recognizer import choose_device

    chunks = draw_chunks(sources, args.max_frames, args.batch, config.seed)
    jobs = min(source.kind.processes(args.jobs or cores()) for source in sources)
    key = training_key([options, columns.start, columns.stop], [path for s in sources for path in s.inputs])
    keeper = Keeper(args.out.parent / f".{args.out.name}.partial", key)
    read = ChunkReader(sources, chunks, columns, jobs)
    fitted = fit_chunks(read, len(chunks), config, keeper, choose_device(args.device))
    spans = [span for chunk in chunks for span in chunk]
    return fitted, sum(span.count for span in spans), len(spans)


def _apply(args: argparse.Namespace) -> None:
    from speechkit.clustering.codebook import Codebook
    from speechkit.clustering.labels import label_directory, label_file
    from speechkit.data.parallel import cores
    from speechkit.decoding.recognizer import choose_device

    book, device = Codebook.load(args.model), choose_device(args.device)
    for folder in args.data:
        made = label_directory(
            book, folder, args.name, jobs=args.jobs or cores(), force=args.force, device=str(device)
        )
        if made is not None:
            table = folder / label_file(args.name, book.kind.of_video)
            print(
                f"speechkit kmeans: {table}: {made['frames']} labels of {made['utterances']} utterances at "
                f"{made['label_rate']:g} Hz, {made['used']} of {made['clusters']} clusters used, perplexity "
                f"{made['perplexity']:.1f}, inertia {made['inertia']:.4f}",
                file=sys.stderr,
            )


def _report(args: argparse.Namespace) -> None:
    from speechkit.clustering.labels import read_track
    from speechkit.clustering.quality import measure
    from speechkit.files import write_json

    phones = read_track(args.phones, args.phone_rate)
    sets = [read_track(path, args.label_rate) for path in args.labels]
    found = {str(labels.path): vars(measure(labels, phones)) for labels in sets}
    print(_table(found))
    if args.out:
        write_json(args.out, found)
    if args.picture:
        from speechkit.metrics.plots_frames import draw_label_strips

        draw_label_strips([*sets, phones], args.labels[0].parent, args.utterance, args.picture)


def _table(found: dict[str, dict]) -> str:
    """The numbers as Markdown, a row for each label set."""
    titles = {
        "phone_purity": "phone purity",
        "cluster_purity": "cluster purity",
        "pnmi": "PNMI",
        "nmi": "NMI",
        "phone_entropy": "H(phone)",
        "label_entropy": "H(label)",
        "phone_segment": "phone s",
        "label_segment": "label s",
        "labels": "labels",
        "frames": "frames",
        "difference": "not compared",
    }
    lines = [f"| labels | {' | '.join(titles.values())} |", "|---" * (1 + len(titles)) + "|"]
    for name, values in found.items():
        cells = [f"{values[t]:.4f}" if isinstance(values[t], float) else str(values[t]) for t in titles]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
