"""A decode folder as `decode` leaves it: the hypotheses and where they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechkit.config import from_dict
from speechkit.errors import InputError
from speechkit.files import read_json
from speechkit.text.normalise import Config as NormaliserConfig
from speechkit.text.normalise import Normaliser
from speechkit.text.tokenizer import UNITS


@dataclass
class DecodeFolder:
    """Where hypotheses come from.

    Attributes:
        path: the folder; holds `text`.
        record: decode.json, or what the path says where there is none: `system`, `seed`, `set`, `how`.
    """

    path: Path
    record: dict[str, Any]

    @property
    def text(self) -> Path:
        """The hypotheses."""
        return self.path / "text"

    @property
    def exp(self) -> Path:
        """The folder of all systems: three levels up in `exp/<system>/seed<n>/decode_<set>_<how>`."""
        return self.path.parents[2] if _from_path(self.path) else self.path.parent

    def tokenizer_folder(self) -> Path | None:
        """The tokenizer kept with the model's checkpoint, if it is there."""
        model = self.path.parent
        checkpoint = self.record.get("checkpoint")
        places = [Path(checkpoint)] if isinstance(checkpoint, str) and checkpoint else []
        for place in [*places, model / "final"]:
            if (place / "assets" / "tokenizer" / "tokenizer.json").is_file():
                return place / "assets" / "tokenizer"
        return None

    def units(self) -> str | None:
        """What the model puts out, such as characters; None where nothing says it."""
        folder = self.tokenizer_folder()
        if "units" in self.record or folder is None:
            return self.record.get("units")
        return UNITS.get(read_json(folder / "tokenizer.json").get("kind"))

    def normaliser(self, folder: Path | None = None) -> tuple[Normaliser, str]:
        """The normaliser of the model's text, and where it was found.

        Args:
            folder: a tokenizer folder that the user names; wins over everything else.
        """
        if folder is None and isinstance(self.record.get("normaliser"), dict):
            values = {key: value for key, value in self.record["normaliser"].items() if key != "hash"}
            return Normaliser(from_dict(NormaliserConfig, values)), "decode.json"
        folder = folder or self.tokenizer_folder()
        if folder is None:
            return Normaliser(), "the default (NFC): no tokenizer found"
        values = read_json(folder / "tokenizer.json").get("normaliser", {})
        return Normaliser(from_dict(NormaliserConfig, values)), str(folder)


def open_decode(path: str | Path, set_name: str | None = None) -> DecodeFolder:
    """Reads a decode folder.

    Args:
        path: `exp/<system>/seed<n>/decode_<set>_<how>`, or any folder with text and decode.json.
        set_name: the data set's name, which cuts `<set>_<how>` where both may have underscores.

    Raises:
        InputError: no folder, no text, or no way to tell system, seed, set and how.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such decode folder")
    if not (path / "text").is_file():
        raise InputError(f"{path / 'text'}: no such file; decode first")
    record = _from_path(path.absolute(), set_name) or {}
    if (path / "decode.json").is_file():
        declared = read_json(path / "decode.json")
        if not isinstance(declared, dict):
            raise InputError(f"{path / 'decode.json'}: expected keys and values")
        record.update({key: value for key, value in declared.items() if value is not None})
    missing = [key for key in ("system", "seed", "set", "how") if key not in record]
    if missing:
        raise InputError(
            f"{path}: cannot tell its {', '.join(missing)}: no decode.json, "
            "and not called exp/<system>/seed<n>/decode_<set>_<how>"
        )
    return DecodeFolder(path.absolute(), record)


def _from_path(path: Path, set_name: str | None = None) -> dict[str, Any] | None:
    seed = re.fullmatch(r"seed(\d+)", path.parent.name)
    rest = re.fullmatch(r"decode_(.+)", path.name)
    if not seed or not rest:
        return None
    known = set_name is not None and rest[1].startswith(f"{set_name}_")
    name, _, how = (set_name, "_", rest[1][len(set_name) + 1 :]) if known else rest[1].partition("_")
    if not how:
        return None
    return {"system": path.parents[1].name, "seed": int(seed[1]), "set": name, "how": how}
