"""Encoders of ESPnet in our systems, run by ESPnet: `name: espnet, module: e_branchformer, options: ...`.

Those that read features are meant; what ESPnet builds on wav2vec 2.0, HuBERT or Whisper reads samples,
through packages of their own, and is not reachable here (our own `wav2vec2` encoder reads such checkpoints).

ESPnet lets frames near the end of an utterance see the padding behind it, and the number of frames depends on
the batch. Here utterances of one length are run together, so that padding changes nothing and lengths are
those of the utterance alone; `padding` says when that speed is not to be paid for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechkit.encoders import EncoderOutput
from speechkit.errors import InputError, nearest
from speechkit.layers.masks import zero_padding

PROBE = 240
"""Input frames of the run that measures an encoder's stride, which must divide it."""


@dataclass
class Config:
    """An encoder of ESPnet."""

    name: str = "espnet"
    """The encoder's kind."""

    module: str = "conformer"
    """A name from ESPnet's own table of encoders, such as e_branchformer, or `espnet2.some.module:Class`."""

    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, as in ESPnet's `encoder_conf`; `input_size` is known."""

    padding: Literal["training", "always", "never"] = "training"
    """When a batch is padded and encoded at once, as ESPnet does, so that padding has an influence; otherwise
    utterances of each length are encoded on their own: exact, and slower on a GPU. In training it keeps batch
    norms those of batches."""


class EspnetEncoder(nn.Module):
    """See `speechkit.encoders`; there are no hidden states, no masks and no context.

    Args:
        config: see `Config`.
        input_dim: F.

    Raises:
        InputError: ESPnet or something that the encoder needs is not installed; no such encoder; options that
            it refuses; an encoder whose lengths follow no rule.
    """

    takes = "features"

    def __init__(self, config: Config, input_dim: int) -> None:
        super().__init__()
        self.padding = config.padding
        self.network = make(config, input_dim)
        self.output_dim = self.local_dim = int(self.network.output_size())
        self.stride, self.window = measure(self.network, input_dim, config.module)
        self.keep_hidden_states = self.keep_local = False

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        return _frames(lengths, self.stride, self.window)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        *,
        mask: Tensor | None = None,
        channel_mask: Tensor | None = None,
        context: Tensor | None = None,
        context_lengths: Tensor | None = None,
    ) -> EncoderOutput:
        """Encodes `(B, T, F)`; arguments as for `speechkit.encoders.stack.BlockEncoder`.

        Raises:
            ValueError: a mask or a context, or hidden states or local features are wanted.
        """
        if mask is not None or channel_mask is not None or context is not None:
            raise ValueError("an espnet encoder takes no masks and reads no context; use one of SpeechKit's")
        if self.keep_hidden_states or self.keep_local:
            raise ValueError(
                "an espnet encoder gives its output alone, no hidden states and no local features"
            )
        frames = self.output_lengths(lengths)
        sizes, x = frames.tolist(), zero_padding(x, lengths)
        pieces: list[Tensor] = [x.new_zeros(0, self.output_dim)] * len(sizes)
        for rows in self._together(lengths.tolist(), sizes):
            index = torch.tensor(rows, device=x.device)
            own = lengths.index_select(0, index.to(lengths.device))
            found = self.network(x.index_select(0, index)[:, : int(own.max())], own)[0]
            found = found[0] if isinstance(found, tuple) else found  # with intermediate CTC
            for row, out in zip(rows, found):
                pieces[row] = out[: sizes[row]]
        return EncoderOutput(nn.utils.rnn.pad_sequence(pieces, batch_first=True), frames)

    def _together(self, lengths: list[int], sizes: list[int]) -> list[list[int]]:
        """Rows that are encoded at once, the longest first, as ESPnet's RNNs want them."""
        rows = sorted((row for row, size in enumerate(sizes) if size), key=lambda row: -lengths[row])
        if self.padding == "always" or (self.padding == "training" and self.training):
            return [rows] if rows else []
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(lengths[row], []).append(row)
        return list(groups.values())


