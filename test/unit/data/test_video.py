"""Decoding of clips whose every picture is known."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import LOSSLESS, grey, make_clip, noise, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from speechkit.data import video, video_decoding
from speechkit.data.video import Limits, read_clip
from speechkit.errors import BadSample
from speechkit.frontends.patches import FrameConfig

SMALL = FrameConfig(6.0, 48)
CODECS = {
    "mpg": {"codec": "mpeg1video", "options": {"bf": "2", "g": "12", "b": "4000000"}},
    "mp4": {"codec": "libx264", "options": {"bf": "3", "b-pyramid": "normal", "crf": "12"}},
    "avi": {"codec": "mpeg4", "options": {"bf": "2", "b": "4000000"}},
    "mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mkv": LOSSLESS,
}


def shades(frames):
    """The number that `grey` gave the picture of each frame."""
    spread = frames.reshape(len(frames), -1).astype(int)
    assert np.ptp(spread, axis=1).max() <= 4
    return np.rint((spread.mean(1) - 8) / 3).astype(int).tolist()


def seen(count, fps, rate):
    """Which picture is seen in the middle of each frame's stretch of time, as `grey` tells it."""
    return [int((Fraction(i) + Fraction(1, 2)) / Fraction(fps) * Fraction(rate)) % 80 for i in range(count)]


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_are_those_seen_in_the_middle_of_their_stretch(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip.{suffix}", 3.0, **CODECS[suffix])
    clip = read_clip(str(path), SMALL)
    assert clip.frames.shape == (18, 48, 48, 3) and clip.frames.dtype == np.uint8 and clip.sound is None
    assert clip.seconds == pytest.approx(3.0, abs=1e-3)
    assert shades(clip.frames) == seen(18, 6, 25)


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_leaving_pictures_out_changes_no_other(tmp_path, monkeypatch, suffix):
    path = make_clip(tmp_path / f"clip.{suffix}", 2.0, picture=noise, **CODECS[suffix])
    quick, decode, counts = read_clip(str(path), SMALL).frames, video_decoding.decoded, []

    def everything(track, name, wanted=None):
        pictures = list(decode(track, name, wanted))
        counts.append(len(pictures))
        return list(decode(track, name, None))

    monkeypatch.setattr(video_decoding, "decoded", everything)
    np.testing.assert_array_equal(read_clip(str(path), SMALL).frames, quick)
    assert counts[0] < 50  # of 50 pictures


@pytest.mark.parametrize("rate", [1, 5, Fraction(25, 2), Fraction(30000, 1001), 50])
def test_any_rate_of_pictures(tmp_path, rate):
    path = make_clip(tmp_path / "clip.mkv", 4.0, rate, **LOSSLESS)
    clip = read_clip(str(path), SMALL)
    assert len(clip.frames) == 24 and clip.seconds == pytest.approx(round(4 * rate) / rate, abs=2e-3)
    assert shades(clip.frames) == seen(24, 6, rate)
    slow = read_clip(str(path), FrameConfig(2.4, 48))
    assert shades(slow.frames) == seen(10, Fraction(12, 5), rate)


def test_uneven_pictures(tmp_path):
    times = [0, 40, 500, 520, 1400, 2000, 2040]
    path = make_clip(tmp_path / "clip.mkv", times=times, **LOSSLESS)
    clip = read_clip(str(path), SMALL)
    middles = [(i + 0.5) / 6 * 1000 for i in range(len(clip.frames))]
    assert shades(clip.frames) == [max(k for k, t in enumerate(times) if t <= m) for m in middles]
    assert 2.04 < clip.seconds < 2.6


def test_a_clip_that_does_not_begin_at_zero(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", times=[5000 + 40 * i for i in range(50)], **LOSSLESS)
    assert shades(read_clip(str(path), SMALL).frames) == seen(12, 6, 25)


@settings(max_examples=60, deadline=None)
@given(
    starts=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    last=st.integers(1, 400),
    fps=st.floats(0.5, 40),
)
def test_frames_are_chosen_like_brute_force(starts, last, fps):
    starts = np.cumsum([0, *starts[:-1]]) / 100
    timeline = video_decoding.Timeline(starts, float(starts[-1]) + last / 100, None)
    count = int(timeline.seconds * fps + 0.5)
    if count < 1:
        with pytest.raises(BadSample, match="too short"):
            video._choose(timeline, fps, "x", Limits())
        return
    chosen = video._choose(timeline, fps, "x", Limits())
    assert len(chosen) == count
    for place, picture in enumerate(chosen):
        middle = (place + 0.5) / fps
        assert starts[picture] <= middle + 2e-9
        assert picture == len(starts) - 1 or starts[picture + 1] > middle


def columns(number, height, width):
    """A picture whose red tells the column and whose green tells the row."""
    row, column = np.mgrid[:height, :width]
    return np.stack([column % 256, row % 256, np.full_like(row, 7 * number)], -1).astype(np.uint8)


@pytest.mark.parametrize("size", [(48, 97), (80, 48), (48, 48)])
def test_the_middle_is_kept(tmp_path, size):
    path = make_clip(tmp_path / "clip.mkv", 0.5, size=size, picture=columns, **LOSSLESS)
    frames = read_clip(str(path), SMALL).frames
    top, left = (size[0] - 48) // 2, (size[1] - 48) // 2
    wanted = [columns(n, *size)[top : top + 48, left : left + 48] for n in seen(3, 6, 25)]
    np.testing.assert_array_equal(frames, wanted)


@pytest.mark.parametrize("size, kept", [((96, 200), 24), ((30, 26), 52)])
def test_the_short_side_is_scaled(tmp_path, size, kept):
    path = make_clip(tmp_path / "clip.mkv", 0.5, size=size, picture=columns, **LOSSLESS)
    frame = read_clip(str(path), FrameConfig(6.0, kept)).frames[0].astype(float)
    step = min(size) / kept
    middle = (np.arange(kept) + 0.5 - kept / 2) * step
    inner = slice(3, -3)
    np.testing.assert_allclose(
        frame[kept // 2, inner, 0], (size[1] / 2 + middle - 0.5)[inner], atol=step / 2 + 1
    )
    np.testing.assert_allclose(
        frame[inner, kept // 2, 1], (size[0] / 2 + middle - 0.5)[inner], atol=step / 2 + 1
    )


def test_turned_pictures_are_turned_back(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 0.5, size=(48, 64), picture=columns, rotation=90, codec="mpeg4")
    with av.open(str(path)) as container:
        turn = next(container.decode(video=0)).rotation
    assert abs(turn) == 90
    frame = read_clip(str(path), SMALL).frames[0].astype(int)
    along = frame[:, 24, 0]  # red told the column: now it tells the row
    assert (np.diff(along[4:-4:8]) > 0).all() == (turn < 0) and np.ptp(frame[24, 4:-4, 0]) < 24


@pytest.mark.parametrize(
    "suffix, options",
    [
        ("mkv", {}),
        ("mkv", {"channels": 2, "sound_rate": 44100}),
        ("mp4", {"sound_codec": "aac", "sound_rate": 48000, "channels": 2}),
        ("mpg", {"sound_codec": "mp2", "sound_rate": 44100, "channels": 2, "codec": "mpeg1video"}),
    ],
)
def test_sound_is_mixed_and_resampled(tmp_path, suffix, options):
    path = make_clip(tmp_path / f"clip.{suffix}", 2.0, sound=2.0, **options)
    clip = read_clip(str(path), SMALL, rate=16000)
    wanted = tone(2.0, 16000)
    assert clip.sound.dtype == np.float32 and abs(len(clip.sound) - 32000) <= 0.1 * 16000
    lags = range(-1200, 1201) if suffix != "mkv" else (0,)  # lossy codecs delay what they hear
    errors = [np.abs(clip.sound[4000 + lag : 16000 + lag] - wanted[4000:16000]).max() for lag in lags]
    assert min(errors) < (1e-3 if suffix == "mkv" else 0.03)


def test_grey_tells_its_number():
    assert shades(np.stack([grey(n, 4, 4) for n in (0, 5, 79, 85)])) == [0, 5, 79, 5]
