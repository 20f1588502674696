"""The ledger: one fate each, sums that match, ceilings."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechkit.data.ledger import Ledger, read_ledger
from speechkit.errors import InputError

fates = st.lists(
    st.tuples(st.booleans(), st.floats(0, 40_000), st.sampled_from(["too long", "silence", "no text"])),
    max_size=60,
)


@given(fates)
def test_hours_in_are_hours_kept_and_dropped_for_each_reason(rows):
    ledger = Ledger("s", max_dropped=1.0)
    for index, (kept, seconds, reason) in enumerate(rows):
        if kept:
            ledger.keep(f"u{index}", seconds)
        else:
            ledger.drop(f"u{index}", seconds, reason)
    ledger.check(f"u{index}" for index in range(len(rows)))
    table = [re.split(r"\s{2,}", line.strip()) for line in ledger.summary().split("\n")[1:]]
    counts = {row[0]: int(row[1]) for row in table}
    hours = {row[0]: float(row[2]) for row in table}
    reasons = counts.keys() - {"in", "kept", "dropped"}
    assert counts["in"] == len(rows) == counts["kept"] + counts["dropped"]
    assert counts["dropped"] == sum(counts[reason] for reason in reasons)
    assert hours["in"] == pytest.approx(sum(seconds for _, seconds, _ in rows) / 3600, abs=1e-6)
    assert hours["in"] == pytest.approx(hours["kept"] + hours["dropped"], abs=2e-6)  # printed digits
    assert hours["dropped"] == pytest.approx(sum(hours[reason] for reason in reasons), abs=4e-6)


def filled(kept: int, dropped: int, **options) -> Ledger:
    ledger = Ledger("format", **options)
    for index in range(kept):
        ledger.keep(f"k{index}", 1.0)
    for index in range(dropped):
        ledger.drop(f"d{index}", 1.0, "truncated audio", "3 of 9 bytes")
    return ledger


def test_two_fates_and_none_are_named():
    ledger = filled(2, 0)
    ledger.check(["k0", "k1"])
    with pytest.raises(InputError, match="1 utterance.s. with no fate: k2"):
        ledger.check(["k0", "k1", "k2"])
    with pytest.raises(InputError, match="without having come in: k1"):
        ledger.check(["k0"])
    ledger.drop("k0", 1.0, "again")
    with pytest.raises(InputError, match="more than one fate: k0"):
        ledger.check()


def test_the_ceiling_of_a_training_set_is_exact():
    filled(995, 5).check()
    with pytest.raises(InputError, match=r"6 of 1000 .*d0: truncated audio.* 0.0060 .* 0.005"):
        filled(994, 6).check()


def test_the_ceiling_counts_seconds_too():
    ledger = filled(999, 0)
    ledger.drop("long", 100.0, "too long")
    with pytest.raises(InputError, match="1 of 1000"):
        ledger.check()


def test_nothing_may_be_dropped_from_an_evaluation_set():
    filled(10, 0, kind="evaluation").check()
    with pytest.raises(InputError, match="nothing may be dropped"):
        filled(100_000, 1, kind="evaluation", max_dropped=1.0).check()


def test_written_ledgers_come_back(tmp_path):
    ledger = filled(3, 1)
    ledger.write(tmp_path / "ledger.jsonl")
    assert read_ledger(tmp_path / "ledger.jsonl") == ledger.fates
    (tmp_path / "ledger.jsonl").write_text('{"stage": "x"}\n')
    with pytest.raises(InputError, match="ledger.jsonl:1: not a line of a ledger"):
        read_ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read_ledger(tmp_path / "none")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        Ledger("x", kind="dev")
