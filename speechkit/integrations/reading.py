"""Which toolkit a path is of, and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.integrations import espnet, fairseq, huggingface, torchaudio
from speechkit.integrations.foreign import Foreign
from speechkit.integrations.torch_file import open_torch


def is_speechkit(path: Path) -> bool:
    """Whether a path is a SpeechKit checkpoint or experiment folder."""
    return any((folder / "config.yaml").is_file() for folder in (path, path / "final"))


def read_foreign(
    path: Path, dictionary: Path | None = None, stated: Mapping[str, Any] | None = None
) -> Foreign:
    """Reads a checkpoint of another toolkit.

    Args:
        path: a Hugging Face folder, a fairseq .pt, an ESPnet .pth, or a torchaudio state dict or folder.
        dictionary: tokens of a CTC head, where neither the file nor one beside it has them; of ESPnet its
            sentencepiece model.
        stated: values of the encoder's configuration that the user says; they win.

    Raises:
        InputError: none of these, or of a family that SpeechKit has no encoder for.
    """
    if path.is_dir():
        if huggingface.is_huggingface(path):
            return huggingface.read(path, stated)
        if not (path / "model.pt").exists():
            raise InputError(
                f"{path}: neither a SpeechKit checkpoint (config.yaml), nor a Hugging Face folder "
                "(config.json with a model_type), nor torchaudio's (model.pt); of ESPnet name the .pth itself"
            )
        path = path / "model.pt"
    file = open_torch(path)
    if fairseq.is_fairseq(file.value):
        return fairseq.read(file, dictionary, stated)
    if espnet.model_state(file.value) is not None:
        return espnet.read(file, dictionary, stated)
    if torchaudio.is_torchaudio(file.value):
        return torchaudio.read(file, dictionary, stated)
    keys = (
        ", ".join(map(str, list(file.value)[:4]))
        if isinstance(file.value, dict)
        else type(file.value).__name__
    )
    raise InputError(
        f"{path}: neither fairseq's trainer, ESPnet nor torchaudio wrote this (it has {keys}); give a "
        "fairseq .pt, an ESPnet .pth, a torchaudio state dict, or the whole folder of a Hugging Face model"
    )
