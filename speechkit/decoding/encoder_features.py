"""Features that a trained encoder makes: the output of one of its blocks, frozen.

They are computed without dropout and without masks, from whatever the checkpoint's encoder reads: samples, or
features of its own kind, normalised by its own statistics. Long audio is cut into chunks of encoder frames
that are computed apart; there are as many frames as if it were not.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from speechkit.config import check_range, load_config, load_kind, to_dict
from speechkit.data.batch import pad
from speechkit.decoding.recognizer import choose_device
from speechkit.encoders import EncoderOutput
from speechkit.errors import InputError
from speechkit.files import hash_json
from speechkit.frontends import FEATURES
from speechkit.frontends.waveform_conv import normalise_waveform
from speechkit.train.checkpoint import find_checkpoint, load_model, load_weights

# Seconds of audio encoded at once: a CPU gains nothing from more, a GPU needs much to be busy.
BATCH_SECONDS = {"cpu": 20.0}
GPU_BATCH_SECONDS = 300.0


@dataclass
class Config:
    """Which encoder, and which of its blocks."""

    checkpoint: str
    """A checkpoint folder, or an experiment folder, which stands for its final/."""
    name: str = "encoder"
    """the kind of features"""
    layer: int | Literal["last"] = "last"
    """Output of this block, from 1, without the final norm; 0 is the first block's input; "last" is the
    encoder's output, norm included."""
    chunk_seconds: float = 100.0
    """Longer audio is encoded in chunks of at most so many seconds."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 (autocast) is faster where the hardware has it, and moves some frames to other clusters."""
    device: str = "cpu"
    """Where to compute; not part of what the features are."""
    weights: str | None = None
    """Hash of the checkpoint's weights and configuration; filled in when null."""

    def __post_init__(self) -> None:
        if self.layer != "last":
            check_range("layer", self.layer, 0)
        check_range("chunk_seconds", self.chunk_seconds, 1)
        if self.weights is None:
            self.weights = hash_model(self.checkpoint)


