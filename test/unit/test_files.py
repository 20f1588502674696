"""Files are complete or absent; stamps notice every change."""

import errno
import os

import pytest

from speechkit.errors import InputError
from speechkit.files import atomic_folder, atomic_write, hash_bytes, read_json, write_json, write_text
from speechkit.stamp import Stamp


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_clear_line(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with (
        pytest.raises(InputError, match="a.txt: no space left on the disk"),
        atomic_write(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_device(tmp_path):
    with pytest.raises(OSError) as caught, open("/dev/full", "w") as file:
        file.write("x" * 100_000)
    assert caught.value.errno == errno.ENOSPC


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "d") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "d") as folder:
        (folder / "y").write_text("2")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["d"] and os.listdir(tmp_path / "d") == ["x"]
    with atomic_folder(tmp_path / "d") as folder:
        (folder / "y").write_text("2")
    assert os.listdir(tmp_path / "d") == ["y"]


def test_broken_json_names_file_and_line(tmp_path):
    write_text(tmp_path / "a.json", '{\n "a": }\n')
    with pytest.raises(InputError, match="a.json:2: not JSON"):
        read_json(tmp_path / "a.json")


def test_hashes_separate_their_parts():
    assert hash_bytes(b"ab", b"c") != hash_bytes(b"a", b"bc")


def test_stamp_notices_options_inputs_and_outputs(tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    write_text(source, "1")
    write_text(output, "2")

    def stamp(options=None, force=False):
        return Stamp(output, "verb", options or {"a": 1}, [source], force)

    assert not stamp().fresh()
    stamp().write()
    assert stamp().fresh() and not stamp(force=True).fresh() and not stamp({"a": 2}).fresh()
    write_text(source, "changed")
    assert not stamp().fresh()
    stamp().write()
    write_text(output, "touched by hand")
    assert not stamp().fresh()
    output.unlink()
    assert not stamp().fresh()


def test_stamp_of_a_folder_sees_every_file(tmp_path):
    (tmp_path / "d").mkdir()
    write_json(tmp_path / "d" / "x.json", [1])
    Stamp(tmp_path / "d", "verb", {}).write()
    assert Stamp(tmp_path / "d", "verb", {}).fresh()
    write_json(tmp_path / "d" / "y.json", [1])
    assert not Stamp(tmp_path / "d", "verb", {}).fresh()
