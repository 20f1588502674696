"""Archives against kaldiio on what is safe; what is not is refused unread."""

import io
import multiprocessing
import os
import pickle
import struct
import threading

import kaldiio
import numpy as np
import pytest

from speechkit.data.archive import ArkWriter, read_array, split_offset
from speechkit.errors import InputError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "matrix": RANDOM.standard_normal((50, 13)).astype(np.float32),
    "double": RANDOM.standard_normal((5, 3)),
    "vector": RANDOM.standard_normal(7).astype(np.float32),
    "double-vector": RANDOM.standard_normal(9),
    "ints": np.array([3, -1, 2**31 - 1, -(2**31)], np.int32),
    "empty": np.zeros((0, 0), np.float32),
    "no-ints": np.zeros(0, np.int32),
    "transposed": np.asfortranarray(RANDOM.standard_normal((4, 6)).astype(np.float32)),
}


def entries_of(scp) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in scp.read_text().splitlines())


def test_what_we_write_kaldiio_reads(tmp_path):
    with ArkWriter(tmp_path, "x") as writer:
        returned = {key: writer.write(key, array) for key, array in ARRAYS.items()}
    entries = entries_of(tmp_path / "x.scp")
    assert entries == returned and list(entries) == sorted(ARRAYS)
    for key, array in ARRAYS.items():
        ours = read_array(entries[key])
        assert ours.dtype == array.dtype and ours.flags.writeable
        np.testing.assert_array_equal(ours, array)
        np.testing.assert_array_equal(kaldiio.load_mat(entries[key]), array)
    sequence = dict(kaldiio.load_ark(str(tmp_path / "x.ark")))
    assert list(sequence) == list(ARRAYS)


def test_what_kaldiio_writes_we_read(tmp_path):
    kaldiio.save_ark(str(tmp_path / "k.ark"), ARRAYS, scp=str(tmp_path / "k.scp"))
    for key, entry in entries_of(tmp_path / "k.scp").items():
        np.testing.assert_array_equal(read_array(entry), ARRAYS[key])


@pytest.mark.parametrize("method", range(1, 8))
def test_compressed_matrices(tmp_path, method):
    array = np.abs(RANDOM.standard_normal((40, 5))).astype(np.float32)
    if method in (4, 6):
        array = np.round(array * 20)
    if method == 7:
        array /= array.max()
    kaldiio.save_ark(
        str(tmp_path / "k.ark"), {"a": array}, scp=str(tmp_path / "k.scp"), compression_method=method
    )
    with ArkWriter(tmp_path, "x", compression=method) as writer:
        entry = writer.write("a", array)
    assert (tmp_path / "x.ark").read_bytes() == (tmp_path / "k.ark").read_bytes()
    assert (tmp_path / "x.ark").stat().st_size < array.nbytes
    step = {2: 0.05, 1: 0.05, 3: 1e-4, 4: 0.51, 5: 0.01, 6: 0.51, 7: 0.004}[method]
    assert np.abs(read_array(entry) - array).max() < step * max(1, array.max() / 3)


def test_compressed_by_kaldi_s_own_formula(tmp_path):
    # kaldi/src/matrix/compressed-matrix.h: value = min + range * byte / 255 (one-byte format, CM3)
    codes = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    head = b"\0BCM3 " + struct.pack("<ffii", -1.0, 4.0, 2, 3)
    (tmp_path / "a.ark").write_bytes(b"key " + head + codes.tobytes())
    np.testing.assert_allclose(
        read_array(f"{tmp_path}/a.ark:4"), -1 + 4 * codes.astype(float) / 255, rtol=1e-6
    )


class Trap:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_pickles_and_commands_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    payload = pickle.dumps(Trap())
    (tmp_path / "evil.ark").write_bytes(b"a PKL" + payload)
    (tmp_path / "npy.ark").write_bytes(b"a NPY" + payload)
    entries = [
        "evil.ark:2",
        "npy.ark:2",
        "mkdir pwned |",
        "mkdir pwned |:0",
        "|mkdir pwned",
        "evil.ark",
        "-",
        "evil.ark:2[0:1]",
    ]
    for entry in entries:
        with pytest.raises(InputError):
            read_array(entry)
    assert not (tmp_path / "pwned").exists()
    kaldiio.load_mat("evil.ark:2")  # which runs it: the trap is real
    assert (tmp_path / "pwned").exists()


def plain(dtype: str, *shape: int) -> bytes:
    return b"\0B" + dtype.encode() + b" " + b"".join(b"\4" + struct.pack("<i", size) for size in shape)


