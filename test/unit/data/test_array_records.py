"""Arrays in records: what goes in comes out, also in parts, and damage is told by name."""

import io

import numpy as np
import pytest

from speechkit.data.array_records import RecordWriter, read_record, record_shape
from speechkit.errors import InputError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "frames": RANDOM.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8),
    "labels": RANDOM.integers(0, 8192, 333, dtype=np.uint16),
    "none": np.zeros((0, 7), np.float32),
    "float": RANDOM.standard_normal((9, 2)),
}


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "some.npy"
    with open(path, "wb") as file:
        writer = RecordWriter(file, path)
        entries = {name: writer.write(array) for name, array in ARRAYS.items()}
    return path, entries


def test_arrays_come_back_whole_and_in_parts(archive):
    for name, entry in archive[1].items():
        read = read_record(entry)
        assert read.dtype == ARRAYS[name].dtype and record_shape(entry) == read.shape
        np.testing.assert_array_equal(read, ARRAYS[name])
        for start, count in ((0, 2), (1, 3), (4, 9), (20, 1), (2, None)):
            wanted = ARRAYS[name][start:] if count is None else ARRAYS[name][start : start + count]
            np.testing.assert_array_equal(read_record(entry, start, count), wanted)


def test_a_record_is_a_npy_file_that_can_be_mapped(archive):
    path, entries = archive
    for name, entry in entries.items():
        offset = int(entry.rpartition(":")[2])
        assert offset % 64 == 0
        np.testing.assert_array_equal(np.load(io.BytesIO(path.read_bytes()[offset:])), ARRAYS[name])
    offset = int(entries["labels"].rpartition(":")[2]) + 128  # after its header
    mapped = np.memmap(path, np.uint16, "r", offset, (333,))
    np.testing.assert_array_equal(mapped, ARRAYS["labels"])


def test_what_is_no_record_is_refused_by_name(archive, tmp_path):
    path, entries = archive
    offset = int(entries["float"].rpartition(":")[2])
    with pytest.raises(InputError, match=f"{path}:{offset + 1}: no array"):
        read_record(f"{path}:{offset + 1}")
    with pytest.raises(InputError, match="nowhere.npy: no such archive"):
        read_record(f"{tmp_path / 'nowhere.npy'}:0")
    with pytest.raises(InputError, match="expected path:offset"):
        read_record(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path}:{offset}: 144 bytes are needed, .* 143 .truncated"):
        read_record(entries["float"])
    np.testing.assert_array_equal(read_record(entries["labels"]), ARRAYS["labels"])
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="that is not read"):
        read_record(f"{objects}:0")
