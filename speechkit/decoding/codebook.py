"""The codewords that a pre-trained model's quantizer chooses for the frames of a data directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from speechkit.clustering.frames import refuse
from speechkit.data.audio import read_audio
from speechkit.data.kaldi_dir import DataDir, read_data_dir
from speechkit.data.segmentations import Segmentation
from speechkit.decoding.encoder_features import FrozenEncoder
from speechkit.encoders import EncoderOutput
from speechkit.errors import BadSample, InputError
from speechkit.metrics.phone_codes import PhoneCodes, phones_of_frames

CHUNK_SECONDS = 100.0
"""Longer audio goes through the encoder in chunks."""


class Coder:
    """The quantizer of a checkpoint in evaluation: from waveforms to codewords, by arg-max.

    Args:
        checkpoint: a checkpoint or experiment folder of any model with a `quantizer`.
        device: where to compute.

    Attributes:
        encoder: gives the local features that are quantized; its blocks are left out.
        source: makes of them what the quantizer reads.
        groups: G.
        entries: V.

    Raises:
        InputError: no such checkpoint, or a model without a quantizer.
    """

    def __init__(self, checkpoint: str | Path, device: str = "cpu") -> None:
        self.encoder = FrozenEncoder(checkpoint, device, layer=0)
        model = self.encoder.model
        self.quantizer = getattr(model, "quantizer", None)
        if self.quantizer is None:
            raise InputError(
                f"{checkpoint}: a model of kind {self.encoder.run.model.name} without a quantizer; give a "
                "checkpoint of pre-training with codewords (wav2vec2 with targets=gumbel, or unispeech)"
            )
        self.encoder.encoder.keep_local = True
        self.source = model.source
        self.groups, self.entries = self.quantizer.groups, self.quantizer.entries

    @torch.inference_mode()
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """The chosen entries `(T, G)` int64 for `(S,)` samples; T may be 0."""
        encoder = self.encoder
        pieces = encoder.pieces(encoder.inputs(waveform), CHUNK_SECONDS)
        if not pieces:
            return np.zeros((0, self.groups), np.int64)
        local = torch.cat([encoder([piece]).local for piece in pieces], dim=1)
        lengths = torch.tensor([local.size(1)], device=local.device)
        every = torch.ones(1, local.size(1), dtype=torch.bool)
        frames = self.source(EncoderOutput(local, lengths, local=local), every, training=False)
        # the temperature belongs to the gradient alone
        return self.quantizer(frames, 1.0).codes.cpu().numpy()

    def words(self, codes: np.ndarray) -> np.ndarray:
        """One number for each codeword: `(T, G)` int64 to `(T,)`."""
        return self.quantizer.words(torch.from_numpy(codes)).numpy()


def open_data(folder: str | Path) -> DataDir:
    """A data directory whose every utterance is a file of its own; InputError for any other."""
    data = read_data_dir(folder, labels=False)
    if "utt2num_samples" not in data.tables or data.segments or not data.utterances:
        raise InputError(f"{folder}: empty or not made by speechkit format; run that first")
    return data


def count_phones(coder: Coder, data: DataDir, segmentation: Segmentation) -> PhoneCodes:
    """Goes through a data directory, one utterance at a time, and counts phones and codewords.

    Args:
        coder: the quantizer.
        data: of `open_data`.
        segmentation: of its utterances.

    Raises:
        InputError: a segmentation that is damaged or of other audio, found before anything is computed; audio
            that cannot be read.
    """
    encoder = coder.encoder
    for name in data.utterances:
        seconds = int(data.tables["utt2num_samples"][name]) / encoder.rate
        segmentation.of(name).within(name, seconds)
    found = PhoneCodes()
    for name, waveform in _waveforms(data, encoder.rate):
        codes, segments = coder(waveform), segmentation.of(name)
        starts, ends = (np.rint(times * encoder.rate) for times in (segments.starts, segments.ends))
        first = encoder.middle - encoder.window / 2
        geometry = (first, encoder.shift, encoder.window, len(codes))
        found.add(phones_of_frames(starts, ends, segments.phones, *geometry), coder.words(codes))
    return found


def _waveforms(data: DataDir, rate: int) -> Iterator[tuple[str, np.ndarray]]:
    problems = []
    for name in data.utterances:
        try:
            yield name, read_audio(data.wav[name], rate=rate, fixed_rate=True, utterance=name)
        except BadSample as error:
            problems.append(error)
    refuse(str(data.path), problems)
