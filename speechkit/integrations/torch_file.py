"""Files of `torch.save`, in the zip format and the one before it, read without running code from them.

Tensors stay on the disk until they are asked for: of a training checkpoint with optimiser state only the
model's weights are ever read.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.integrations.restricted_pickle import Global, Machine

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Class of a storage -> type of its elements."""

ZIP_MAGIC, PICKLE_MAGIC = b"PK\x03\x04", b"\x80"
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_KEY = re.compile(r"[0-9A-Za-z_]+")


@dataclass(frozen=True)
class Storage:
    """A block of elements in the file."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class LazyTensor:
    """Where a tensor lies in a storage; `TorchFile.tensors` reads it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.size


class TorchFile:
    """An opened file.

    Args:
        path: for messages.
        value: what was saved, with a `LazyTensor` for every tensor.
        read: gives the bytes of a storage.
    """

    def __init__(self, path: Path, value: Any, read: Callable[[Storage], bytes]) -> None:
        self.path, self.value, self._read = path, value, read

    def tensors(self, lazy: Mapping[str, LazyTensor]) -> dict[str, Tensor]:
        """Reads tensors; each has memory of its own.

        Raises:
            InputError: a storage is missing or damaged, or a tensor reaches beyond its storage.
        """
        found: dict[str, Tensor] = {}
        last: Storage | None = None
        for name, tensor in lazy.items():
            self._check(name, tensor)
            if tensor.storage != last:
                last, block = tensor.storage, self._block(tensor.storage)
            found[name] = block.as_strided(tensor.size, tensor.stride, tensor.offset).clone()
        return found

    def _check(self, name: str, tensor: LazyTensor) -> None:
        numbers = (tensor.offset, *tensor.size, *tensor.stride)
        fits = all(type(n) is int and n >= 0 for n in numbers) and len(tensor.size) == len(tensor.stride)
        elements = 1
        for size in tensor.size if fits else ():
            elements *= size
        last = sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride)) if fits else 0
        count = tensor.storage.count
        if not fits or elements > count or (elements and tensor.offset + last >= count):
            raise InputError(f"{self.path}: tensor {name} reaches beyond its data; the file is damaged")

    def _block(self, storage: Storage) -> Tensor:
        data = self._read(storage)
        expected = storage.count * storage.dtype.itemsize
        if len(data) != expected:
            raise InputError(
                f"{self.path}: storage {storage.key} has {len(data)} bytes instead of {expected}; "
                "the file is damaged or cut short"
            )
        return (
            torch.frombuffer(bytearray(data), dtype=storage.dtype)
            if data
            else torch.empty(0).to(storage.dtype)
        )


def open_torch(path: str | Path) -> TorchFile:
    """Opens a file of `torch.save`.

    Raises:
        InputError: no such file, another kind of file, damaged, or naming what no checkpoint needs.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:
        start = file.read(4)
        try:
            if start == ZIP_MAGIC:
                return _open_zip(path)
            if start[:1] == PICKLE_MAGIC:
                file.seek(0)
                return _open_legacy(path, file)
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    raise InputError(f"{path}: {_other_kind(path)}")


def _other_kind(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(300)
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights; fetch them with `git lfs pull`"
    if not start:
        return "the file is empty"
    if start[257:262] == b"ustar":
        return "torch's tar format of 2016; save it again with a later version"
    if start[8:9] == b"{":
        return "a safetensors file; give the folder that has its config.json too"
    return f"not a file of torch.save (it begins with {start[:4]!r})"


# ---- the zip format -------------------------------------------------------------------------------------


def _open_zip(path: Path) -> TorchFile:
    with _damage_named(path):
        archive = zipfile.ZipFile(path)  # stays open for the tensors, until it is collected
        names = archive.namelist()
        root = _root(names)
        order = _entry(archive, f"{root}/byteorder") if f"{root}/byteorder" in names else b"little"
        if order != b"little":
            raise InputError("written on a big-endian machine; save it again on another")
        pickle = io.BytesIO(_entry(archive, f"{root}/data.pkl"))

    def read(storage: Storage) -> bytes:
        with _damage_named(path):
            return _entry(archive, f"{root}/data/{storage.key}")

    return TorchFile(path, Machine(_BUILDERS, _storage).run(pickle), read)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Says in one line what zipfile says about damage with many kinds of errors."""
    try:
        yield
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, LookupError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: damaged or cut short ({error})") from None


def _root(names: list[str]) -> str:
    """The folder that everything in the archive lies in."""
    odd = [name for name in names if name.startswith("/") or ".." in name.split("/") or "\\" in name]
    if odd:
        raise InputError(f"refused: the archive has an entry '{odd[0]}' outside its folder")
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError("a TorchScript program, not a checkpoint; save the model's state_dict instead")
    if len(pickles) != 1 or len(names) != len(set(names)):
        raise InputError("a zip archive, but not one of torch.save (one folder with data.pkl)")
    return pickles[0].split("/")[0]


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise InputError(f"refused: entry '{name}' is compressed, which torch.save never does")
    return archive.read(name)


# ---- the format before it -------------------------------------------------------------------------------


def _open_legacy(path: Path, file: IO[bytes]) -> TorchFile:
    """Five pickles (magic number, version, system, value, keys), then each storage's length and data."""
    if Machine().run(file) != LEGACY_MAGIC:
        raise InputError("a bare pickle, not a file of torch.save")
    if Machine().run(file) != LEGACY_PROTOCOL:
        raise InputError("an unknown version of torch's first format")
    system = Machine().run(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InputError("written on a big-endian machine; save it again on another")
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        found = _storage(identity)
        return storages.setdefault(found.key, found)

    value = Machine(_BUILDERS, storage).run(file)
    keys = Machine().run(file)
    if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
        raise InputError("damaged: its list of storages is not that of its tensors")
    places: dict[str, tuple[int, int]] = {}
    end = path.stat().st_size
    for key in map(str, keys):
        head = file.read(8)
        if len(head) < 8 or (count := struct.unpack("<q", head)[0]) != storages[key].count:
            raise InputError(f"damaged or cut short at storage {key}")
        places[key] = start, size = file.tell(), count * storages[key].dtype.itemsize
        if start + size > end:
            raise InputError(f"damaged or cut short in storage {key}")
        file.seek(size, 1)

    def read(storage: Storage) -> bytes:
        with open(path, "rb") as again:
            again.seek(places[storage.key][0])
            return again.read(places[storage.key][1])

    return TorchFile(path, value, read)


# ---- what tensors are made from -------------------------------------------------------------------------


def _storage(identity: Any) -> Storage:
    """The storage that a persistent id `("storage", class, key, device, elements)` names."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise InputError("refused: a persistent id that is no tensor's storage")
    kind, key, count = identity[1], str(identity[2]), identity[4]
    name = kind.name if isinstance(kind, Global) else str(kind)
    if name not in DTYPES:
        raise InputError(f"tensors of the kind {name} are not supported")
    if not _KEY.fullmatch(key) or type(count) is not int or count < 0:
        raise InputError(f"refused: a storage called '{key}' with {count} elements")
    if len(identity) == 6 and identity[5] is not None:
        raise InputError("storages that are views of others are not supported; save the file again")
    return Storage(key, DTYPES[name], count)


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *rest: Any) -> LazyTensor:
    if not isinstance(storage, Storage):
        raise InputError("refused: a tensor without a storage")
    return LazyTensor(storage, offset, tuple(size), tuple(stride))


_BUILDERS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
}
