"""Bad input to UniSpeech: labels that are missing, too long or leaked, and batches that cannot be."""

from __future__ import annotations

import json

import pytest
from factories import write_table
from tiny_training import World, make_dump

from speechkit.bin.__main__ import main
from speechkit.train.checkpoint import checkpoints

OPTIONS = {
    "model__name": "unispeech",
    "model__encoder": "{name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, "
    "mask_embedding: true, subsampling: {factor: 2, channels: 4}}",
    "model__quantizer__entries": 10,
    "model__projection_dim": 16,
    "model__contrastive__negatives": 10,
    "plan__source_batches": "single",
    "loop__max_updates": 1,
}


@pytest.fixture
def world(tmp_path) -> World:
    """Labelled speech of Kyrgyz and Dutch, and Kyrgyz without labels."""
    world = World(tmp_path, utterances=4, dev=2)
    world.sets = {name: make_dump(tmp_path / name, 4, seed=i, prefix=name) for i, name in enumerate("knu")}
    for name, language in (("k", "ky"), ("n", "nl"), ("u", "ky")):
        write_table(world.sets[name] / "utt2lang", dict.fromkeys(rows(world.sets[name], "utt2spk"), language))
    (world.sets["u"] / "text").unlink()
    return world


def rows(folder, table):
    lines = (folder / table).read_text().splitlines()
    return dict(line.partition(" ")[::2] for line in lines)


def lengthen(folder, *places):
    """Texts that no alignment fits to the frames, for the utterances at these places."""
    texts = rows(folder, "text")
    write_table(folder / "text", texts | {sorted(texts)[i]: "three three seven " * 20 for i in places})
    return [sorted(texts)[i] for i in places]


def train(world, sets, **changes):
    """`speechkit train` on some of the sets; its exit status."""
    arguments = world.arguments(**{**OPTIONS, **changes})
    first = arguments.index(str(world.train))
    arguments[first : first + 1] = [str(world.sets[name]) for name in sets]
    return main(["train", *arguments])


def refused(capsys, world, sets, **changes):
    """The error of a run that left no checkpoint."""
    return refused_after(capsys, world, sets, **changes)[1]


def refused_after(capsys, world, sets, **changes):
    """What a run that left no checkpoint said, and its error."""
    capsys.readouterr()
    assert train(world, sets, **changes) == 1
    assert not checkpoints(world.folder / "exp")
    out, err = capsys.readouterr()
    return out, err.strip().splitlines()[-1]


def dropped_for(out):
    """Language -> utterances with more tokens than frames, as the summary of a ledger counts them."""
    told = [line.split() for line in out.splitlines()]
    return {words[4]: int(words[5]) for words in told if words[:4] == "more tokens than frames".split()}


@pytest.mark.parametrize("sets", ["kn", "knu"])
def test_labels_missing_for_some_utterances(world, capsys, sets):
    """A directory has labels for all of its utterances, or is one without labels."""
    texts = rows(world.sets["n"], "text")
    last = max(texts)
    del texts[last]
    write_table(world.sets["n"] / "text", texts)
    line = refused(capsys, world, sets)
    assert (
        f"{world.sets['n'] / 'text'}: utterance of utt2spk is missing: speechkit fix drops it ({last})"
        in line
    )


def test_empty_labels_are_counted_and_listed(world, capsys):
    first = min(rows(world.sets["k"], "text"))
    write_table(world.sets["k"] / "text", rows(world.sets["k"], "text") | {first: ""})
    line = refused(capsys, world, "knu")
    assert f"1 of 12 utterances dropped ({first}: no token in the vocabulary)" in line
    assert train(world, "knu", data__max_dropped=0.2) == 0


def test_labels_longer_than_the_frames_are_counted_and_listed_by_language(world, capsys):
    long = {name: lengthen(world.sets[name], *places) for name, places in (("k", [2]), ("n", [0, 3]))}
    counts = {"(ky)": 1, "(nl)": 2}
    out, line = refused_after(capsys, world, "knu")
    assert dropped_for(out) == counts
    assert f"3 of 12 utterances dropped ({long['k'][0]}: more tokens than frames (ky))" in line
    ledger = world.folder / "exp/ledger_train.jsonl"
    assert str(ledger) in line
    assert train(world, "knu", data__max_dropped=0.5) == 0
    assert dropped_for(capsys.readouterr().out) == counts
    fates = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len(fates) == 12
    assert {fate["utterance"]: fate["reason"] for fate in fates if not fate["kept"]} == {
        **dict.fromkeys(long["k"], "more tokens than frames (ky)"),
        **dict.fromkeys(long["n"], "more tokens than frames (nl)"),
    }
    assert all(
        "repeats" in fate["detail"] and "frames" in fate["detail"] for fate in fates if not fate["kept"]
    )


def test_labels_longer_than_the_frames_in_a_dev_set(world, capsys):
    lengthen(world.dev, 1)
    line = refused(capsys, world, "ku")
    assert "dev set" in line and "more tokens than frames" in line and "nothing may be dropped" in line


@pytest.mark.parametrize("flag", ["(en)", "(chr-US)", "(ky)(en)"])
def test_vocabularies_with_leaked_flags(tmp_path, capsys, flag):
    write_table(tmp_path / "ky/text", {"u1": "k i t", "u2": f"a {flag} t {flag}"})
    command = ["tokenizer", "--kind", "phone", "--text", tmp_path / "ky/text", "--out", tmp_path / "tokens"]
    assert main([*map(str, command)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"'{flag}' marks a change of language and is no phone" in line
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(
    "sets, changes, said",
    [
        ("ku", {"plan__source_batches": "mixed"}, "set plan.source_batches=single, or model.mix=mixed"),
        ("kn", {"plan__crop_seconds": "1"}, "crops are for pre-training; a transcript cannot be cut"),
        ("u", {}, "text: no such file, and it is needed"),
        ("ku", {"model__mix": "some"}, "'some' is not one of homogeneous, mixed"),
        ("ku", {"model__ctc_unmasked_pass": "maybe"}, "model.ctc_unmasked_pass"),
    ],
)
def test_settings_that_cannot_be(world, capsys, sets, changes, said):
    assert said in refused(capsys, world, sets, **changes)