@pytest.mark.parametrize(
    "content,said",
    [
        (b"", "beyond the end"),
        (b" [ 1 2\n 3 4 ]\n", "no binary matrix"),
        (b"\0BXM \4\1\0\0\0", "unknown kind"),
        (plain("FM", 10, 10), "truncated"),
        (plain("FM", 10)[:8], "truncated"),
        (plain("FM", 2**31 - 1, 2**31 - 1), "truncated"),
        (plain("FM", -1, 3), "damaged header"),
        (b"\0BFM \x08" + bytes(20), "damaged header"),
        (b"\0B\4\xff\xff\xff\x7f", "truncated"),
        (b"\0B\4\1\0\0\0\7\0\0\0\0", "damaged integer vector"),
        (b"\0BCM " + struct.pack("<ffii", 0, 1, 2**30, 2**30), "truncated"),
        (b"\0BCM " + struct.pack("<ffii", 0, 1, -5, 3) + bytes(99), "damaged header"),
        (b"\0BCM2 " + bytes(3), "truncated"),
        (b"RIFF" + bytes(40), "no binary matrix"),
    ],
)
def test_damage_is_named_with_archive_and_offset(tmp_path, content, said):
    (tmp_path / "a.ark").write_bytes(b"key " + content)
    with pytest.raises(InputError, match=rf"a\.ark:4: .*{said}"):
        read_array(f"{tmp_path}/a.ark:4")


def test_writer_shows_up_only_when_complete(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), ArkWriter(tmp_path, "x") as writer:
        writer.write("a", ARRAYS["matrix"])
        raise RuntimeError("stop")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key", ["", "a b", "twice", "tab\t"])
def test_writer_refuses_keys_that_cannot_be_read_back(tmp_path, key):
    with pytest.raises(InputError, match="key"), ArkWriter(tmp_path, "x") as writer:
        writer.write("twice", ARRAYS["vector"])
        writer.write(key, ARRAYS["vector"])
    assert os.listdir(tmp_path) == []


def test_writer_refuses_types_kaldi_does_not_have(tmp_path):
    for array in (np.zeros((2, 2), np.int32), np.zeros(3, np.float16), np.zeros((1, 1, 1), np.float32)):
        with pytest.raises(TypeError, match="float"), ArkWriter(tmp_path, "x") as writer:
            writer.write("a", array)


def test_offset_entries(tmp_path):
    assert split_offset("a:b/c.ark:17") == ("a:b/c.ark", 17)
    assert split_offset("a.ark") is None and split_offset("a.ark:-1") is None
    (tmp_path / "odd:5").write_bytes(b"x")
    assert split_offset(f"{tmp_path}/odd:5") is None


def test_a_replaced_archive_is_read_anew(tmp_path):
    for value in (1.0, 2.0):
        with ArkWriter(tmp_path, "x") as writer:
            entry = writer.write("a", np.full((3, 2), value, np.float32))
        assert (read_array(entry) == value).all()


def _sum(entries: list[str]) -> float:
    return float(sum(read_array(entry).sum() for entry in entries))


def test_threads_and_forks_read_the_same_archive(tmp_path):
    arrays = {f"u{n:03d}": np.full((n + 1, 4), n, np.float32) for n in range(100)}
    with ArkWriter(tmp_path, "x") as writer:
        entries = [writer.write(key, array) for key, array in arrays.items()]
    total = _sum(entries)  # the file is open before the fork
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_sum, [entries, entries[::-1], entries]) == [total] * 3
    results = []
    threads = [threading.Thread(target=lambda: results.append(_sum(entries))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [total] * 4


def test_open_files_are_few(tmp_path):
    entries = []
    for number in range(60):
        with ArkWriter(tmp_path, f"x{number}") as writer:
            entries.append(writer.write("a", np.full(3, number, np.float32)))
    for number, entry in enumerate(entries):
        assert read_array(entry)[0] == number
    opened = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    ]
    assert sum(str(tmp_path) in name for name in opened) <= 32


def test_audio_container_is_kaldiio_s(tmp_path):
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.arange(100, dtype=np.int16), 16000, format="flac")
    with ArkWriter(tmp_path, "x") as writer:
        entry = writer.write_audio("a", buffer.getvalue())
    rate, samples = kaldiio.load_mat(entry)
    assert rate == 16000
    np.testing.assert_array_equal(samples * 32768, np.arange(100))
