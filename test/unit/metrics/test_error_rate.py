"""Error rates against hand-worked values and a brute-force edit distance."""

import functools
import random

import pytest

from speechkit.errors import InputError
from speechkit.metrics.alignment import GAP, align, operation, shown
from speechkit.metrics.error_rate import (
    Counts,
    add_classes,
    by_speaker,
    cer,
    check_ids,
    confusions,
    count,
    score,
    total,
    wer,
)


def edit_distance(a, b):
    """The definition, by recursion."""

    @functools.lru_cache(None)
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        )

    return distance(len(a), len(b))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", Counts(3, 0, 0, 0)),
        ("the cat sat", "the sat", Counts(3, 0, 1, 0)),
        ("the cat sat", "the cat sat down", Counts(3, 1, 0, 0)),
        ("the cat sat", "the bat sat", Counts(3, 0, 0, 1)),
        ("the cat sat", "", Counts(3, 0, 3, 0)),
        ("", "oh well", Counts(0, 2, 0, 0)),
        ("a b c d", "x a b d", Counts(4, 1, 1, 0)),
        ("x y", "y x", Counts(2, 1, 1, 0)),
    ],
)
def test_counts_by_hand(reference, hypothesis, expected):
    assert wer([reference], [hypothesis]) == expected


def test_errors_are_the_edit_distance_and_pairs_spell_both_texts():
    rng = random.Random(5)
    for _ in range(400):
        reference, hypothesis = ([rng.choice("abc") for _ in range(rng.randint(0, 9))] for _ in range(2))
        pairs = align(reference, hypothesis)
        assert [r for r, _ in pairs if r != GAP] == reference
        assert [h for _, h in pairs if h != GAP] == hypothesis
        assert (GAP, GAP) not in pairs
        assert count(pairs).errors == edit_distance(tuple(reference), tuple(hypothesis))


def test_corpus_rate_is_not_the_mean_of_rates():
    counts = wer(["a b c d e f g h", "x"], ["a b c d e f g h", "y"])
    assert counts.rate == pytest.approx(100 / 9)


def test_kaldi_line():
    assert Counts(508, 4, 3, 16).line() == "4.53 [ 23 / 508, 4 ins, 3 del, 16 sub ]"
    assert Counts.from_dict(Counts(508, 4, 3, 16).as_dict()) == Counts(508, 4, 3, 16)


def test_character_errors_with_and_without_spaces():
    assert cer(["ab cd"], ["abcd"]) == Counts(5, 0, 1, 0)
    assert cer(["ab cd"], ["abcd"], spaces=False) == Counts(4, 0, 0, 0)
    assert cer(["नमस्ते"], ["नमसते"]) == Counts(6, 0, 1, 0)


def test_nothing_to_divide_by():
    with pytest.raises(InputError, match="no reference words"):
        wer([""], ["a"]).rate  # noqa: B018


def test_shown_alignment_lines_up():
    text = shown(align("the cat sat".split(), "the bat sat down".split()))
    assert text == "REF:  the cat sat ****\nHYP:  the bat sat down\nEVAL:     S       I"


def test_shown_alignment_counts_columns_not_code_points():
    lines = shown([("漢字", "x"), ("e\u0301a", "b"), ("c", "c")]).split("\n")
    assert lines[1] == "HYP:  x    b  c" and lines[0] == "REF:  漢字 e\u0301a c"


REFERENCES = {"s1_a": "the knight rode", "s1_b": "two weeks", "s2_a": "flour"}
HYPOTHESES = {"s1_a": "the night rode off", "s1_b": "weeks", "s2_a": "flower"}
SPEAKERS = {"s1_a": "s1", "s1_b": "s1", "s2_a": "s2"}
TAGS = {"s1_a": "- far,seen other,seen", "s1_b": "near,unseen other,seen", "s2_a": "far,unseen"}


def test_a_whole_set():
    scores = score(REFERENCES, HYPOTHESES, SPEAKERS, TAGS)
    assert total(scores) == Counts(6, 1, 1, 2)
    classes = add_classes(scores)
    assert classes == {
        "far": {"words": 2, "errors": 2},
        "far,seen": {"words": 1, "errors": 1},
        "far,unseen": {"words": 1, "errors": 1},
        "near": {"words": 1, "errors": 1},
        "near,unseen": {"words": 1, "errors": 1},
        "other": {"words": 2, "errors": 0},
        "other,seen": {"words": 2, "errors": 0},
        "seen": {"words": 3, "errors": 1},
        "unseen": {"words": 2, "errors": 2},
    }
    speakers = by_speaker(scores)
    assert list(speakers) == ["s1", "s2"] and total(speakers["s1"]) == Counts(5, 1, 1, 1)
    found = confusions(scores)
    assert found["substitution"] == {("knight", "night"): 1, ("flour", "flower"): 1}
    assert found["deletion"] == {("two", ""): 1} and found["insertion"] == {("", "off"): 1}


def test_inserted_words_belong_to_no_class():
    scores = score({"u": "a"}, {"u": "x a y"}, tags={"u": "far"})
    assert add_classes(scores) == {"far": {"words": 1, "errors": 0}} and total(scores).insertions == 2


def test_ids_must_be_equal():
    check_ids(["a", "b"], ["b", "a"])
    with pytest.raises(InputError, match=r"1 missing \(a\); 2 unknown \(c, d\)"):
        check_ids(["a", "b"], ["b", "c", "d"])


def test_operations():
    assert [operation(*p) for p in (("a", "a"), ("a", "b"), ("a", ""), ("", "a"))] == list("CSDI")
