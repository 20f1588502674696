"""Clips of a data directory to frames that numpy alone can read: what `speechkit video` does.

The directory made has the tables of the source for the utterances that were kept, video_frames.scp,
video.json (which frames), video_stats.json (colours), ledger.jsonl; with the sound of the clips also wav.scp.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path

from speechkit.data.formatting import STALE, judge, report
from speechkit.data.kaldi_dir import DataDir, check_output, read_data_dir, table_files, write_data_dir
from speechkit.data.ledger import Ledger
from speechkit.data.parallel import run_parallel
from speechkit.data.tables import table_key
from speechkit.data.video import need_video_library
from speechkit.data.video_shards import FORMAT, PIECE, Options, Outcome, ShardMaker, Work
from speechkit.errors import InputError
from speechkit.files import hash_json, write_json
from speechkit.frontends.colours import ColourSums
from speechkit.frontends.patches import config_hash
from speechkit.stamp import Stamp

FRAMES = "video_frames.scp"
COUNTS = "utt2num_video_frames"
RECORD, STATISTICS = "video.json", "video_stats.json"


def dump_video(
    source: str | Path, out: str | Path, options: Options, *, jobs: int = 1, force: bool = False
) -> Ledger | None:
    """Decodes the clips of a data directory; the same call again goes on where it was stopped.

    Args:
        source: a data directory with video.scp; and with wav.scp, unless the sound is taken from the clips.
        out: the directory to make; paths in its tables begin with `out` as given.
        options: how.
        jobs: processes.
        force: decode even what did not change.

    Returns:
        The ledger, or None when `out` was up to date.

    Raises:
        InputError: PyAV is missing, the directory is broken, or too much must be dropped; `out` then has no
            tables of frames.
    """
    source, out = Path(source), Path(out)
    need_video_library()
    check_output(out, [source])
    data = read_data_dir(source, need_audio=False)
    if not data.tables.get("video.scp"):
        raise InputError(
            f"{source / 'video.scp'}: no such file, or empty; it names a clip for each utterance"
        )
    if not options.audio and not data.wav:
        raise InputError(f"{source}: no wav.scp; --audio true takes the sound from the clips")
    jobs_due = _jobs(data, options)
    made = [out / name for name in ("wav.scp", "utt2spk", FRAMES, COUNTS, RECORD, STATISTICS, "ledger.jsonl")]
    settings = [asdict(options), hash_json([key for _, _, key in jobs_due])]
    stamp = Stamp(out / "video", "video", settings, [*table_files(source), *made], force)
    if stamp.fresh():
        return None
    maker = ShardMaker(out / "video", options)
    _prepare(maker, jobs_due, force)
    parts = list(run_parallel(maker, jobs_due, jobs))
    outcomes, colours = [outcome for part in parts for outcome in part.outcomes], ColourSums()
    for part in parts:
        colours.merge(part.colours)
    ledger = judge(outcomes, data, options, "video")
    write_data_dir(_with_video(data, outcomes, options), out)
    _write_records(out, outcomes, colours, options)
    ledger.write(out / "ledger.jsonl")
    stamp.write()
    frames = sum(outcome.frames for outcome in outcomes)
    size = f"{options.size} x {options.size}"
    report("video", outcomes, ledger, out, f", {frames} frames of {size} at {options.fps:g} a second")
    return ledger


def _jobs(data: DataDir, options: Options) -> list[tuple[int, list[Work], str]]:
    """Pieces of work, numbered, each with a hash of all that its result depends on."""
    works = [_work(data, utterance, options) for utterance in data.utterances]
    pieces = [works[at : at + PIECE] for at in range(0, len(works), PIECE)]
    what = {name: value for name, value in asdict(options).items() if name not in ("kind", "max_drop")}
    return [
        (number, piece, hash_json([FORMAT, what, [[asdict(work), *_identity(work)] for work in piece]]))
        for number, piece in enumerate(pieces)
    ]


def _work(data: DataDir, utterance: str, options: Options) -> Work:
    path = data.tables["video.scp"].get(utterance, "")
    if options.audio:
        return Work(utterance, path)
    if data.segments:
        return Work(utterance, path, data.segments[utterance].end - data.segments[utterance].start)
    if "utt2num_samples" in data.tables:
        return Work(utterance, path, int(data.tables["utt2num_samples"][utterance]) / options.rate)
    return Work(utterance, path, data.wav[utterance])


def _identity(work: Work) -> Iterable[int]:
    """Size and time of each file behind an utterance."""
    for path in (work.path, work.sound):
        if isinstance(path, str) and os.path.isfile(path):
            stat = os.stat(path)
            yield from (stat.st_size, stat.st_mtime_ns)


def _prepare(maker: ShardMaker, jobs_due: list[tuple[int, list[Work], str]], force: bool) -> None:
    """Takes away what is not of this work: forced records, pieces too many, leftovers of a killed run."""
    maker.folder.mkdir(parents=True, exist_ok=True)
    keys = {} if force else {number: key for number, _, key in jobs_due}
    for path in sorted(maker.folder.iterdir()):
        number = path.name.partition(".")[2].partition(".")[0]
        known = number.isdigit() and int(number) in keys and not path.name.endswith(".tmp")
        if not known or maker.found(int(number), keys[int(number)]) is None:
            # the table goes first: never rows whose archives are not those that they were written for
            (maker.folder.parent / FRAMES).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _with_video(data: DataDir, outcomes: list[Outcome], options: Options) -> DataDir:
    """The data set that was kept; dumped features are left behind, because their record is."""
    kept = {outcome.utterance: outcome for outcome in outcomes if outcome.entry}
    chosen = data.select(kept)
    stale = [name for name in STALE if options.audio or name != "utt2num_samples"]
    tables = {
        name: rows
        for name, rows in chosen.tables.items()
        if not any(fnmatchcase(name, old) for old in stale)
        and not (options.audio and table_key(name) == "recording")
    }
    tables[FRAMES] = {utterance: outcome.entry for utterance, outcome in kept.items()}
    tables[COUNTS] = {utterance: str(outcome.frames) for utterance, outcome in kept.items()}
    if not options.audio:
        return replace(chosen, tables=tables)
    tables["utt2num_samples"] = {utterance: str(outcome.samples) for utterance, outcome in kept.items()}
    wav = {utterance: outcome.audio for utterance, outcome in kept.items()}
    return replace(chosen, wav=wav, segments={}, tables=tables)


def _write_records(out: Path, outcomes: list[Outcome], colours: ColourSums, options: Options) -> None:
    config = asdict(options.config)
    what = {**config, "config": config, "config_hash": config_hash(options.config)}
    frames = sum(outcome.frames for outcome in outcomes)
    kept = sum(1 for outcome in outcomes if outcome.entry)
    write_json(out / RECORD, {**what, "utterances": kept, "frames": frames})
    write_json(out / STATISTICS, {**colours.statistics(), "frames": frames, **what})
