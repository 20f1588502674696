"""Purities and mutual information against hand-computed values and their own definition."""

import math

import numpy as np
import pytest

from speechkit.clustering.labels import Track, read_track
from speechkit.clustering.quality import at_labels, joint_quality, measure
from speechkit.errors import InputError


def track(rows, rate=100.0, offset=None, name="km.txt"):
    rows = {f"u{i}": [str(value) for value in row] for i, row in enumerate(rows)}
    return Track(name, rows, rate, 0.5 / rate if offset is None else offset)


def draws(count=4, length=5000, high=12, seed=0):
    return np.random.default_rng(seed).integers(0, high, (count, length)).tolist()


def test_identical_sequences_are_pure():
    found = measure(track(draws()), track(draws()))
    assert found.phone_purity == found.cluster_purity == 1
    assert found.pnmi == pytest.approx(1) and found.nmi == pytest.approx(1)
    assert (found.frames, found.difference, found.utterances, found.phones) == (20000, 0, 4, 12)


def test_independent_sequences_share_nothing():
    found = measure(track(draws(seed=1)), track(draws(seed=2)))
    assert 0 <= found.pnmi < 5e-3 and found.phone_purity < 0.12


def test_names_of_clusters_do_not_matter():
    phones, labels = draws(seed=3, high=5), draws(seed=4, high=9)
    for row, other in zip(labels, phones):
        row[::3] = other[::3]
    renamed = np.random.default_rng(5).permutation(9)
    one = measure(track(labels), track(phones))
    other = measure(track([renamed[row] for row in labels]), track(phones))
    assert vars(one) == pytest.approx(vars(other)) and 0.1 < one.pnmi < 0.2


def test_hand_computed():
    """Phones a a a b, labels 0 0 1 1: p(a,0) = 1/2, p(a,1) = p(b,1) = 1/4."""
    found = joint_quality(np.array([[2, 1], [0, 1]]))
    phones, labels = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), math.log(2)
    joint = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25))
    assert found["phone_purity"] == pytest.approx(0.75) and found["cluster_purity"] == pytest.approx(0.75)
    assert found["phone_entropy"] == pytest.approx(phones)
    assert found["label_entropy"] == pytest.approx(labels)
    assert found["pnmi"] == pytest.approx((phones + labels - joint) / phones)
    assert found["nmi"] == pytest.approx((phones + labels - joint) / ((phones + labels) / 2))


def test_one_phone_has_no_information():
    assert joint_quality(np.array([[3, 4]]))["pnmi"] == 0


def test_mean_segments_are_seconds():
    found = measure(track([[1, 1, 2, 2, 2, 2], [2, 2]], 50), track(["aaaabbbbcccc", "cccc"], 100))
    assert found.label_segment == pytest.approx(8 / 3 / 50)
    assert found.phone_segment == pytest.approx(16 / 4 / 100)


@pytest.mark.parametrize(
    "label_rate,offset,expected",
    [
        (100, 0.005, [0, 1, 2, 3]),
        (100, 0.0125, [1, 2, 3, 4]),  # MFCC: the middle of 25 ms
        (50, 0.0125, [1, 3, 5, 7]),  # 400 samples every 320
        (25, 0.0325, [3, 7]),
        (200, 0.0025, [0, 0, 1, 1]),
    ],
)
def test_phones_in_force_in_the_middle_of_labels(label_rate, offset, expected):
    assert at_labels(np.arange(9), 100, len(expected), label_rate, offset).tolist() == expected


def test_labels_beyond_the_last_phone_are_not_compared_but_counted():
    found = measure(track([[1] * 10]), track(["aaaaaaa"]))
    assert (found.frames, found.difference) == (7, 3)


def test_labels_of_another_rate_are_refused():
    labels, phones = track([[1] * 200, [1] * 40]), track(["a" * 100, "a" * 30])
    with pytest.raises(
        InputError, match=r"1 utterance\(s\) of another length.*u0 2.00 s and 1.00 s.*rate right"
    ):
        measure(labels, phones)


def test_utterances_that_one_has_alone_are_refused():
    with pytest.raises(InputError, match="no row for 1 of the utterances of km.txt: u1"):
        measure(track([[1], [2]]), track(["a"], name="phones.txt"))
    with pytest.raises(InputError, match="km.txt: no row for 1 of the utterances of phones.txt: u1"):
        measure(track([[1]]), track(["a", "b"], name="phones.txt"))


def test_reads_labels_with_the_rate_beside_them(tmp_path):
    (tmp_path / "km.txt").write_text("a 1 2 3\nb\n")
    with pytest.raises(InputError, match="km.json: no such file"):
        read_track(tmp_path / "km.txt")
    (tmp_path / "km.json").write_text('{"label_rate": 50, "offset": 0.0125}')
    found = read_track(tmp_path / "km.txt")
    assert found.rows == {"a": ["1", "2", "3"], "b": []} and (found.rate, found.offset) == (50, 0.0125)
    assert read_track(tmp_path / "km.txt", 25.0).offset == 0.02
