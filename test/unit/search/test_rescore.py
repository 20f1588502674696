"""N-best lists in another order: the formula, its two ends, and hypotheses that read alike."""

import math
from dataclasses import replace

import pytest

from speechkit.config import load_config
from speechkit.errors import ProblemsError
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.rescore import RescoreConfig, Scored, merge, rescore


def hypothesis(text, ctc, lm=0.0, tokens=()):
    return Hypothesis(list(tokens), text.split(), ctc + lm, ctc, lm)


# By CTC: a, b, c, d. By the beam: b, a, c, d. By PLL: d, a, c, b. By PLL a piece: c, a, d, b.
NBEST = [
    Scored(hypothesis("b", -2.0, 3.0), -9.0, 2),
    Scored(hypothesis("a", -1.0, 0.5), -6.0, 4),
    Scored(hypothesis("c", -3.0, 0.0), -7.0, 8),
    Scored(hypothesis("d", -9.0, -1.0), -5.0, 3),
]


def order(**options):
    return "".join(found.words[0] for found in rescore(NBEST, RescoreConfig(**options)))


def test_both_ends_of_the_weight():
    assert order(bert_weight=0.0) == "abcd"
    assert order(bert_weight=0.0, first_score="beam") == "bacd"
    assert order(bert_weight=1.0) == order(bert_weight=1.0, first_score="beam") == "dacb"
    assert order(bert_weight=1.0, len_norm="length") == "cadb"


@pytest.mark.parametrize("first_score", ["ctc", "beam"])
@pytest.mark.parametrize("len_norm", ["none", "length", "gnmt"])
@pytest.mark.parametrize("weight", [0.0, 0.35, 1.0])
def test_every_score_is_the_formulas(first_score, len_norm, weight):
    config = RescoreConfig(bert_weight=weight, len_norm=len_norm, gnmt_alpha=0.9, first_score=first_score)
    expected = {}
    for one, pll, pieces in NBEST:
        lp = {"none": 1, "length": pieces, "gnmt": (5 + pieces) ** 0.9 / (5 + 1) ** 0.9}[len_norm]
        first = one.ctc + (one.lm if first_score == "beam" else 0)
        expected[one.words[0]] = (1 - weight) * first + weight * pll / lp
    found = rescore(NBEST, config)
    assert {one.words[0]: one.score for one in found} == pytest.approx(expected)
    assert [one.score for one in found] == pytest.approx(sorted(expected.values(), reverse=True))
    for one in found:
        before = next(s for s in NBEST if s.hypothesis.words == one.words)
        assert one == replace(before.hypothesis, score=one.score, pll=before.log_prob)


def test_equal_scores_keep_the_first_passes_order():
    equal = [Scored(hypothesis(name, -2.0), -3.0, 2) for name in "xzy"]
    assert [found.words[0] for found in rescore(equal, RescoreConfig())] == ["x", "z", "y"]


def test_empty_lists_and_hypotheses():
    assert rescore([], RescoreConfig()) == []
    for len_norm in ("none", "length", "gnmt"):
        (found,) = rescore([Scored(hypothesis("", -4.0), 0.0, 0)], RescoreConfig(len_norm=len_norm))
        assert found.score == -2.0 and found.words == []


def test_hypotheses_that_read_alike_are_one_with_the_sum_of_their_probabilities():
    nbest = [
        hypothesis("x", math.log(0.3), 0.1, (1,)),
        hypothesis("y", math.log(0.25), 0.1, (2,)),
        hypothesis("z", math.log(0.2), 0.1, (3,)),
        hypothesis("y", math.log(0.15), 0.0, (2, 4)),
    ]
    merged = merge(nbest, ["x", "y y", "z", "y y"])
    assert [found.words for found in merged] == [["y", "y"], ["x"], ["z"]]
    assert merged[0].ctc == pytest.approx(math.log(0.4)) and merged[0].tokens == [2]
    assert merged[0].lm == 0.1 and merged[0].score == pytest.approx(math.log(0.4) + 0.1)
    assert merge([], []) == []


@pytest.mark.parametrize(
    "wrong", ["bert_weight=1.1", "bert_weight=-0.1", "gnmt_alpha=-1.0", "len_norm=words"]
)
def test_options_out_of_range_are_named(wrong, tmp_path):
    (tmp_path / "c.yaml").write_text("")
    with pytest.raises(ProblemsError, match=wrong.split("=")[0]):
        load_config(RescoreConfig, tmp_path / "c.yaml", [wrong])
