"""`speechkit kmeans train|apply|report`: frames to clusters, labels of data directories, their quality."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|apply|report")
    _train_options(actions.add_parser("train", help="find the centres", allow_abbrev=False))
    apply = actions.add_parser("apply", help="label data directories", allow_abbrev=False)
    apply.add_argument("--model", type=Path, required=True, help="folder made by speechkit kmeans train")
    apply.add_argument("--data", type=Path, nargs="+", required=True, help="directories that get km.txt")
    apply.add_argument("--name", help="write km_<name>.txt instead of km.txt")
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
    from speechkit.clustering.frames import Kind, open_source, read_kind, sample_frames
    from speechkit.clustering.kmeans import Config, fit
    from speechkit.config import from_dict
    from speechkit.data.feature_dump import load_feature_config
    from speechkit.data.parallel import cores
    from speechkit.errors import UsageError
    from speechkit.stamp import Stamp

    names = ("clusters", "restarts", "iterations", "seed")
    config = from_dict(Config, {name: getattr(args, name) for name in names})
    subspace = Subspace.parse(args.subspace)
    if args.max_frames < args.clusters:
        raise UsageError(f"--max-frames {args.max_frames}: fewer than --clusters {args.clusters}")
    if args.config or args.overrides:
        kind = Kind.of(load_feature_config(args.config, args.overrides))
    else:
        kind = read_kind(args.data[0], args.label_rate)
    sources = [open_source(folder, kind) for folder in args.data]
    options = [vars(config), args.subspace, args.max_frames, repr(kind)]
    stamp = Stamp(args.out, "kmeans", options, [path for s in sources for path in s.inputs], args.force)
    if stamp.fresh():
        return
    jobs = args.jobs or cores()
    dim = sources[0].read(sources[0].utterances[0]).shape[1]
    columns = subspace.columns(dim)
    frames, utterances = sample_frames(sources, args.max_frames, config.seed, columns, jobs)
    import torch

    from speechkit.decoding.recognizer import choose_device

    fitted = fit(torch.from_numpy(frames).to(choose_device(args.device)), config)
    facts = {
        "data": [str(folder) for folder in args.data],
        "utterances": utterances,
        "frames": len(frames),
        "inertia": fitted.inertia,
        "steps": len(fitted.history) - 1,
        "empty": fitted.empty,
        **vars(config),
    }
    Codebook(fitted.centres.numpy(), dim, subspace, kind, facts).save(args.out)
    stamp.write()
    empty = f"; {fitted.empty} clusters own no frame" if fitted.empty else ""
    print(
        f"speechkit kmeans: {args.out}: {args.clusters} clusters of {len(frames)} frames from {utterances} "
        f"utterances, inertia {fitted.inertia:.4f} a frame after {facts['steps']} steps{empty}",
        file=sys.stderr,
    )


def _apply(args: argparse.Namespace) -> None:
    from speechkit.clustering.codebook import Codebook
    from speechkit.clustering.labels import label_directory, label_file
    from speechkit.data.parallel import cores

    book = Codebook.load(args.model)
    for folder in args.data:
        made = label_directory(book, folder, args.name, jobs=args.jobs or cores(), force=args.force)
        if made is not None:
            print(
                f"speechkit kmeans: {folder / label_file(args.name)}: {made['frames']} labels of "
                f"{made['utterances']} utterances at {made['label_rate']:g} Hz, {made['used']} of "
                f"{made['clusters']} clusters used, perplexity {made['perplexity']:.1f}, inertia "
                f"{made['inertia']:.4f}",
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
