"""The folder of a k-means model: centres.safetensors and kmeans.json."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.clustering.frames import Kind, kind_from
from speechkit.config import to_dict
from speechkit.errors import InputError, UsageError
from speechkit.files import atomic_folder, hash_bytes, hash_json, read_json, write_json

FORMAT = 1


@dataclass(frozen=True)
class Subspace:
    """One of `count` equal parts of the dimensions, for product quantization: as many label sets.

    Attributes:
        index: from 1.
        count: parts.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Subspace:
        """Reads `i/n`; UsageError for anything else."""
        match = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--subspace {text}: expected i/n with 1 <= i <= n, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def columns(self, dim: int) -> slice:
        """The dimensions of this part; InputError when there are fewer dimensions than parts."""
        if dim < self.count:
            raise InputError(f"--subspace {self}: only {dim} dimensions to divide")
        return slice(dim * (self.index - 1) // self.count, dim * self.index // self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Codebook:
    """A trained k-means model.

    Attributes:
        centres: `(K, F')` float32.
        dim: F, dimensions of the features before the subspace is taken.
        subspace: the part that is clustered.
        kind: the features.
        training: facts for reports: frames, inertia, options.
    """

    centres: np.ndarray
    dim: int
    subspace: Subspace
    kind: Kind
    training: dict[str, Any]

    @property
    def features(self) -> str | None:
        """Hash of the configuration of what is clustered; None for features of another program."""
        return hash_json(to_dict(self.kind.config)) if self.kind.config is not None else None

    @property
    def hash(self) -> str:
        """Hash of what labels depend on."""
        config = to_dict(self.kind.config) if self.kind.config is not None else None
        return hash_bytes(
            self.centres.tobytes(), hash_json([self.dim, str(self.subspace), config, self.kind.rate]).encode()
        )

    def save(self, folder: str | Path) -> None:
        """Writes the folder, complete or not at all; an existing one is replaced."""
        from safetensors.numpy import save_file

        kind = self.kind
        with atomic_folder(folder) as temporary:
            save_file({"centres": np.ascontiguousarray(self.centres)}, temporary / "centres.safetensors")
            record = {
                "format": FORMAT,
                "clusters": len(self.centres),
                "dim": self.dim,
                "subspace": str(self.subspace),
                "label_rate": kind.rate,
                "offset": kind.offset,
                "config": to_dict(kind.config) if kind.config is not None else None,
                "speaker_cmvn": kind.speaker_cmvn,
                "features": self.features,
                "hash": self.hash,
                "training": self.training,
            }
            write_json(temporary / "kmeans.json", record)

    @classmethod
    def load(cls, folder: str | Path) -> Codebook:
        """Reads what `save` wrote.

        Raises:
            InputError: missing, damaged, or of a later format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        path, weights = folder / "kmeans.json", folder / "centres.safetensors"
        if not path.is_file():
            raise InputError(f"{path}: no such file; speechkit kmeans train makes a model folder")
        record = read_json(path)
        try:
            if record["format"] > FORMAT:
                raise InputError(f"{path}: written by a later version of speechkit; update this one")
            foreign = record["config"] is None
            kind = Kind.unknown(float(record["label_rate"])) if foreign else kind_from(record, path)
            centres = load_file(weights)["centres"]
            book = cls(centres, record["dim"], Subspace.parse(record["subspace"]), kind, record["training"])
            size = len(range(book.dim)[book.subspace.columns(book.dim)])
            if centres.shape != (record["clusters"], size) or not np.isfinite(centres).all():
                raise ValueError(f"centres of shape {centres.shape}")
        except InputError:
            raise
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder}: damaged k-means model ({error!r}); train it again") from None
        return book
