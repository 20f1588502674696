"""Sentencepiece subwords, BPE or unigram, with the identity rule: our own normaliser is the only one."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.files import atomic_write
from speechkit.text.char import SPACE
from speechkit.text.tokenizer import Options

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class SubwordUnits:
    """A token a sentencepiece piece.

    Args:
        model: the serialised sentencepiece model.
        name: what an error message calls it.
    """

    def __init__(self, model: bytes, name: str) -> None:
        from sentencepiece import SentencePieceProcessor

        self.model = model
        self.processor = SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise InputError(f"{name}: not a sentencepiece model") from None

    def tokens(self) -> list[str]:
        """The model's own pieces in its order, without control symbols and its unknown piece."""
        sp = self.processor
        ids = range(sp.GetPieceSize())
        return [sp.IdToPiece(i) for i in ids if not (sp.IsControl(i) or sp.IsUnknown(i) or sp.IsUnused(i))]

    def split(self, text: str) -> list[str]:
        """The pieces of a normalised text."""
        return self.processor.EncodeAsPieces(text)

    def join(self, pieces: Sequence[str]) -> str:
        """The text of some pieces; byte pieces that are no UTF-8 become U+FFFD."""
        parts = bytearray()
        for piece in pieces:
            byte = _BYTE.fullmatch(piece)
            parts += bytes([int(byte[1], 16)]) if byte else piece.encode()
        return parts.decode("utf-8", errors="replace").replace(SPACE, " ").strip(" ")

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes spm.model."""
        with atomic_write(folder / "spm.model", "wb") as file:
            file.write(self.model)
        return {"model": "spm.model"}


def build(kind: str, texts: Sequence[str], options: Options) -> tuple[SubwordUnits, list[str]]:
    """Trains on the texts, or takes over `options.model`."""
    if options.model is not None:
        if not options.model.is_file():
            raise InputError(f"{options.model}: no such sentencepiece model")
        units = SubwordUnits(options.model.read_bytes(), str(options.model))
    else:
        units = SubwordUnits(_train(kind, texts, options), "the trained model")
    return units, units.tokens()


def load(kind: str, folder: Path, values: dict[str, Any]) -> SubwordUnits:
    """Reads spm.model."""
    path = folder / "spm.model"
    if not path.is_file():
        raise InputError(f"{path}: no such file; the tokenizer folder is not complete")
    return SubwordUnits(path.read_bytes(), str(path))


def _train(kind: str, texts: Sequence[str], options: Options) -> bytes:
    import sentencepiece

    if options.size is None:
        raise InputError(f"--kind {kind} needs --size (tokens in the vocabulary, such as 500)")
    texts = [text for text in texts if text]
    if not texts:
        raise InputError("no text to train a sentencepiece model on")
    characters = set().union(*map(set, texts))
    least = len(characters | {" "}) + 3 + 256 * options.byte_fallback
    if options.size < least:
        raise InputError(f"--size {options.size}: too small, the text's characters alone need {least}")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=options.size - 2,  # its unknown piece is ours; <blank> and <sos/eos> come on top
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=1.0,
            byte_fallback=options.byte_fallback,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            unk_id=0,
            max_sentence_length=1 << 20,  # longer sentences would be left out in silence
            num_threads=1,  # the sums of several threads differ in the last digits
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise InputError(_too_big(kind, options.size, str(error))) from None
    return model.getvalue()


def _too_big(kind: str, size: int, message: str) -> str:
    limit = re.search(r"<= (\d+)", message)
    most = f" (at most {int(limit[1]) + 2} here)" if limit else ""
    if limit or "too high" in message:
        return f"--size {size}: more pieces than the text supports{most}; take fewer, or more text"
    return f"sentencepiece could not train a {kind} model of size {size}: {message.strip()}"
