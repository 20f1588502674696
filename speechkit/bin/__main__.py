"""`speechkit <verb> ...`: finds the verb's module, parses its options and turns errors into one line.

Neither this file nor the table of verbs imports anything heavy, so `speechkit --help` is instant.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import re
import sys
from collections.abc import Iterator

from speechkit.bin.verbs import VERBS
from speechkit.errors import InputError, UsageError, nearest


def _usage() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {about}" for verb, about in VERBS.items())
    return f"usage: speechkit <verb> [options]\n\n{rows}\n\n`speechkit <verb> --help` shows a verb's options."


def true_or_false(text: str) -> bool:
    """The type of Kaldi-style switches: `--force true`."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text == "true"


_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parses a verb's options; for a verb with `overrides`, key=value words may stand anywhere.

    argparse would give those that follow an option with several values to that option. The value of an
    option that takes exactly one is left to it.
    """
    actions = list(_actions(parser))
    if not any(action.dest == "overrides" for action in actions):
        return parser.parse_args(argv)
    single = {flag for a in actions if a.option_strings and a.nargs is None for flag in a.option_strings}
    words = list(zip(["", *argv], argv))
    overrides = [word for before, word in words if _OVERRIDE.match(word) and before not in single]
    args = parser.parse_args(
        [word for before, word in words if not _OVERRIDE.match(word) or before in single]
    )
    if overrides and not hasattr(args, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    if hasattr(args, "overrides"):
        args.overrides = [*args.overrides, *overrides]
    return args


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a parser, and of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


# What is wrong with a path that the user gave; any other error of the system is a bug to be seen whole.
_PATHS = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EROFS,
)


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status (1 bad input, 2 bad command line, 130 interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from speechkit import __version__

        print(__version__)
        return 0
    verb = argv[0]
    if verb not in VERBS:
        print(f"speechkit: error: no verb '{verb}'{nearest(verb, list(VERBS))}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"speechkit.bin.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(f"speechkit {verb}", description=VERBS[verb], allow_abbrev=False)
    module.add_arguments(parser)
    args = parse(parser, argv[1:])
    try:
        return module.run(args) or 0
    except UsageError as error:
        print(f"speechkit {verb}: error: {error}", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"speechkit {verb}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        from speechkit.files import disk_full

        if not disk_full(error, error.filename or "") and not (error.filename and error.errno in _PATHS):
            raise
        path = error.filename2 or error.filename
        print(f"speechkit {verb}: error: {path}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
