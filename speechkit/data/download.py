"""Fetching corpora: downloads that resume and are verified, archives that stay in their folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

from speechkit.errors import InputError
from speechkit.files import disk_full

TIMEOUT = 60.0
PIECE = 1 << 20


def download(url: str, path: str | Path, checksum: str | None = None) -> Path:
    """Downloads a file, going on where an interrupted download stopped.

    What has come so far lies in `<path>.part`; the file appears under its name only when it is complete and
    its checksum is right.

    Args:
        url: http or https.
        path: the file to make; one that is there is kept as it is.
        checksum: `md5:<hex>` or `sha256:<hex>`, or None when its publisher gives none.

    Returns:
        The path.

    Raises:
        InputError: no network, an error of the server, a wrong checksum, or a full disk; it says what to do.
    """
    path = Path(path)
    if path.exists():
        return path
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url}: only http and https addresses are downloaded")
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {url} to {path}", file=sys.stderr, flush=True)
    try:
        _transfer(url, part)
    except urllib.error.HTTPError as error:
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from None
    except OSError as error:
        full = disk_full(error, part)
        raise full or InputError(
            f"{url}: {error}; is there a network? The same command again goes on from "
            f"{part.stat().st_size if part.exists() else 0} bytes"
        ) from None
    if checksum is not None and _digest(part, checksum.partition(":")[0]) != checksum.partition(":")[2]:
        part.unlink()
        raise InputError(
            f"{url}: what came has another checksum than {checksum} and was removed; "
            "download it again, or from a mirror"
        )
    part.replace(path)
    return path


def _transfer(url: str, part: Path) -> None:
    """Appends what is missing; begins again when the server cannot continue."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    with answer, open(part, "ab" if answer.status == 206 else "wb") as file:
        expected = file.tell() + int(answer.headers.get("Content-Length", 0))
        shutil.copyfileobj(answer, file, PIECE)
        if answer.headers.get("Content-Length") and file.tell() != expected:
            raise OSError(f"the connection ended after {file.tell()} of {expected} bytes")


def _digest(path: Path, kind: str) -> str:
    if kind not in ("md5", "sha256"):
        raise InputError(f"{path}: checksum of the kind '{kind}'; known: md5, sha256")
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Unpacks a tar archive (.tar, .tar.gz, .tgz ...): plain files and folders below `folder`, nothing else.

    Args:
        archive: the archive.
        folder: where its members go; made when missing.

    Raises:
        InputError: a member is a link or a device, or its path leaves the folder; the archive is damaged;
            the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                _take(tar, member, folder, archive)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{archive}: damaged, or no tar archive: {error}; remove it and try again") from None
    except OSError as error:
        raise disk_full(error, folder) or InputError(f"{archive}: {error}") from error


def unpack_folder(archive: str | Path, inside: str, target: str | Path, nested: str | None = None) -> None:
    """Unpacks an archive and keeps one folder of it; `target` appears only when it is complete.

    Args:
        archive: the archive.
        inside: the folder's path in the archive.
        target: where it goes.
        nested: glob, below the folder, of archives that are unpacked where they lie and then removed.

    Raises:
        InputError: see `unpack`; or the archive has no such folder.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        unpack(archive, temporary)
        if not (temporary / inside).is_dir():
            raise InputError(f"{archive}: holds no {inside}")
        for further in sorted((temporary / inside).glob(nested)) if nested else ():
            unpack(further, further.parent)
            further.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary / inside).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: str | Path) -> None:
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts or "\\" in member.name:
        raise InputError(f"{archive}: member '{member.name[:100]}' would leave {folder}; not unpacked")
    target = folder / place
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isfile():
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        with source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, PIECE)
    else:
        raise InputError(f"{archive}: member '{member.name[:100]}' is no plain file or folder; not unpacked")
