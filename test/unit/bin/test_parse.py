"""Where key=value words may stand on a command line."""

import argparse

import pytest

from speechkit.bin.__main__ import parse


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", nargs="+")
    parser.add_argument("--title")
    parser.add_argument("overrides", nargs="*")
    return parser


@pytest.mark.parametrize(
    "argv, data, title, overrides",
    [
        (["--data", "a", "b", "x.y=1"], ["a", "b"], None, ["x.y=1"]),
        (["x=1", "--data", "a", "y=2", "--title", "t=3", "z=4"], ["a"], "t=3", ["x=1", "y=2", "z=4"]),
        (["--data", "/tmp/a=b/c", "./k=v"], ["/tmp/a=b/c", "./k=v"], None, []),
        (["--title=a=b", "--data", "d"], ["d"], "a=b", []),
        (["grid={a: [1, 2]}", "--data", "d"], ["d"], None, ["grid={a: [1, 2]}"]),
    ],
)
def test_overrides_stand_anywhere(parser, argv, data, title, overrides):
    args = parse(parser, argv)
    assert (args.data, args.title, args.overrides) == (data, title, overrides)


def test_a_verb_without_overrides_parses_as_usual():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    assert parse(parser, ["a=b"]).files == ["a=b"]
