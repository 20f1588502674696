"""The repository speaks of the product: nothing about how it was made, or on which machine."""

import re

import pytest
from style.sources import files, where

MADE = re.compile(
    r"""
      \b(?:issue|ticket|pull\ request|PR)s?\ \#?\d+        # numbers that a reader cannot look up
    | (?<![\w&\#'"])\#\d{1,3}\b(?!['"])
    | \bhelpers?\b | \bsessions?\b | \bsub-?agents?\b
    | \b(?:the|my|your|this|system)\ prompts?\b
    | \bAI[- ](?:generated|written|assisted|assistant)\b
    | \b(?:written|generated|made)\ by\ an?\ (?:AI|LLM)\b
    | (?<![\w.~}])/(?:work|root)(?:/|\b(?!/))              # paths of one machine
    """,
    re.VERBOSE,
)
TEXT = {".py", ".sh", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".pl", ""}


def found(text):
    """(line number, word) of everything that does not belong into the repository."""
    lines = enumerate(text.splitlines(), 1)
    return [(number, match[0]) for number, line in lines for match in MADE.finditer(line)]


def test_the_repository_speaks_of_the_product():
    paths = [path for path in files() if path.suffix in TEXT and path.name != "test_words.py"]
    assert len(paths) > 200
    wrong = [
        f"{where(path)}:{number}: {word}"
        for path in paths
        for number, word in found(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "see issue 2",
        "as issue #14 asks",
        "mends #12",
        "(#7)",
        "a helper for this",
        "the last session",
        "as your prompt says",
        "AI-generated",
        'Path("/work/main")',
        "cd /root/x",
    ],
)
def test_a_word_is_found(text):
    assert len(found(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "&#12;",
        'colour = "#000000"',
        '("<s>", "#0")',
        "prompts are read by all",
        "AI",
        "https://host/work/paper",
        "$SPEECHKIT_ROOT/tools",
        "tmp_path / 'root'",
        "# 12 files",
        "the issues of Kaldi",
        "https://github.com/a/b#12",
    ],
)
def test_a_plain_word_is_not(text):
    assert found(text) == []
