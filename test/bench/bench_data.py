"""Hours of audio per minute on one core: format, features, batches; beside lhotse and a plain loop.

    python test/bench/bench_data.py [--hours 0.2] [--seconds 6]

Synthesised speech-like audio at 8 kHz (16-bit WAV), so that formatting decodes, resamples and encodes.
Every row starts from what the row above it left on the disk.
"""

# ruff: noqa: E402 (thread counts must be set before numpy and torch are imported)

from __future__ import annotations

import argparse
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from factories import make_data_dir

from speechkit.data.audio import read_audio
from speechkit.data.batch import pad
from speechkit.data.feature_dump import Options as FeatureOptions
from speechkit.data.feature_dump import dump_features, load_feature_config
from speechkit.data.formatting import Options, format_data_dir
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.frontends import fbank

BATCH = 16


def timed(work: Callable[[], object]) -> float:
    """Seconds of processor time, which other programs on the machine do not lengthen."""
    start = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.process_time() - start


def in_batches(wav: dict[str, str], extract: Callable[[str], np.ndarray]) -> None:
    """Features of every utterance, padded in batches."""
    ids = sorted(wav)
    for at in range(0, len(ids), BATCH):
        pad([torch.from_numpy(extract(wav[utterance])) for utterance in ids[at : at + BATCH]])


def plain_extract(path: str) -> np.ndarray:
    """soundfile and kaldi-native-fbank as their manuals show them."""
    import kaldi_native_fbank
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32")
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither, options.mel_opts.num_bins = 0.0, 80
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(rate, samples * 32768)
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def plain_format(wav: dict[str, str], folder: Path) -> None:
    """soundfile and soxr with nothing checked."""
    import soundfile
    import soxr

    folder.mkdir()
    for utterance, path in wav.items():
        samples, rate = soundfile.read(path, dtype="float32")
        soundfile.write(
            folder / f"{utterance}.flac", soxr.resample(samples, rate, 16000), 16000, subtype="PCM_16"
        )


def lhotse_format(wav: dict[str, str], folder: Path) -> None:
    """lhotse: lazy resampling, saved as FLAC."""
    from lhotse import CutSet, Recording

    folder.mkdir()
    cuts = CutSet.from_cuts(
        Recording.from_file(p, recording_id=u).resample(16000).to_cut() for u, p in wav.items()
    )
    cuts.save_audios(folder, format="flac")


def lhotse_batches(wav: dict[str, str]) -> None:
    """lhotse: cuts, its own fbank (80 bins, torch), padded batches."""
    from lhotse import CutSet, Fbank, FbankConfig, Recording
    from lhotse.dataset.collation import collate_matrices

    extractor = Fbank(FbankConfig(sampling_rate=16000, num_mel_bins=80))
    cuts = CutSet.from_cuts(Recording.from_file(path, recording_id=u).to_cut() for u, path in wav.items())
    batch: list = []
    for cut in cuts:
        batch.append(torch.from_numpy(cut.compute_features(extractor)))
        if len(batch) == BATCH:
            collate_matrices(batch)
            batch = []
    if batch:
        collate_matrices(batch)


def rows(folder: Path) -> dict[str, float]:
    """Name of a measurement -> processor seconds."""
    out, config = folder / "dump/x", load_feature_config()
    source = read_data_dir(folder / "data/x").wav
    table = {"speechkit format": timed(lambda: format_data_dir(folder / "data/x", out, Options()))}
    wav = read_data_dir(out).wav
    extractor = fbank.build(fbank.Config())
    table["speechkit fbank on the fly + batches"] = timed(
        lambda: in_batches(wav, lambda path: extractor(read_audio(path)))
    )
    table["speechkit features --cmvn true"] = timed(
        lambda: dump_features(out, config, FeatureOptions(cmvn=True))
    )
    table["speechkit format + fbank + batches"] = sum(list(table.values())[:2])
    table["plain soundfile + soxr format"] = timed(lambda: plain_format(source, folder / "plain"))
    table["plain soundfile + kaldi-native-fbank + batches"] = timed(lambda: in_batches(wav, plain_extract))
    try:
        import lhotse  # noqa: F401
    except ImportError:
        return table
    table["lhotse resample and save as FLAC"] = timed(lambda: lhotse_format(source, folder / "lhotse"))
    table["lhotse Fbank + batches"] = timed(lambda: lhotse_batches(wav))
    table["lhotse format + fbank + batches"] = sum(list(table.values())[-2:])
    return table


def main() -> None:
    """Makes the audio, runs every row once and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=0.2, help="of synthesised audio (0.2)")
    parser.add_argument("--seconds", type=float, default=6.0, help="an utterance (6)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), max(round(args.hours * 3600 / args.seconds), 1)
        make_data_dir(folder / "data/x", utterances=count, speakers=4, seconds=args.seconds, rate=8000)
        hours = count * args.seconds / 3600
        print(f"{count} utterances of {args.seconds} s, {hours:.3f} hours, one core")
        print(f"{'':<50}{'seconds':>10}{'hours of audio / minute':>26}")
        for row, seconds in rows(folder).items():
            print(f"{row:<50}{seconds:>10.2f}{hours / seconds * 60:>26.1f}")


if __name__ == "__main__":
    main()
