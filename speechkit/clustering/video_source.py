"""Patches of the video of a data directory, utterance by utterance, of the frames `speechkit video` kept."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from speechkit.config import load_kind
from speechkit.data.array_records import read_record
from speechkit.data.kaldi_dir import DataDir
from speechkit.errors import BadSample, InputError
from speechkit.files import read_json
from speechkit.frontends import VIDEO
from speechkit.frontends.patches import FrameConfig, config_hash

if TYPE_CHECKING:
    from speechkit.clustering.frames import Kind


class VideoSource:
    """The video tokens of one data directory; picklable. Methods as of `FrameSource`.

    Args:
        data: the directory.
        kind: the patches wanted.

    Raises:
        InputError: there are no frames, or not such ones.
    """

    def __init__(self, data: DataDir, kind: Kind) -> None:
        self.path, self.kind, self.utterances = data.path, kind, data.utterances
        names = ("video_frames.scp", "utt2num_video_frames", "video.json")
        self.inputs = [data.path / name for name in names]
        if any(name not in data.tables for name in names[:2]) or not self.inputs[2].is_file():
            raise InputError(f"{data.path}: no frames of video; run speechkit video and name its --out here")
        self.entries, self.counts = (data.tables[name] for name in names[:2])
        wanted = config_hash(FrameConfig(kind.config.fps, kind.config.size))
        found = read_json(self.inputs[2]).get("config_hash")
        if found != wanted:
            raise InputError(
                f"{self.inputs[2]}: other frames (configuration {found}) than {kind.config.fps:g} a second "
                f"of {kind.config.size} x {kind.config.size} ({wanted}); run speechkit video with these"
            )

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "extractor"}

    @cached_property
    def extractor(self) -> Any:
        """Frames to patches; every process makes its own."""
        return load_kind(VIDEO, self.kind.config.name).build(self.kind.config)

    def frames(self, utterance: str) -> int:
        """How many tokens an utterance has."""
        return self.extractor.frames(int(self.counts[utterance]))

    def read(self, utterance: str) -> np.ndarray:
        """`(N, F)` float32 tokens of an utterance; raises BadSample when unreadable or shorter than one."""
        return self.part(utterance, 0, self.frames(utterance))

    def part(self, utterance: str, start: int, count: int) -> np.ndarray:
        """Some of the tokens; only their frames are read. Raises BadSample as `read`."""
        tubelet, size = self.kind.config.tubelet, self.kind.config.size
        first, last = start // self.extractor.slice, -(-(start + count) // self.extractor.slice)
        try:
            frames = read_record(self.entries[utterance], first * tubelet, (last - first) * tubelet)
        except InputError as error:
            raise BadSample(utterance, "unreadable frames of video", str(error)) from None
        if frames.dtype != np.uint8 or frames.shape[1:] != (size, size, 3) or len(frames) < tubelet:
            raise BadSample(
                utterance, "no video token", f"{frames.dtype} {frames.shape}, {tubelet} frames are needed"
            )
        tokens = self.extractor(frames)
        skipped = start - first * self.extractor.slice
        return tokens[skipped : skipped + count]
