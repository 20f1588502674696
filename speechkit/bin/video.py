"""`speechkit video`: clips to frames at a few a second, as arrays that need no video library."""

from __future__ import annotations

import argparse

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--data", required=True, help="data directory with video.scp")
    parser.add_argument("--out", required=True, help="directory to make, such as dump/train")
    parser.add_argument("--fps", type=float, default=6.0, help="frames a second (6)")
    parser.add_argument(
        "--size", type=int, default=256, help="pixels: of the short side, and of the square kept (256)"
    )
    parser.add_argument(
        "--audio", type=true_or_false, default=False, help="take the sound from the clips: makes wav.scp"
    )
    parser.add_argument("--rate", type=int, default=16000, help="Hz of the sound (16000)")
    parser.add_argument(
        "--kind", choices=("train", "evaluation"), default="train", help="evaluation sets lose nothing"
    )
    parser.add_argument("--min-frames", type=int, default=3, help="clips with fewer are dropped (3)")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="longer clips are dropped (30)")
    parser.add_argument(
        "--max-difference", type=float, default=1.0, help="seconds between the ends of video and sound (1)"
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.005, help="largest share that may be dropped (0.005)"
    )
    parser.add_argument("--jobs", type=int, help="processes (all cores)")
    parser.add_argument("--force", type=true_or_false, default=False, help="work even when nothing changed")


def run(args: argparse.Namespace) -> int:
    """Decodes the clips of one data directory."""
    from dataclasses import fields

    from speechkit.data.parallel import cores
    from speechkit.data.video_dump import dump_video
    from speechkit.data.video_shards import Options

    try:
        options = Options(**{option.name: getattr(args, option.name) for option in fields(Options)})
    except ValueError as error:
        raise UsageError(str(error)) from None
    dump_video(args.data, args.out, options, jobs=args.jobs or cores(), force=args.force)
    return 0
