"""Feasibility against brute force, ledgers, and rows that are cut back."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from speechkit.data.ledger import Ledger
from speechkit.data.manifest import Ragged, read_manifest
from speechkit.data.plan import Config as PlanConfig
from speechkit.errors import BadSample
from speechkit.train.log import append_row, cut_rows, cut_samples
from speechkit.train.usable import choose, repeats, too_many_tokens


def aligned(frames: int, target: tuple[int, ...]) -> bool:
    """Whether any path of `frames` symbols (0 is the blank) collapses to the target: tries them all."""
    for path in itertools.product(range(3), repeat=frames):
        collapsed = tuple(s for i, s in enumerate(path) if s and (i == 0 or path[i - 1] != s))
        if collapsed == target:
            return True
    return False


def test_too_many_tokens_is_what_no_path_reaches():
    targets = [t for n in range(4) for t in itertools.product((1, 2), repeat=n)]
    tokens = Ragged.of(targets)
    assert repeats(tokens).tolist() == [sum(a == b for a, b in zip(t, t[1:])) for t in targets]
    for frames in range(6):
        blocked = too_many_tokens(tokens, np.full(len(targets), frames))
        assert blocked.tolist() == [not aligned(frames, t) for t in targets]


def test_empty_targets_at_the_ends_do_not_shift_the_count():
    assert repeats(Ragged.of([[], [1, 1], [], [1, 2], [2], []])).tolist() == [0, 1, 0, 0, 0, 0]
    assert repeats(Ragged.of([[], []])).tolist() == [0, 0]


def test_every_utterance_has_one_fate_with_its_reason(tmp_path):
    from tiny_training import make_dump

    folder = make_dump(tmp_path / "d", 5, seconds=[0.2, 0.6, 0.7, 0.8, 3.0])
    manifest = read_manifest([folder], ["wav.scp", "text"])
    lengths = dict(zip([manifest.ids[i] for i in range(5)], manifest.seconds.tolist()))
    tokens = Ragged.of([[2], [2, 2, 2], [2, 3], [4], [5]])
    frames = np.array([50, 4, 50, 50, 50])
    ledger = Ledger("train set", "train", 0.9)
    limits = PlanConfig(min_seconds=0.3, max_seconds=2.0)
    kept = choose(
        manifest, ledger, limits, tokens, {3: BadSample("x", "no token in the vocabulary", "why")}, frames
    )
    reasons = {fate.utterance: fate.reason for fate in ledger.fates}
    for i in range(5):
        name, seconds = manifest.ids[i], lengths[manifest.ids[i]]
        expected = "shorter than plan.min_seconds" if seconds < 0.3 else ""
        expected = "longer than plan.max_seconds" if seconds > 2 else expected
        expected = "no token in the vocabulary" if i == 3 else expected
        expected = expected or ("more tokens than frames" if i == 1 else "")
        assert reasons[name] == expected
        assert (i in kept) == (not expected)
    ledger.check([manifest.ids[i] for i in range(5)])
    detail = next(fate.detail for fate in ledger.fates if fate.reason == "more tokens than frames")
    assert detail == "3 tokens, 2 repeats, 4 frames"


def test_only_training_utterances_have_a_largest_number_of_tokens(tmp_path):
    from tiny_training import make_dump

    manifest = read_manifest([make_dump(tmp_path / "d", 3, seconds=[0.6, 0.7, 0.8])], ["wav.scp", "text"])
    tokens = Ragged.of([[2] * 512, [2] * 513, [3]])
    for limits, dropped in ((PlanConfig(max_tokens=512), [1]), (PlanConfig(), []), (None, [])):
        ledger = Ledger("train set", "train", 0.9)
        kept = choose(manifest, ledger, limits, tokens)
        assert sorted({0, 1, 2} - {*kept.tolist()}) == dropped
        reasons = [(fate.utterance, fate.reason, fate.detail) for fate in ledger.dropped]
        assert reasons == [
            (manifest.ids[i], "more tokens than plan.max_tokens", "513 tokens") for i in dropped
        ]


def test_rows_of_later_updates_and_half_lines_are_cut(tmp_path):
    path = tmp_path / "m.jsonl"
    cut_rows(path, 3)
    for update in (1, 2, 3, 4, 5):
        append_row(path, {"update": update, "text": "ž"})
    with open(path, "a") as file:
        file.write('{"update": 6, "te')
    cut_rows(path, 3)
    assert [json.loads(line)["update"] for line in path.read_text().splitlines()] == [1, 2, 3]
    before = path.stat().st_mtime_ns
    cut_rows(path, 3)
    assert path.stat().st_mtime_ns == before
    samples = tmp_path / "samples.txt"
    samples.write_text("== update 4 dev\na ref: x\na hyp: y\n== update 8 dev\na ref: x\na hyp: x\n")
    cut_samples(samples, 4)
    assert samples.read_text() == "== update 4 dev\na ref: x\na hyp: y\n"


@pytest.mark.parametrize("size", [1, 100_000])
def test_rows_of_many_writers_do_not_mix(tmp_path, size):
    from tiny_training import fork, wait

    path = tmp_path / "m.jsonl"

    def write():
        for update in range(20):
            append_row(path, {"update": update, "text": "x" * size})

    pids = [fork(write) for _ in range(3)]
    assert [wait(pid) for pid in pids] == [0, 0, 0]
    assert sorted(json.loads(line)["update"] for line in path.read_text().splitlines()) == sorted(
        list(range(20)) * 3
    )
