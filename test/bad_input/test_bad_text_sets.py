"""Text sets, and runs that learn from text alone: one clear line before the first update."""

from __future__ import annotations

import pytest
from factories import write_table
from tiny_text import TextWorld

from speechkit.bin.__main__ import main
from speechkit.text.wordpiece_cut import Rules
from speechkit.text.wordpiece_train import train_vocab, write_vocab

LINES = [f"{word} words here" for word in ("some", "more", "few", "no")]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> TextWorld:
    made = TextWorld(tmp_path_factory.mktemp("world"))
    (made.folder / "vocab").mkdir()
    write_vocab(made.folder / "vocab", train_vocab(LINES, Rules(), whole_words=True), Rules())
    write_table(made.folder / "lines/text", {f"l{i}": line for i, line in enumerate(LINES * 5)})
    return made


def refused(capsys, arguments, *parts):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    for part in parts:
        assert part in last, last


def mlm(world, train=None, dev=None, **changes):
    """The arguments of a masked language model's training."""
    lines = world.folder / "lines"
    values = {
        "model.name": "masked_lm",
        "model.bert": f"{{folder: {world.folder / 'vocab'}, init: random}}",
        "model.size": "{dim: 8, layers: 1, heads: 1, feed_forward: 8, positions: 8}",
        "loop.max_updates": 1,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    folders = ["--train", train or lines, "--dev", dev or lines, "--exp", world.folder / "exp"]
    return ["train", *folders, *(f"{key}={value}" for key, value in values.items())]


def test_a_text_set_for_a_model_of_speech(world, capsys):
    arguments = world.arguments(model__name="tiny")
    refused(capsys, ["train", *arguments], "texts: has no wav.scp; model tiny learns from speech")


def test_only_text_sets_for_a_model_that_needs_speech(world, capsys):
    arguments = [argument for argument in world.arguments() if argument != str(world.train)]
    refused(capsys, ["train", *arguments], "model tiny_text needs speech, and there are only text sets")


@pytest.mark.parametrize(
    "option, value",
    [
        ("augment__speeds", "[0.9, 1.0]"),
        ("plan__seconds", 30),
        ("features__bins", 40),
        ("plan__crop_seconds", 2),
    ],
)
def test_options_about_speech(world, capsys, option, value):
    name = option.replace("__", ".")
    refused(capsys, mlm(world, **{option: value}), f"{name}: about speech, and model masked_lm learns")


def test_text_beside_nothing(world, capsys):
    refused(capsys, mlm(world, plan__text__every=2), "plan.text.every: is for text beside speech")


def test_empty_and_unknown_sentences(world, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/text").write_bytes(b"")
    refused(capsys, mlm(world, tmp_path / "empty"), "empty/text: empty file")
    write_table(tmp_path / "blank/text", {"b1": "", "b2": ""})
    refused(
        capsys, mlm(world, tmp_path / "blank"), "2 of 2 utterances dropped", "no piece in BERT's vocabulary"
    )
    write_table(tmp_path / "other/text", {"o1": "ja sam", "o2": "some words"})
    refused(capsys, mlm(world, dev=tmp_path / "other"), "1 of 2 utterances cannot be used (o1: no piece")
    write_table(tmp_path / "long/text", {"o1": "some words " * 4, "o2": "some words"})
    refused(capsys, mlm(world, dev=tmp_path / "long"), "(o1: longer than BERT)")
    refused(capsys, mlm(world, plan__text__max_tokens=2), "longer than plan.text.max_tokens")
    refused(capsys, mlm(world, tmp_path / "nowhere"), "nowhere: no such directory")
    (tmp_path / "folder").mkdir()
    refused(capsys, mlm(world, tmp_path / "folder"), "folder")


def test_what_is_not_there(world, capsys, tmp_path):
    refused(capsys, mlm(world, model__bert="{init: random}"), "model.bert.folder: name a folder")
    missing = f"{{folder: {tmp_path / 'gone'}, init: random}}"
    refused(capsys, mlm(world, model__bert=missing), "gone")
    refused(capsys, mlm(world, model__groups=tmp_path / "g"), "g: no such file")
    (tmp_path / "groups").write_text("some few\n")
    refused(
        capsys,
        mlm(world, model__groups=tmp_path / "groups", validation__stop_at="{accuracy_group: 0.9}"),
        "validation.stop_at=accuracy_group is not measured",
        "accuracy_groups",
    )
    refused(capsys, mlm(world, plan__text__micro_batches=99), "has only 20 sentences")


def test_speech_and_text_have_no_ddp(world, capsys):
    arguments = world.arguments(loop__distributed="ddp")
    refused(capsys, ["train", *arguments], "loop.distributed=ddp: is not for speech and text in one run")
