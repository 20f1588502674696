"""Downloads that resume and are verified; archives that stay in their folder."""

import hashlib
import http.server
import io
import tarfile
import threading
from functools import partial

import pytest

from speechkit.data.download import download, unpack, unpack_folder
from speechkit.errors import InputError


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ranges; `cut` ends an answer early, once."""

    cut, ranges, seen = 0, True, []

    def do_GET(self):
        path = self.translate_path(self.path)
        try:
            content = open(path, "rb").read()
        except OSError:
            self.send_error(404, "Not Found")
            return
        asked = self.headers.get("Range")
        type(self).seen.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: self.cut] if self.cut else body)
        type(self).cut = 0

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A local server over tmp_path/web, and its address."""
    (tmp_path / "web").mkdir()
    kind = type("OneServer", (Server,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=tmp_path / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{server.server_port}", tmp_path / "web"
    server.shutdown()
    server.server_close()


CONTENT = bytes(range(256)) * 4000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
def test_a_download_is_there_once(web, tmp_path, checksum):
    kind, url, folder = web
    (folder / "a.bin").write_bytes(CONTENT)
    for _ in range(2):
        assert download(f"{url}/a.bin", tmp_path / "x/a.bin", checksum).read_bytes() == CONTENT
    assert kind.seen == [None]  # the second call asked nobody
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.bin"]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "begins again"])
def test_an_interrupted_download_goes_on(web, tmp_path, ranges):
    kind, url, folder = web
    (folder / "a.bin").write_bytes(CONTENT)
    kind.cut, kind.ranges = 300_000, ranges
    with pytest.raises(InputError, match="300000"):
        download(f"{url}/a.bin", tmp_path / "a.bin", SHA256)
    assert not (tmp_path / "a.bin").exists() and (tmp_path / "a.bin.part").stat().st_size == 300_000
    assert download(f"{url}/a.bin", tmp_path / "a.bin", SHA256).read_bytes() == CONTENT
    assert kind.seen == [None, "bytes=300000-"]


def test_a_complete_part_is_not_fetched_again(web, tmp_path):
    _, url, folder = web
    (folder / "a.bin").write_bytes(CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert download(f"{url}/a.bin", tmp_path / "a.bin", SHA256).read_bytes() == CONTENT


def test_what_is_wrong_is_said_and_removed(web, tmp_path):
    _, url, folder = web
    (folder / "a.bin").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(InputError, match="another checksum"):
        download(f"{url}/a.bin", tmp_path / "a.bin", SHA256)
    assert not list(tmp_path.glob("a.bin*"))
    with pytest.raises(InputError, match="404"):
        download(f"{url}/none.bin", tmp_path / "none.bin")
    with pytest.raises(InputError, match="only http"):
        download("file:///etc/passwd", tmp_path / "p")
    with pytest.raises(InputError, match="is there a network"):
        download("http://127.0.0.1:9/x", tmp_path / "x")


def archive(path, members, mode="w:gz"):
    """A tar archive of (name, content) or (name, name of a kind)."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = getattr(tarfile, content), "/etc/passwd"
                tar.addfile(info)
    return path


def test_archives_unpack(tmp_path):
    members = [("a", "DIRTYPE"), ("a/b/c.txt", b"c"), ("a/empty", b"")]
    unpack(archive(tmp_path / "x.tgz", members), tmp_path / "out")
    assert (tmp_path / "out/a/b/c.txt").read_bytes() == b"c" and (tmp_path / "out/a/empty").is_file()


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"x"),
        ("a/../../evil", b"x"),
        ("/tmp/evil", b"x"),
        ("a\\..\\evil", b"x"),
        ("link", "SYMTYPE"),
        ("link", "LNKTYPE"),
        ("device", "CHRTYPE"),
        ("pipe", "FIFOTYPE"),
    ],
    ids=str,
)
def test_a_member_that_is_no_plain_file_below_the_folder_is_refused(tmp_path, member):
    path = archive(tmp_path / "x.tgz", [member])
    with pytest.raises(InputError, match="not unpacked"):
        unpack(path, tmp_path / "deep/out")
    left = [p for p in tmp_path.rglob("*") if p != path and not p.is_dir()]
    assert left == []


def test_a_damaged_archive_is_said(tmp_path):
    whole = archive(tmp_path / "x.tgz", [("a", CONTENT)]).read_bytes()
    (tmp_path / "x.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged|ended"):
        unpack(tmp_path / "x.tgz", tmp_path / "out")
    (tmp_path / "text.tgz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="damaged, or no tar"):
        unpack(tmp_path / "text.tgz", tmp_path / "out")


def test_a_folder_of_an_archive_appears_when_it_is_complete(tmp_path):
    inner = archive(tmp_path / "S1.tgz", [("train/S1/1.wav", b"sound")]).read_bytes()
    path = archive(tmp_path / "x.tgz", [("data/wav/S1.tgz", inner), ("other", b"")])
    unpack_folder(path, "data", tmp_path / "out/corpus", nested="wav/*.tgz")
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in tmp_path.glob("out/**/*.*")) == [
        "corpus/wav/train/S1/1.wav"
    ]
    with pytest.raises(InputError, match="holds no missing"):
        unpack_folder(path, "missing", tmp_path / "out/missing")
    hostile = archive(tmp_path / "bad.tgz", [("data/a", b""), ("../evil", b"")])
    with pytest.raises(InputError, match="would leave"):
        unpack_folder(hostile, "data", tmp_path / "out/bad")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["corpus"]
