#!/usr/bin/env python3
"""Stage 0: writes the mini_av corpus: clips of scenes with their sound, and mini_en's speech in such noise.

    local/corpus.py --speech ../../mini_en/asr1/downloads/mini_en --out downloads/mini_av --jobs 2

Makes <out>/clips_{train,dev,test}/video/*.mkv (12 pictures of 64 x 64 a second, 16 kHz sound) and
<out>/{train,dev,test_10db,test_0db,test_clean}/audio/*.flac, with a scenes.jsonl each: what is where.
The same seed gives the same bytes for any number of jobs (same versions of PyAV, libsndfile, numpy).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from plan import CLEAN, CLIP_SECONDS, CLIPS, NOISY, check_apart, plan_clips, plan_noisy
from scenes import FPS, RATE, SIZE, draw_scene, film, sound

SIBLING = Path(__file__).resolve().parents[3] / "mini_en/asr1/local"
sys.path.insert(0, str(SIBLING))

from spoken_sets import read_rows  # noqa: E402

from speechkit.bin.__main__ import true_or_false  # noqa: E402
from speechkit.data.parallel import run_parallel  # noqa: E402
from speechkit.data.video import need_video_library  # noqa: E402
from speechkit.errors import InputError  # noqa: E402
from speechkit.files import atomic_folder, write_json, write_jsonl  # noqa: E402
from speechkit.stamp import Stamp  # noqa: E402

VOICES = 6  # that talk at once in a crowd
SIZES = {"clips_train": 1200, "clips_dev": 60, "clips_test": 200}


def read_speech(path: Path) -> np.ndarray:
    """`(S,)` float32 at 16 kHz."""
    samples, _ = soundfile.read(path, dtype="float32")
    return samples


def crowd(speech: Path, rows: list[dict]) -> np.ndarray:
    """Several utterances of a set at once and over and over, `(N,)` float32: 10 s."""
    tracks = [read_speech(speech / row["path"]) for row in rows[:: max(1, len(rows) // VOICES)][:VOICES]]
    return np.sum([np.resize(track / _rms(track), 10 * RATE) for track in tracks], axis=0)


def mix(row: dict, speech: Path, samples: int | None, voices: np.ndarray) -> np.ndarray:
    """Speech in the sound of a scene.

    Args:
        row: of `plan_clips` or `plan_noisy`.
        speech: the corpus mini_en.
        samples: how long; None for as long as the speech.
        voices: see `crowd`.

    Returns:
        `(samples,)` float32 within [-1, 1].
    """
    said = read_speech(speech / row["speech"]) if row["speech"] else np.zeros(0, np.float32)
    length = samples or len(said)
    heard = sound(draw_scene(row["scene"], row["scene_seed"]), length, voices, row["start"])
    if len(said):
        first = int(row["at"] * RATE)
        part = said[: length - first] * (10 ** (row["snr_db"] / 20) / _rms(said))
        heard[first : first + len(part)] += part
    heard *= 10 ** (row["level_db"] / 20) / _rms(heard)
    return (heard * min(1.0, 0.99 / np.abs(heard).max())).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    return max(1e-9, float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def _as_integers(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples * 32767).astype(np.int16)


def write_clip(path: Path, pictures: np.ndarray, samples: np.ndarray) -> None:
    """Writes `(N, H, W, 3)` uint8 and `(S,)` float32 as a Matroska file without loss."""
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as out:
        video = out.add_stream("ffv1", rate=FPS)
        video.height, video.width, video.pix_fmt = SIZE, SIZE, "bgr0"
        video.codec_context.thread_count = 1
        audio = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(_as_integers(samples)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))


def make(row: dict, out: Path, speech: Path, voices: np.ndarray | None) -> int:
    """Writes one file; returns its length in samples."""
    path, name = out / row["path"], row["path"].partition("/")[0]
    if name in CLIPS:
        samples = mix(row, speech, round(CLIP_SECONDS * RATE), voices)
        pictures = film(draw_scene(row["scene"], row["scene_seed"]), CLIP_SECONDS, row["start"])
        write_clip(path, pictures, samples)
    else:
        samples = mix(row, speech, None, voices) if name in NOISY else read_speech(speech / row["speech"])
        soundfile.write(path, _as_integers(samples), RATE, format="FLAC", subtype="PCM_16")
    return len(samples)


def plan_corpus(speech: Path, sizes: dict[str, int], seed: int) -> dict[str, list[dict]]:
    """Set -> a row for each clip or utterance."""
    said = {
        name: read_rows(speech / name / "sentences.jsonl")
        for name in ("unlabelled", "train", "dev", "test", "hard")
    }
    sets = {name: plan_clips(name, said[source], sizes[name], seed) for name, source in CLIPS.items()}
    sets |= {name: plan_noisy(name, said[source], seed) for name, (source, _) in NOISY.items()}
    check_apart(sets)
    for name, source in CLEAN.items():
        sets[name] = [_clean(row, name) for row in said[source] if row["condition"]["name"] == "clean"]
    return sets


def _clean(row: dict, name: str) -> dict:
    utterance = f"{row['speaker']}-{name}-{row['utterance'].rpartition('-')[2]}"
    told = {"utterance": utterance, "speaker": row["speaker"], "text": row["text"], "scene": "none"}
    return {**told, "speech": row["path"], "path": f"{name}/audio/{utterance}.flac"}


def write_corpus(out: Path, speech: Path, sizes: dict[str, int], seed: int, jobs: int) -> dict[str, float]:
    """Writes everything below `out`; returns set -> seconds of sound."""
    sets, seconds = plan_corpus(speech, sizes, seed), {}
    sources = CLIPS | {name: source for name, (source, _) in NOISY.items()}
    voices = {name: crowd(speech, read_rows(speech / at / "sentences.jsonl")) for name, at in sources.items()}
    for name, rows in sets.items():
        (out / rows[0]["path"]).parent.mkdir(parents=True)
        work = partial(make, out=out, speech=speech, voices=voices.get(name))
        lengths = list(run_parallel(work, rows, jobs))
        write_jsonl(out / name / "scenes.jsonl", [row | {"samples": n} for row, n in zip(rows, lengths)])
        seconds[name] = sum(lengths) / RATE
    write_json(out / "corpus.json", {"seed": seed, "sizes": sizes, "seconds": seconds})
    return seconds


def main(argv: list[str] | None = None) -> None:
    """Makes the corpus unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--speech", type=Path, required=True, help="downloads/mini_en of mini_en/asr1")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, made or replaced as a whole"
    )
    for name, size in SIZES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=size, help=f"clips in {name} (default {size})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; no part of the result")
    parser.add_argument("--force", type=true_or_false, default=False, help="true: make it again")
    args = parser.parse_args(argv)
    sizes = {name: getattr(args, name) for name in SIZES}
    for name, size in {**sizes, "jobs": args.jobs}.items():
        if size < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {size}")
    sources = [*sorted(Path(__file__).parent.glob("*.py")), *sorted(args.speech.glob("*/sentences.jsonl"))]
    stamp = Stamp(args.out, "corpus", [args.seed, sizes, str(args.speech)], sources, args.force)
    if stamp.fresh():
        return
    need_video_library()
    start = time.monotonic()
    with atomic_folder(args.out) as out:
        seconds = write_corpus(out, args.speech, sizes, args.seed, args.jobs)
    stamp.write()
    told = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
    print(f"corpus: {args.out}: minutes: {told}; {time.monotonic() - start:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/corpus.py: error: {error}")
