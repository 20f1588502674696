"""espeak-ng as a program that spells sentences in IPA, many in one call."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property

from speechkit.errors import InputError, nearest
from speechkit.text.phone_inventory import SEPARATOR

HOW_TO_INSTALL = "install it (apt-get install espeak-ng), or take --source lexicon or grapheme"
PIECE = 400  # bytes: espeak-ng takes lines of 999, and breaks clauses that are longer than 800
BATCH = 1000  # lines a process
SECONDS = 600  # for a batch, before we give up


class Espeak:
    """Spells sentences of one language; nothing is started before something is asked.

    Args:
        language: as in the second column of `espeak-ng --voices`.

    Raises:
        InputError: there is no espeak-ng.
    """

    def __init__(self, language: str) -> None:
        found = shutil.which("espeak-ng")
        if found is None:
            raise InputError(f"there is no program espeak-ng; {HOW_TO_INSTALL}")
        self.program, self.language = found, language

    @cached_property
    def version(self) -> str:
        """Such as "1.51"."""
        line = self._run(["--version"])
        match = re.search(r"text-to-speech: (\S+)", line)
        if match is None:
            raise InputError(f"{self.program} --version says '{line[:80].strip()}', no version of espeak-ng")
        return match[1]

    def languages(self) -> list[str]:
        """Every name by which a voice's language can be asked for."""
        names = []
        for line in self._run(["--voices"]).splitlines()[1:]:
            names += [line.split()[1], *re.findall(r"\((\S+) \d+\)", line)]
        return names

    def check_language(self) -> None:
        """Raises InputError when espeak-ng has no voice of that very name; it would take a similar one."""
        known = self.languages()
        if self.language not in known:
            raise InputError(
                f"espeak-ng {self.version} has no language '{self.language}'" + nearest(self.language, known)
            )

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """IPA of each text, with `_` between phones and marks such as `(en)` where the language changes.

        Args:
            texts: one line each, without punctuation that ends a clause.
        """
        pieces = [(i, piece) for i, text in enumerate(texts) for piece in cut(text)]
        spelt: list[list[str]] = [[] for _ in texts]
        for start in range(0, len(pieces), BATCH):
            batch = pieces[start : start + BATCH]
            for (i, _), line in zip(batch, self._lines([piece for _, piece in batch])):
                spelt[i].append(line)
        return [" ".join(lines) for lines in spelt]

    def _lines(self, pieces: list[str]) -> list[str]:
        """A line of IPA for each piece.

        espeak-ng writes a line for every clause, and an empty one for an empty line, which therefore
        follows each piece: when those are not where they must be, some piece was read as several clauses.
        """
        options = ["-q", "--ipa", f"--sep={SEPARATOR}", "-b", "1", "-v", self.language]
        lines = self._run(options, "".join(f"{piece}\n\n" for piece in pieces)).split("\n")[:-1]
        if len(lines) == 2 * len(pieces) and not any(line.strip() for line in lines[1::2]):
            return [line.strip() for line in lines[::2]]
        if len(pieces) == 1:
            return [" ".join(line.strip() for line in lines).strip()]
        half = len(pieces) // 2
        return self._lines(pieces[:half]) + self._lines(pieces[half:])

    def _run(self, options: list[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                [self.program, *options],
                input=text.encode(),
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{self.program} said nothing for {SECONDS} s; is it espeak-ng?") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().split("\n")[0]
            raise InputError(
                f"{self.program} {' '.join(options)} failed (status {done.returncode}): {said[:200]}"
            )
        return done.stdout.decode(errors="replace")


def cut(text: str) -> list[str]:
    """Pieces of at most `PIECE` bytes, at spaces where there are some; none of a text of white space."""
    pieces, size = [], PIECE + 1
    for word in text.split(" "):
        while len(word.encode()) > PIECE:  # scripts without spaces
            head = word.encode()[:PIECE].decode(errors="ignore")
            pieces.append(head)
            word, size = word[len(head) :], PIECE + 1
        length = len(word.encode()) + 1
        if size + length > PIECE:
            pieces.append(word)
            size = length - 1
        else:
            pieces[-1] += f" {word}"
            size += length
    return [piece for piece in pieces if piece.strip()]
