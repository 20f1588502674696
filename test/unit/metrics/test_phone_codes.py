"""Codewords against phones: the numbers on codes whose truth is known, and which phone a frame hears."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechkit.errors import InputError
from speechkit.metrics.phone_codes import PhoneCodes, draw_phone_codes, measure, phones_of_frames

NAMES = ["sil", "a", "b", "c"]
SPEECH = (0, 320, 400)  # first sample, shift and window of the encoder of samples


def counted(phones, codes):
    found = PhoneCodes()
    for part in np.array_split(np.arange(len(phones)), 3):  # as utterances come
        found.add(np.asarray(phones)[part], np.asarray(codes)[part])
    return found


def test_one_code_for_each_phone():
    phones = np.random.default_rng(0).integers(0, 4, 500)
    table = counted(phones, 70000 + 3 * phones).table(NAMES)
    found = measure(table, 102400)
    assert found["active"] == 4 and found["codewords"] == 102400 and found["seen_once"] == 0
    assert found["entropy"] == found["entropy_weighted"] == found["entropy_often"] == 0
    assert found["phone_purity"] == 1 and found["pnmi"] == pytest.approx(1)
    assert [phone["codewords"] for phone in found["phones"].values()] == [1, 1, 1, 1]


def test_codes_that_know_nothing():
    phones, codes = (grid.ravel() for grid in np.meshgrid(np.arange(4), np.arange(6)))
    found = measure(counted(np.tile(phones, 5), np.tile(codes, 5)).table(NAMES), 6)
    assert found["active"] == found["active_often"] == 6
    for name in ("entropy", "entropy_weighted", "entropy_often"):
        assert found[name] == pytest.approx(math.log(4)) and found[f"{name}_bits"] == pytest.approx(2)
    assert found["pnmi"] == pytest.approx(0, abs=1e-9)


def test_means_over_codes_over_frames_and_over_frequent_codes():
    """Code 7: 6 frames of a, 6 of b; code 8: a, a, c; code 9: one frame."""
    phones = [1] * 6 + [2] * 6 + [1, 1, 3] + [0]
    codes = [7] * 12 + [8] * 3 + [9]
    found = measure(counted(phones, codes).table(NAMES), 100)
    third = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert found["entropy"] == pytest.approx((math.log(2) + third + 0) / 3)
    assert found["entropy_weighted"] == pytest.approx((12 * math.log(2) + 3 * third) / 16)
    assert found["entropy_often"] == pytest.approx(math.log(2)) and found["active_often"] == 1
    assert found["seen_once"] == 1
    assert found["phones"]["a"] == {"frames": 8, "codewords": 2}


def test_no_code_is_seen_often():
    found = measure(counted([0, 1], [5, 6]).table(NAMES), 100)
    assert found["entropy_often"] is None and found["entropy_often_bits"] is None
    assert found["entropy"] == 0 and found["active_often"] == 0


def test_frames_without_a_phone_are_counted_apart():
    found = counted([-1, 0, 0, -1], [1, 1, 2, 3])
    assert (found.frames, found.without) == (2, 2)
    assert found.table(NAMES).codes.tolist() == [1, 2]
    with pytest.raises(InputError, match="not one frame with a phone"):
        counted([-1], [1]).table(NAMES)


def test_the_picture_is_ordered_by_likeliest_phone(tmp_path):
    """Frequencies: b 11, a 9, sil 5; codeword 4 has 4 frames and is left out of the picture alone."""
    phones = [1] * 3 + [2] * 3 + [2] * 5 + [0] * 5 + [1] * 4 + [2] * 3 + [1] * 2
    codes = [1] * 6 + [2] * 5 + [3] * 5 + [4] * 4 + [5] * 5
    table = counted(phones, codes).table(NAMES)
    assert table.phones == ["b", "a", "sil"] and table.codes.tolist() == [1, 2, 3, 4, 5]
    shares, best = table.picture()
    assert best.tolist() == [0, 0, 0, 2]  # 2 (all b), 5 (3 of 5), 1 (a tie: the more frequent phone), 3
    np.testing.assert_allclose(shares, [[1, 0.6, 0.5, 0], [0, 0.4, 0.5, 0], [0, 0, 0, 1]])
    assert draw_phone_codes(table, "codes", tmp_path / "x.png") == 4
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "x.png").read_bytes()
    assert draw_phone_codes(table, "codes", tmp_path / "x.png") == 4
    assert (tmp_path / "x.png").read_bytes() == first
    assert draw_phone_codes(table, "codes", tmp_path / "y.png", least=50) == 0


def test_a_frame_that_straddles_a_boundary():
    """Frame t covers samples 320 t to 320 t + 400."""
    starts, ends, phones = np.array([0, 500, 890]), np.array([500, 890, 1100]), np.array([4, 5, 6])
    # 0-400: all 4; 320-720: 180 of 4, 220 of 5; 640-1040: 250 of 5, 150 of 6; 960-1360: 140 of 6; then none
    assert phones_of_frames(starts, ends, phones, *SPEECH, 5).tolist() == [4, 5, 5, 6, -1]
    moved = phones_of_frames(np.array([0, 520, 890]), np.array([520, 890, 1100]), phones, *SPEECH, 2)
    assert moved.tolist() == [4, 4]  # 200 of each: the earlier one


def test_pieces_of_a_phone_in_one_window_count_together():
    starts, ends, phones = np.array([0, 130, 290]), np.array([130, 290, 900]), np.array([1, 2, 1])
    assert phones_of_frames(starts, ends, phones, *SPEECH, 1).tolist() == [1]  # 240 of 1 and 160 of 2


def test_windows_of_feature_frames_may_begin_before_the_audio():
    starts, ends, phones = np.array([0, 300]), np.array([300, 900]), np.array([1, 2])
    assert phones_of_frames(starts, ends, phones, -120.0, 160, 400, 3).tolist() == [1, 1, 2]


@st.composite
def made_up(draw):
    edges = np.cumsum(draw(st.lists(st.integers(1, 700), min_size=2, max_size=12)))
    kept = draw(st.lists(st.booleans(), min_size=len(edges) - 1, max_size=len(edges) - 1))
    rows = [(edges[i], edges[i + 1], draw(st.integers(0, 3))) for i in range(len(kept)) if kept[i]]
    return np.array(rows, np.int64).reshape(-1, 3), draw(st.integers(0, 20))


@settings(max_examples=60, deadline=None)
@given(made_up())
def test_the_phone_is_that_of_most_samples(made):
    rows, frames = made
    found = phones_of_frames(rows[:, 0], rows[:, 1], rows[:, 2], *SPEECH, frames)
    assert found.shape == (frames,)
    for frame, phone in enumerate(found.tolist()):
        samples = range(320 * frame, 320 * frame + 400)
        shares = dict.fromkeys(rows[:, 2].tolist(), 0)
        for start, end, heard in rows.tolist():
            shares[heard] += max(0, min(end, samples.stop) - max(start, samples.start))
        most = max(shares.values(), default=0)
        assert (phone == -1) if most == 0 else shares[phone] == most
