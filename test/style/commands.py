"""What is wrong with a command line of a document: nothing is run, everything is looked up."""

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import os
import re
import shlex
from pathlib import Path

from style.sources import ROOT, files

from speechkit.bin.__main__ import parse
from speechkit.bin.verbs import VERBS

# What set-up and running recipes make, and what stands for a place of the reader's own.
MADE = ("data", "dump", "exp", "downloads", "images", "RESULTS.md", ".venv", "my_corpus", "/path/to")
PLAIN_PROGRAMS = {"cd", "source", "git", "tail", "less", "tensorboard"}
SETUP = ROOT / "tools/setup.sh"


def problem(line: str, folder: Path) -> str | None:
    """The first thing wrong with one line of bash that is typed in `folder`, or None."""
    try:
        commands = list(_commands(line))
    except ValueError as error:
        return str(error)
    for words in commands:
        if wrong := _command(words, folder):
            return wrong
        if words[0] == "cd":
            folder = locate(words[1], folder)
    return None


def _commands(line: str):
    """The simple commands of a line as lists of words, without variables set before them."""
    lexer = shlex.shlex(re.sub(r"<([\w.-]+)>", r"{\1}", line), posix=True, punctuation_chars=True)
    words = []
    for word in [*lexer, ";"]:
        if word in ("&&", "||", "|", ";"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=", word):
            words.append(word)


def _command(words: list[str], folder: Path) -> str | None:
    program, *rest = words
    missing = [word for word in rest if _names_a_file(word) and not exists(word, folder)]
    if missing:
        return f"no file {missing[0]}"
    if program == "speechkit":
        return _verb(rest)
    if program in ("python", "torchrun"):
        return _python(program, rest, folder)
    if "/" in program:
        script = locate(program, folder)
        if script is None:
            return f"no file {program}"
        return _script(script, rest) if os.access(script, os.X_OK) else f"{program} is not executable"
    return None if program in PLAIN_PROGRAMS else f"unknown program {program}"


# ---- files ----------------------------------------------------------------------------------------------


def locate(name: str, folder: Path) -> Path | None:
    """The file that a document in `folder` means: beside it, from the root, or any recipe's own.

    A document of a recipe means that recipe's; a recipe that the reader is about to make is the template.
    """
    starts = [folder, ROOT]
    if not (folder / "run.sh").exists():
        starts += [ROOT / "egs/TEMPLATE/asr1", *sorted(path.parent for path in ROOT.glob("egs/*/*/run.sh"))]
    corpus = re.match(r"egs/(\w+)/", name)
    if corpus and not (ROOT / "egs" / corpus[1]).exists():
        name = name.replace(corpus[0], "egs/TEMPLATE/", 1)
    paths = (Path(os.path.normpath(start / name)) for start in starts)
    return next((path for path in paths if path.exists()), None)


def exists(name: str, folder: Path) -> bool:
    """Whether a file, or one that fits a pattern, is in the checkout or will be once recipes ran."""
    recipe, inside = re.fullmatch(r"(egs/\w+/\w+/)?(.*)", name).groups()
    if any(inside == made or inside.startswith(f"{made}/") for made in MADE):
        return recipe is None or locate(recipe, folder) is not None
    if "/" not in name:  # named in passing
        return any(path.name == name for path in files())
    pattern = re.sub(r"\{[\w.-]+\}", "*", name)
    if "*" in pattern:
        return any(any(start.glob(pattern)) for start in (folder, ROOT, ROOT / "egs/TEMPLATE/asr1"))
    return locate(name, folder) is not None


def _names_a_file(word: str) -> bool:
    return bool(re.fullmatch(r"[\w.{}*-]*(/[\w.{}*-]+)+/?|[\w-]+\.(ya?ml|py|sh|md)", word))


# ---- programs -------------------------------------------------------------------------------------------


@functools.cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    """The real parser of a verb."""
    parser = argparse.ArgumentParser(verb, allow_abbrev=False)
    importlib.import_module(f"speechkit.bin.{verb.replace('-', '_')}").add_arguments(parser)
    return parser


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of its commands."""
    found = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options_of(below) for below in action.choices.values()))
    return found


def _verb(words: list[str]) -> str | None:
    if words[:1] in (["--help"], ["--version"]):
        return None
    if not words or not (words[0] in VERBS or words[0].startswith("{")):
        return f"no verb {' '.join(words[:1])}"
    if "..." in words or words[0].startswith("{"):
        return _unknown(words, options_of(parser_of(words[0])) if words[0] in VERBS else {"--help"})
    if "--help" in words:
        return _unknown(words, {*options_of(parser_of(words[0])), "--help"})
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parse(parser_of(words[0]), words[1:])
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    return None


def _unknown(words: list[str], known: set[str]) -> str | None:
    unknown = [word for word in words if word.startswith("--") and word not in known]
    return f"no option {unknown[0]}" if unknown else None


def _python(program: str, words: list[str], folder: Path) -> str | None:
    if "-m" in words:
        module, *rest = words[words.index("-m") + 1 :]
        if importlib.util.find_spec(module) is None:
            return f"no module {module}"
        return _verb(rest) if module == "speechkit.bin" else None
    scripts = [word for word in words if word.endswith(".py")]
    script = locate(scripts[0], folder) if scripts else None
    if script is None:
        return f"{program} without a script that is there"
    return _script(script, words[words.index(scripts[0]) + 1 :])


def _script(script: Path, words: list[str]) -> str | None:
    text = script.read_text(encoding="utf-8")
    if ". parse_options.sh" in text:
        return _recipe(recipe_options(text), words)
    if script == SETUP:
        parts = re.search(r"known_parts=\((.*)\)", text)[1].split()
        unknown = [word for word in words if not word.startswith("--") and word not in parts]
        if unknown:
            return f"no part {unknown[0]}"
    return _unknown(words, set(re.findall(r"--[a-z][a-z-]*", text)) | {"--help"})


def recipe_options(text: str) -> dict[str, str]:
    """The options of a run.sh with their defaults."""
    above = text.partition(". parse_options.sh")[0]
    found = re.findall(r"^([a-z][a-z0-9_]*)=([^\s(#]*)", above, re.MULTILINE)
    return {f"--{name.replace('_', '-')}": default for name, default in found}


def _recipe(options: dict[str, str], words: list[str]) -> str | None:
    if words == ["--help"]:
        return None
    for option, value in zip(words[::2], [*words[1::2], ""]):
        if option not in options:
            return f"no option {option}"
        if not value:
            return f"option {option} needs a value"
        if options[option] in ("true", "false") and value not in ("true", "false"):
            return f"option {option} takes true or false"
        if options[option].isdigit() and not value.isdigit():
            return f"option {option} takes a number"
    return None


@functools.cache
def all_options() -> set[str]:
    """Every option of every verb, recipe and script."""
    found = {"--help", "--version"}.union(*(options_of(parser_of(verb)) for verb in VERBS))
    for recipe in ROOT.glob("egs/*/*/run.sh"):
        found.update(recipe_options(recipe.read_text(encoding="utf-8")))
    for script in [*ROOT.glob("utils/*"), *ROOT.glob("tools/*.sh"), *ROOT.glob("egs/*/*/local/*.py")]:
        if script.is_file():
            found.update(re.findall(r"--[a-z][a-z-]*", script.read_text(encoding="utf-8")))
    return found


def inline_problem(code: str, folder: Path) -> str | None:
    """What is wrong with `code` in running text: a command in part, options, a path, or just a word."""
    words = re.sub(r"<([\w.-]+)>", r"{\1}", code).split()
    if (
        words[0] == "speechkit"
        and len(words) > 1
        and words[1] not in VERBS
        and not words[1].startswith(("{", "-"))
    ):
        return f"no verb {words[1]}"
    if words[0] == "speechkit" and len(words) > 1 and words[1] in VERBS:
        return _unknown(words, options_of(parser_of(words[1])) | {"--help"})
    if words[0].startswith(("./", "utils/", "tools/", "test/run.sh", "egs/")) and "*" not in words[0]:
        script = locate(words[0].rstrip("/"), folder)
        if script is None:
            return None if exists(words[0], folder) else f"no file {words[0]}"
        return _script(script, words[1:]) if script.is_file() and os.access(script, os.X_OK) else None
    if words[0].startswith("--"):
        return _unknown(words, all_options())
    if len(words) == 1 and _names_a_file(words[0]) and not exists(words[0], folder):
        return f"no file {words[0]}"
    return None


# ---- Python ---------------------------------------------------------------------------------------------


def python_problem(code: str) -> str | None:
    """What is wrong with a block of Python: its syntax, or names that SpeechKit does not have."""
    try:
        source = ast.parse(code)
    except SyntaxError as error:
        return str(error)
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "speechkit":
            missing = [] if hasattr(importlib.import_module("speechkit"), node.attr) else [node.attr]
        else:
            continue
        if missing:
            return f"{ast.unparse(node)}: no {missing[0]}"
    return None