def _frames(lengths: Tensor, stride: int, window: int) -> Tensor:
    return (torch.div(lengths - window, stride, rounding_mode="floor") + 1).clamp(min=0)


def make(config: Config, input_dim: int) -> nn.Module:
    """ESPnet's module for F features, with random weights; raises InputError as `EspnetEncoder` says."""
    kind = find_class(config.module)
    try:
        return kind(input_size=input_dim, **config.options)
    except Exception as error:  # whatever ESPnet, its type checks and its optional packages say
        what = f"ESPnet's {kind.__name__} could not be made with options={config.options}"
        raise InputError(f"model.encoder: {what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def find_class(name: str) -> type:
    """The class behind a name of ESPnet's table, or behind `espnet2.package.module:Class`."""
    package = importlib.util.find_spec("espnet2")
    if package is None:
        raise InputError(
            "model.encoder.name=espnet: ESPnet is not installed here; install it with: tools/setup.sh espnet"
        )
    path, colon, attribute = name.partition(":")
    if not colon:
        known = choices(Path(package.submodule_search_locations[0]) / "tasks/asr.py")
        if name not in known:
            raise InputError(
                f"model.encoder.module: ESPnet has no encoder '{name}'{nearest(name, list(known))}"
            )
        path, attribute = known[name]
    if not path.startswith("espnet2."):
        raise InputError(f"model.encoder.module={name}: only classes of the package espnet2 are made")
    try:
        from espnet2.asr.encoder.abs_encoder import AbsEncoder

        kind = getattr(importlib.import_module(path), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"model.encoder.module={name}: cannot be imported ({error}); is its package installed? "
            "tools/setup.sh espnet installs what Conformers, Branchformers, Transformers and RNNs need"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, AbsEncoder)):
        raise InputError(f"model.encoder.module={name}: not an encoder of ESPnet (an AbsEncoder)")
    return kind


def choices(path: Path) -> dict[str, tuple[str, str]]:
    """ESPnet's table of encoders: name -> module and class.

    The file that holds it is read and not imported, for that would need all of ESPnet's dependencies.
    """
    source = ast.parse(path.read_text(encoding="utf-8"))
    places = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in source.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in source.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "encoder_choices":
            (classes,) = (k.value for k in node.value.keywords if k.arg == "classes")
            return {k.arg: places[ast.unparse(k.value)] for k in classes.keywords}
    raise InputError(f"{path}: no table of encoders; name a class: espnet2.package.module:Class")


@torch.no_grad()
def measure(network: nn.Module, input_dim: int, name: str) -> tuple[int, int]:
    """Stride and window of an encoder that turns n frames into (n - window) // stride + 1, by running it.

    Raises:
        InputError: it does not.
    """

    def count(frames: int) -> int:
        try:
            found = network(torch.zeros(1, frames, input_dim), torch.tensor([frames]))[0]
        except Exception as error:  # of any part of ESPnet
            what = f"fails on {frames} frames of {input_dim} features"
            raise InputError(f"model.encoder.module={name}: {what}: {_said(error)}") from error
        return (found[0] if isinstance(found, tuple) else found).size(1)

    network.eval()
    least, most = count(PROBE), count(2 * PROBE)
    stride = PROBE // max(most - least, 1)
    step = next((n for n in range(1, stride + 1) if count(PROBE + n) > least), stride + 1)
    window = PROBE + step - stride * least
    for frames in (window, window + 3 * stride + 1, window + 5 * stride - 1, 2 * PROBE - 1):
        if frames < 1 or count(frames) != (frames - window) // stride + 1:
            raise InputError(
                f"model.encoder.module={name}: how many frames it puts out follows no rule that is known here"
            )
    network.train()
    return stride, window


def build(config: Config, input_dim: int) -> nn.Module:
    """The encoder for `input_dim` features."""
    return EspnetEncoder(config, input_dim)