def hash_model(folder: str | Path) -> str:
    """Hash of all that the features of a checkpoint depend on; raises InputError when there is none.

    That is the encoder, what normalises its input, and the features it reads; heads do not count.
    """
    from speechkit.train.run import RunConfig

    folder = find_checkpoint(Path(folder))
    run = load_config(RunConfig, folder / "config.yaml")
    averaged = folder / "ema.safetensors"
    weights = load_weights(averaged if averaged.exists() else folder / "model.safetensors")
    digest = hashlib.sha256(hash_json([to_dict(run)["model"].get("encoder"), to_dict(run.features)]).encode())
    for name in sorted(weights):  # the file itself holds them, and its header, in any order
        if name.startswith(("encoder.", "cmvn.")):
            digest.update(f"{name} {weights[name].dtype} {tuple(weights[name].shape)} ".encode())
            digest.update(weights[name].flatten().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class FrozenEncoder:
    """The encoder of a checkpoint in evaluation, from waveforms to the states of all its blocks.

    Args:
        checkpoint: folder.
        device: where to compute.
        layer: blocks after this one are left out; "last" keeps all.
        precision: "fp32" or "bf16".

    Attributes:
        rate: Hz.
        window: samples that one frame is made from, before attention.
        shift: samples between frames.
        middle: samples from the beginning of the audio to the middle of the first frame.
        blocks: how many the encoder has.
        dims: dimension of the first block's input and of each block's output.
        run: the configuration that the checkpoint was trained with.
        model: what the encoder is part of.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        layer: int | Literal["last"] = "last",
        precision: str = "fp32",
    ) -> None:
        self.device, self.bf16 = choose_device(device), precision == "bf16"
        model, self.run, _ = load_model(find_checkpoint(Path(checkpoint)), self.device)
        self.model = model
        if not hasattr(model, "encoder"):
            raise InputError(f"{checkpoint}: a model of kind {self.run.model.name} has no encoder")
        self.encoder = model.encoder.requires_grad_(False)
        self.encoder.keep_hidden_states, self.encoder.keep_local = True, False
        self.normalize = getattr(self.encoder, "normalize", "none")
        self.encoder.normalize = "none"  # `inputs` does it: statistics are the utterance's, not a chunk's
        if hasattr(self.encoder, "feature_extractor"):
            self.encoder.feature_extractor.pad_mask = "conv"  # frames of an utterance, not of its batch
        self.cmvn = getattr(model, "cmvn", nn.Identity())
        self.front = load_kind(FEATURES, self.run.features.name).build(self.run.features)
        self.rate = self.front.rate
        self.inner_window, self.stride = _geometry(self.encoder)
        unit, self.window, self.middle = 1, self.inner_window, self.inner_window / 2
        if self.encoder.takes == "features":
            unit, before = self.front.shift, (self.inner_window - 1) * self.front.shift
            self.window, self.middle = self.front.window + before, self.front.middle + before / 2
        self.shift = self.stride * unit
        states = self(self.inputs(np.zeros(self.window, np.float32))[None]).hidden_states
        self.blocks, self.dims = len(states) - 1, [state.shape[-1] for state in states]
        if layer != "last":
            self._cut(checkpoint, layer)

    def _cut(self, checkpoint: str | Path, layer: int) -> None:
        """Takes away the blocks that nobody will look at."""
        if layer > self.blocks:
            raise InputError(f"layer={layer}: the encoder of {checkpoint} has {self.blocks} blocks")
        stack = getattr(self.encoder, "blocks", None)
        if stack is None:
            stack = getattr(getattr(self.encoder, "encoder", None), "layers", None)
        if stack is not None:
            del stack[layer:]

    def inputs(self, waveform: np.ndarray) -> Tensor:
        """What the encoder reads of an utterance: `(S,)` samples, normalised if that is the encoder's way, or
        `(T, F)` features not yet normalised."""
        waveform = np.asarray(waveform, dtype=np.float32)
        if self.encoder.takes == "features":
            return torch.from_numpy(self.front(waveform))
        row = torch.from_numpy(waveform)[None]
        return normalise_waveform(row, torch.tensor([row.size(1)]), self.normalize)[0]

    def frames(self, samples: int) -> int:
        """How many frames come out of so many samples."""
        units = samples if self.encoder.takes == "speech" else self.front.frames(samples)
        return int(self.encoder.output_lengths(torch.tensor([units])))

    @torch.inference_mode()
    def __call__(self, inputs: Sequence[Tensor]) -> EncoderOutput:
        """Encodes utterances, as `inputs` makes them, in one batch."""
        if any(part.training for part in self.encoder.modules()):
            raise RuntimeError("the encoder is in training mode: its features would be random")
        padded = pad(list(inputs)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.encoder(self.cmvn(padded.values), padded.lengths)

    def pieces(self, inputs: Tensor, chunk_seconds: float) -> list[Tensor]:
        """Cuts an utterance into chunks of about as many frames each, which together have all its frames."""
        total = int(self.encoder.output_lengths(torch.tensor([len(inputs)])))
        most = max(1, int(chunk_seconds * self.rate - self.window) // self.shift + 1)
        if total <= most:
            return [inputs] if total else []
        bounds = np.linspace(0, total, -(-total // most) + 1).astype(int).tolist()
        starts = [start * self.stride for start in bounds[:-1]]
        ends = [end * self.stride + self.inner_window - self.stride for end in bounds[1:-1]]
        return [inputs[start:end] for start, end in zip(starts, [*ends, len(inputs)])]


def _geometry(encoder: nn.Module) -> tuple[int, int]:
    """Input units that the first frame needs, and those between frames, as its lengths say."""
    lengths = encoder.output_lengths(torch.arange(1 << 16))
    first, second = (int((lengths >= n).nonzero()[0]) for n in (1, 2))
    return first, second - first


class Extractor:
    """One block's outputs as features, with the interface of every frontend.

    Args:
        config: see `Config`.

    Raises:
        InputError: no such checkpoint or block, or another model than the features were first made with.
    """

    def __init__(self, config: Config) -> None:
        found = hash_model(config.checkpoint)
        if found != config.weights:
            raise InputError(
                f"{config.checkpoint}: holds another model ({found}) than these features were made with "
                f"({config.weights}); name the right checkpoint, or leave `weights` out to make them again"
            )
        self.config = config
        self.encoder = FrozenEncoder(config.checkpoint, config.device, config.layer, config.precision)
        self.rate, self.window, self.shift = self.encoder.rate, self.encoder.window, self.encoder.shift
        self.middle, self.frames = self.encoder.middle, self.encoder.frames
        self.dim = (
            self.encoder.encoder.output_dim if config.layer == "last" else self.encoder.dims[config.layer]
        )
        seconds = BATCH_SECONDS.get(self.encoder.device.type, GPU_BATCH_SECONDS)
        self._budget = seconds * self.rate / self.shift

    def __reduce__(self) -> tuple[Any, ...]:
        return build, (self.config,)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Features of one utterance: `(S,)` samples in [-1, 1] to `(T, D)` float32, T = `frames(S)`."""
        return self.many([waveform])[0]

    def many(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Features of utterances, of like lengths together; the same as one by one.

        Args:
            waveforms: `(S_i,)` each, in [-1, 1] at `rate`.
        """
        chunks = [
            (index, chunk)
            for index, waveform in enumerate(waveforms)
            for chunk in self.encoder.pieces(self.encoder.inputs(waveform), self.config.chunk_seconds)
        ]
        made: list[np.ndarray | None] = [None] * len(chunks)
        for batch in self._batches([len(chunk) / self.encoder.stride for _, chunk in chunks]):
            for place, frames in zip(batch, self._encode([chunks[place][1] for place in batch])):
                made[place] = frames
        parts: list[list[np.ndarray]] = [[] for _ in waveforms]
        for (index, _), frames in zip(chunks, made):
            parts[index].append(frames)
        return [np.concatenate(part) if part else np.zeros((0, self.dim), np.float32) for part in parts]

    def _batches(self, sizes: Sequence[float]) -> list[list[int]]:
        """Places of chunks, sorted by size and filled up to the budget, padding included."""
        batches: list[list[int]] = []
        for place in np.argsort(sizes, kind="stable").tolist():
            if not batches or (len(batches[-1]) + 1) * sizes[place] > self._budget:
                batches.append([])
            batches[-1].append(place)
        return batches

    def _encode(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        output = self.encoder(inputs)
        chosen = output.frames
        if self.config.layer != "last":
            chosen = output.hidden_states[self.config.layer]
            if chosen.shape[1] != output.frames.shape[1]:
                raise InputError(
                    f"layer={self.config.layer}: its frames have another rate than the encoder's output"
                )
        chosen = chosen.float().cpu()
        return [row[:length].numpy().copy() for row, length in zip(chosen, output.lengths.tolist())]


@functools.lru_cache(maxsize=2)
def _shared(values: tuple) -> Extractor:
    return Extractor(Config(**dict(values)))


def build(config: Config) -> Extractor:
    """The extractor; one process loads a model once, however often it asks."""
    return _shared(tuple(to_dict(config).items()))
