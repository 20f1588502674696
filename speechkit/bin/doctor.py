"""`speechkit doctor`: one screen about this machine, with how to mend what is missing."""

from __future__ import annotations

import argparse
import shutil
import textwrap

from speechkit.doctor import Check, checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The doctor has no options."""


def run(args: argparse.Namespace) -> int:
    """Prints the report; status 1 only when something required is missing."""
    found = checks()
    width = min(shutil.get_terminal_size().columns, 110)
    print("\n".join(line for check in found for line in lines(check, width)))
    failed = [check.name for check in found if check.state == "FAIL"]
    if failed:
        print(f"\nMissing: {', '.join(failed)}. The lines marked -> say how to mend it.")
        return 1
    print("\nEverything that SpeechKit needs is there.")
    return 0


def lines(check: Check, width: int) -> list[str]:
    """A check as text: `name  state  found`, wrapped, and its mending on a line of its own."""
    head = f"{check.name:<14} {check.state:<5}"
    body = textwrap.wrap(check.found, width - len(head) - 1) or [""]
    text = [f"{head} {body[0]}", *(" " * (len(head) + 1) + rest for rest in body[1:])]
    return text + ([" " * (len(head) + 1) + f"-> {check.mend}"] if check.mend else [])
