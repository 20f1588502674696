"""Real clips: each decodes to the frames that its duration says, or is refused by name."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from speechkit.data.array_records import read_record
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.data.video import read_clip
from speechkit.errors import BadSample
from speechkit.frontends.patches import FrameConfig, patchify_video, unpatchify_video

CORPORA = ["grid_av", "video_general"]


def by_hand(path, fps, size):
    """Frames by decoding everything in order, pictures numbered and counted; seconds of the video."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        rate = stream.average_rate
        pictures = list(container.decode(stream))
    seconds = Fraction(len(pictures)) / rate
    chosen = [int((i + Fraction(1, 2)) / fps * rate) for i in range(int(seconds * fps + Fraction(1, 2)))]
    frames = []
    for number in chosen:
        picture = pictures[number]
        short = min(picture.width, picture.height)
        shape = (round(picture.width * size / short), round(picture.height * size / short))
        image = picture.reformat(*shape, "rgb24", interpolation="BILINEAR").to_ndarray()
        top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
        frames.append(image[top : top + size, left : left + size])
    return np.stack(frames), float(seconds)


@pytest.mark.parametrize("name", CORPORA)
def test_every_clip_has_the_frames_that_its_duration_says(corpus, name):
    """The pictures of all these clips come at an even rate, so that counting them is a second opinion."""
    for one in corpus(name):
        for config in (FrameConfig(), FrameConfig(25.0, 64)):
            try:
                clip = read_clip(str(one.path), config, utterance=one.id, rate=16000)
            except BadSample as error:
                assert error.utterance == one.id and error.reason
                continue
            frames, seconds = by_hand(one.path, Fraction(config.fps), config.size)
            assert clip.seconds == pytest.approx(seconds, abs=0.002), one.id
            assert len(clip.frames) == round(seconds * config.fps), one.id
            np.testing.assert_array_equal(clip.frames, frames, err_msg=one.id)
            assert abs(len(clip.sound) / 16000 - one.seconds) < 0.05, one.id
            assert 0.02 < np.abs(clip.sound).max() and clip.frames.std() > 20, one.id


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_becomes_frames_and_patches(corpus, tmp_path, speechkit, name):
    from clips import clip_dir

    every = {one.id: one.path for one in corpus(name)}
    source, out = clip_dir(tmp_path / "data", every), tmp_path / "dump"
    speechkit("video", "--data", source, "--out", out, "--audio", "true", "--kind", "evaluation")
    made = read_data_dir(out)
    assert made.utterances == sorted(every)
    for utterance in made.utterances:
        import torch

        frames = torch.from_numpy(read_record(made.tables["video_frames.scp"][utterance]))[None]
        slices = frames.shape[1] // 3
        patches = patchify_video(frames)
        assert patches.shape == (1, slices * 256, 2304), utterance
        assert torch.equal(unpatchify_video(patches, (slices, 16, 16)), frames[:, : slices * 3]), utterance
