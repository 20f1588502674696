"""The errors a user can cause, each one line that says where, what and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class InputError(ValueError):
    """Bad input: commands print its text as one line and exit with status 1."""


class UsageError(InputError):
    """A command line that cannot be understood: exit status 2."""


class BadSample(InputError):
    """One utterance that cannot be used.

    Args:
        utterance: its id.
        reason: a short machine-countable reason, such as "truncated audio".
        detail: what exactly is wrong and how to mend it.
    """

    def __init__(self, utterance: str, reason: str, detail: str = "") -> None:
        super().__init__(f"utterance {utterance}: {reason}" + (f": {detail}" if detail else ""))
        self.utterance, self.reason, self.detail = utterance, reason, detail

    def __reduce__(self):  # worker processes send exceptions by pickling their arguments
        return BadSample, (self.utterance, self.reason, self.detail)


@dataclass(frozen=True, order=True)
class Problem:
    """One finding in a file; prints as `file:line: message (value)`; line 0 means the whole file."""

    file: str
    line: int
    message: str
    value: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}" + (f" ({self.value})" if self.value else "")


class ProblemsError(InputError):
    """Several findings at once; its text has a line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)

    def __reduce__(self):
        return ProblemsError, (self.problems,)


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error line: `; did you mean 'x'?` or the list of what is known."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"
