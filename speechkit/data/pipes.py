"""Pipes in wav.scp (`sph2pipe -f wav a.sph | sox -t wav - -r 16000 -t wav - |`), run without a shell.

The line is cut into words here; whatever only a shell would understand is refused rather than passed on
as it stands. Which programs and options are allowed is in pipe_rules.py.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from typing import IO

from speechkit.data.containers import AudioError
from speechkit.data.pipe_rules import PROGRAMS, Refused

TIMEOUT = 600.0  # seconds for a whole pipe
MAX_BYTES = 8 << 30  # of decoded audio
MAX_LINE = 8192
MAX_PROGRAMS = 6
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")  # not SOX_OPTS, AUDIODEV and the like


def parse_pipe(line: str) -> list[list[str]]:
    """Cuts `program word ... | program word ... |` into one list of words a program.

    Quotes and backslashes work as in a shell; everything else that a shell would act on is refused.

    Raises:
        Refused: what is not allowed, and where.
    """
    line = line.strip()
    if not line.endswith("|"):
        raise Refused("a pipe must end with '|'")
    if len(line) > MAX_LINE:
        raise Refused(f"longer than {MAX_LINE} characters")
    chain = _split(line[:-1])
    if len(chain) > MAX_PROGRAMS:
        raise Refused(f"more than {MAX_PROGRAMS} programs")
    for words in chain:
        if not words:
            raise Refused("a program is missing beside '|'")
        if words[0] not in PROGRAMS:
            raise Refused(
                f"program '{words[0]}' is not one of {', '.join(PROGRAMS)} (by these names, without a folder)"
            )
    return chain


def _split(text: str) -> list[list[str]]:
    chain: list[list[str]] = [[]]
    word: str | None = None
    quote, position = "", 0
    while position < len(text):
        character = text[position]
        position += 1
        if ord(character) < 32 or ord(character) == 127:
            raise Refused(f"control character {character!r}")
        if character in "$`" and quote != "'":
            raise Refused(f"'{character}': nothing is substituted")
        if quote:
            if character == quote:
                quote = ""
            elif character == "\\" and quote == '"' and text[position : position + 1] in ('"', "\\"):
                word, position = (word or "") + text[position], position + 1
            else:
                word = (word or "") + character
        elif character in "'\"":
            quote, word = character, word or ""
        elif character == "\\" and position < len(text):
            word, position = (word or "") + text[position], position + 1
        elif character in ";&<>(){}[]*?!\\" or (character in "~#" and word is None):
            raise Refused(f"'{character}' outside of quotes: there is no shell here")
        elif character in " |":
            if word is not None:
                chain[-1].append(word)
            word = None
            if character == "|":
                chain.append([])
        else:
            word = (word or "") + character
    if quote:
        raise Refused(f"a {quote} that is not closed")
    if word is not None:
        chain[-1].append(word)
    return chain


def check_pipe(line: str) -> list[list[str]]:
    """The programs and words to run for a line.

    Raises:
        AudioError: "pipe refused", with what is not allowed.
    """
    try:
        return [[words[0], *PROGRAMS[words[0]](words[1:])] for words in parse_pipe(line)]
    except Refused as error:
        raise AudioError("pipe refused", f"'{line}': {error}") from None


def read_pipe(line: str, timeout: float = TIMEOUT) -> bytes:
    """Runs a pipe and returns all that its last program writes.

    Args:
        line: entry of wav.scp, ending with `|`.
        timeout: seconds.

    Raises:
        AudioError: refused, a program is missing or fails, no output, too much of it, or too slow.
    """
    chain = check_pipe(line)
    for words in chain:
        if shutil.which(words[0]) is None:
            raise AudioError("pipe failed", f"'{line}': {words[0]} is not installed")
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    processes: list[subprocess.Popen] = []
    notes: list[IO[bytes]] = []
    try:
        source: int | IO[bytes] = subprocess.DEVNULL
        for words in chain:
            notes.append(tempfile.TemporaryFile())
            process = subprocess.Popen(
                words,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=notes[-1],
                env={**environment, "LC_ALL": "C"},
            )
            if processes:
                processes[-1].stdout.close()  # only the next program holds it now
            source = process.stdout
            processes.append(process)
        data = _collect(processes, line, time.monotonic() + timeout)
        _check_codes(processes, notes, line)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
        for note in notes:
            note.close()
    if not data:
        raise AudioError("pipe failed", f"'{line}': no output")
    return data


def _collect(processes: list[subprocess.Popen], line: str, deadline: float) -> bytes:
    """All output of the last program; then every program has ended."""
    output, pieces, size = processes[-1].stdout, [], 0
    while True:
        ready, _, _ = select.select([output], [], [], max(deadline - time.monotonic(), 0))
        piece = os.read(output.fileno(), 1 << 20) if ready else None
        if piece is None:
            raise AudioError("pipe failed", f"'{line}': took too long")
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise AudioError("pipe failed", f"'{line}': more than {MAX_BYTES} bytes of output")
    try:
        for process in processes:
            process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        raise AudioError("pipe failed", f"'{line}': took too long") from None
    return b"".join(pieces)


def _check_codes(processes: list[subprocess.Popen], notes: list[IO[bytes]], line: str) -> None:
    for index, process in enumerate(processes):
        if process.returncode == 0:
            continue
        # A program whose reader had enough and said all is well ends with SIGPIPE, as it should.
        if process.returncode == -signal.SIGPIPE and index + 1 < len(processes):
            continue
        notes[index].seek(0)
        said = notes[index].read(4096).decode(errors="replace").strip().replace("\n", "; ")
        raise AudioError(
            "pipe failed", f"'{line}': {process.args[0]} ended with {process.returncode}: {said}"
        )
