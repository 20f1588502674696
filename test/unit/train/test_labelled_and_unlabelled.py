"""Runs over directories with `text` and without: batches of one kind, checks of the labelled alone."""

from __future__ import annotations

import json
from copy import copy

import pytest
import torch
from factories import write_table
from tiny_training import World, make_dump, make_tokenizer, rows, weights

from speechkit.bin.__main__ import main
from speechkit.config import load_config
from speechkit.data.manifest import read_manifest
from speechkit.errors import InputError
from speechkit.text.tokenizer import load_tokenizer
from speechkit.train.distributed import Ranks
from speechkit.train.run import RunConfig
from speechkit.train.setup import load_assets, prepare

ENCODER = (
    "{name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, mask_embedding: true, "
    "subsampling: {factor: 2, channels: 4}}"
)
MODEL = {
    "model.name": "unispeech",
    "model.encoder": ENCODER,
    "model.quantizer.entries": 10,
    "model.projection_dim": 16,
    "model.contrastive.negatives": 10,
    "model.mask.length": 4,
    "model.alarm_after": 4,
    "plan.source_batches": "single",
    "plan.source_power": 0.5,
    "plan.micro_batches": 2,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    made.heard = make_dump(made.folder / "heard", 18, seed=3, prefix="u")
    (made.heard / "text").unlink()
    return made


def setup(world, train=None, exp="x", model=MODEL, **changes):
    values = [f"{key}={value}" for key, value in {**model, "plan.seconds": 2.5, **changes}.items()]
    folders = [train or [world.train, world.heard], [world.dev]]
    assets = load_assets(world.tokenizer, None)
    return prepare(load_config(RunConfig, None, values), world.folder / exp, Ranks(), assets, *folders)


def test_batches_are_all_labelled_or_have_no_tokens(world):
    train = setup(world).train
    kinds, seconds, counted = set(), {True: 0.0, False: 0.0}, 0
    for update in range(train.plan.updates(0)):
        for micro_batch in train.plan.row(update):
            batch = train.reader(micro_batch).batch
            heard = {utterance.startswith("u") for utterance in batch.ids}
            assert len(heard) == 1
            assert ("tokens" in batch) != heard.pop()
            assert "tokens" not in batch or int(batch["tokens"].lengths.min()) > 0
            kinds.add("tokens" in batch)
            seconds["tokens" in batch] += micro_batch.length
            counted += len(batch)
    assert kinds == {True, False} and counted == 30
    hours = [train.manifest.seconds[train.manifest.sources == source].sum() for source in (0, 1)]
    share = hours[0] ** 0.5 / (hours[0] ** 0.5 + hours[1] ** 0.5)
    assert seconds[True] / sum(seconds.values()) == pytest.approx(share, abs=0.04)


def test_mixed_batches_have_empty_rows_for_the_unlabelled(world):
    train = setup(world, exp="mixed", **{"plan.source_batches": "mixed", "model.mix": "mixed"}).train
    both, heard = 0, set()
    for update in range(train.plan.updates(0)):
        for micro_batch in train.plan.row(update):
            batch = train.reader(micro_batch).batch
            unlabelled = [utterance.startswith("u") for utterance in batch.ids]
            heard |= set(batch.ids)
            both += len(set(unlabelled)) == 2
            assert ("tokens" in batch) != all(unlabelled)
            if "tokens" in batch:
                assert (batch["tokens"].lengths == 0).tolist() == unlabelled
    assert both > 2 and len(heard) > 20


def test_the_checks_of_ctc_concern_the_labelled(world, tmp_path):
    """A labelled utterance with too many tokens is listed with its language; no unlabelled one is."""
    folders = [make_dump(tmp_path / name, 4, seed=i, prefix=name) for i, name in enumerate("ab")]
    (folders[1] / "text").unlink()
    for folder, language in zip(folders, ("ky", "nl")):
        ids = [line.split()[0] for line in (folder / "utt2spk").read_text().splitlines()]
        write_table(folder / "utt2lang", dict.fromkeys(ids, language))
    lines = dict(line.split(maxsplit=1) for line in (folders[0] / "text").read_text().splitlines())
    long = min(lines)
    write_table(folders[0] / "text", {**lines, long: "one two three " * 20})
    made = setup(world, folders, "long", **{"data.max_dropped": 0.5})
    fates = [json.loads(line) for line in (world.folder / "long/ledger_train.jsonl").read_text().splitlines()]
    assert len(fates) == 8 and len(made.train.manifest) == 7
    assert [(f["utterance"], f["reason"]) for f in fates if not f["kept"]] == [
        (long, "more tokens than frames (ky)")
    ]
    apart = setup(world, folders, "apart", **{"data.max_dropped": 0.5, "plan.sources": "languages"})
    assert len(apart.train.manifest) == 7


def test_languages_that_have_both_kinds_cannot_be_the_sources(world, tmp_path):
    folders = [make_dump(tmp_path / name, 4, seed=i, prefix=name) for i, name in enumerate("ab")]
    (folders[1] / "text").unlink()
    for folder in folders:
        ids = [line.split()[0] for line in (folder / "utt2spk").read_text().splitlines()]
        write_table(folder / "utt2lang", dict.fromkeys(ids, "nl"))
    with pytest.raises(InputError, match=r"b has no `text` and .*a has one; set plan\.sources=folders"):
        setup(world, folders, **{"plan.sources": "languages"})
    assert len(setup(world, folders).train.manifest) == 8


def test_what_cannot_be_used_is_refused(world, tmp_path):
    either = r"heard has no `text` and .*set plan\.source_batches=single, or model\.mix=mixed"
    with pytest.raises(InputError, match=either):
        setup(world, **{"plan.source_batches": "mixed"})
    with pytest.raises(InputError, match="heard/text: no such file, and it is needed"):
        setup(world, [world.heard])
    with pytest.raises(InputError, match="heard/text: no such file"):
        setup(world, model={"model.name": "tiny"})
    assert setup(world, **{"model.alpha": 0}).train.manifest.absent == {}


def test_absent_text_is_part_of_what_training_sees(world):
    tables = ("wav.scp", "text")
    both = read_manifest([world.train, world.heard], tables, partial=["text"])
    assert both.absent["text"].tolist() == [False] * 12 + [True] * 18
    assert both.tables["text"][29] == "" and both.select([0, 20]).absent["text"].tolist() == [False, True]
    whole = read_manifest([world.train], tables, partial=["text"])
    assert whole.absent == {} and whole.hash == read_manifest([world.train], tables).hash


def command(world, exp, **changes):
    """`speechkit train` over the directory without text too, where the model can use it."""
    option, folder, *rest = world.arguments(exp, **changes)
    more = [str(world.heard)] if changes["model__name"] == "unispeech" else []
    return main(["train", option, folder, *more, *rest])


def test_a_run_over_both_resumes_and_its_encoder_is_fine_tuned(world, capfd):
    """Fine-tuning has an output layer of its own tokens, frozen convolutions, and nothing of old heads."""
    options = {key.replace(".", "__"): value for key, value in MODEL.items()}
    options["schedule__name"] = "constant"
    assert command(world, "whole", **options) == 0
    assert command(world, "halves", **options, loop__max_updates=8) == 0
    assert command(world, "halves", **options) == 0
    a, b = (weights(world.folder / exp / "step_12") for exp in ("whole", "halves"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    trained, dev = rows(world.folder / "whole", "train"), rows(world.folder / "whole", "dev")
    assert {"loss_ctc", "loss_contrastive"} <= trained[0].keys()
    told = set().union(*trained)
    assert {
        "ctc_per_token",
        "code_perplexity",
        "code_perplexity_unlabelled",
        "bits",
        "bits_unlabelled",
    } <= told
    assert all({"wer", "cer", "blank_ratio"} <= row.keys() for row in dev)

    mixed = {**options, "plan__source_batches": "mixed", "model__mix": "mixed", "loop__max_updates": 4}
    assert command(world, "mixed", **mixed) == 0
    assert {"loss_ctc", "loss_contrastive", "bits", "bits_unlabelled"} <= rows(
        world.folder / "mixed", "train"
    )[0].keys()

    tuned = {"model__name": "ctc", "init__encoder": world.folder / "whole", "optim__lr": 0.01}
    frozen = "[{pattern: encoder.subsampling.*}]"
    other = copy(world)
    other.tokenizer = make_tokenizer(world.folder / "letters", ["the quick brown fox jumps over a lazy dog"])
    assert command(other, "tuned", **tuned, loop__max_updates=4, freeze=frozen) == 0, capfd.readouterr().err
    before, after = weights(world.folder / "whole/final"), weights(world.folder / "tuned/step_4")
    assert not any(name.startswith(("quantizer", "project_")) for name in after)
    assert torch.equal(
        before["encoder.subsampling.convs.0.weight"], after["encoder.subsampling.convs.0.weight"]
    )
    sizes = [len(load_tokenizer(folder).vocab) for folder in (world.tokenizer, other.tokenizer)]
    assert [len(found["head.weight"]) for found in (before, after)] == sizes and sizes[0] != sizes[1]
    assert {name for name in after if "head" in name} == {"head.weight", "head.bias"}
    moved = [name for name in after if "blocks.0" in name and not torch.equal(after[name], before[name])]
    assert len(moved) > 5


def test_contrastive_learning_goes_on_where_the_labelled_run_ended(world, capfd):
    """The sequential mode: a run on unlabelled speech alone takes over encoder, codebook and projections."""
    options = {key.replace(".", "__"): value for key, value in MODEL.items()}
    first = world.folder / "first"
    assert world.run("first", **{**options, "plan__source_batches": "mixed"}, loop__max_updates=4) == 0
    kept = ("quantizer.", "project_q.", "project_hid.")
    params = ",".join(f"'{first}/final:{prefix}:{prefix}'" for prefix in kept)
    second = {**options, "model__alpha": 0, "init__encoder": first, "init__params": f"[{params}]"}
    second |= {"optim__lr": 1e-9, "loop__max_updates": 2}
    arguments = world.arguments("second", **second)
    arguments[arguments.index(str(world.train))] = str(world.heard)
    arguments = [a for a in arguments if a not in ("--tokenizer", str(world.tokenizer))]
    assert main(["train", *arguments]) == 0, capfd.readouterr().err
    before, after = weights(first / "final"), weights(world.folder / "second/final")
    assert set(before) - set(after) == {"head.weight", "head.bias"} and set(after) < set(before)
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6, msg=name)
    told = set().union(*rows(world.folder / "second", "train"))
    assert "loss_contrastive" in told and not any("ctc" in name for name in told)
