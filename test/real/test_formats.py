"""Every kind of file that people keep speech in, as published: loading, and `speechkit format`."""

from __future__ import annotations

import numpy as np
import pytest

from speechkit.data.audio import audio_info, read_audio, resampled_length
from speechkit.data.kaldi_dir import read_data_dir

CORPORA = ["english_misc", "multilingual_misc"]
FORMATS = {".wav": "wav", ".flac": "flac", ".mp3": "mp3", ".opus": "ogg", ".sph": "sphere", ".raw": "raw"}
MP3_FRAME = 1152  # samples (ISO 11172-3): manifests hold estimates by file size, decoding gives whole frames
QUANTUM = 1 / 32768


def entry(one):
    """What wav.scp says of a file; headerless ones are 16-bit little-endian at the manifest's rate."""
    return f"{one.path}#s16le,{one.rate},1" if one.path.suffix == ".raw" else str(one.path)


@pytest.mark.parametrize("name", CORPORA)
def test_every_file_is_read_with_its_rate_and_length(corpus, name):
    for one in corpus(name):
        info = audio_info(entry(one), utterance=one.id)
        assert (info.format, info.rate, info.channels) == (FORMATS[one.path.suffix], one.rate, 1), one.id
        tolerance = MP3_FRAME if info.format == "mp3" else 0.0005 * info.rate + 1e-6  # three decimals
        assert abs(info.samples - one.seconds * info.rate) <= tolerance, one.id
        heard = read_audio(entry(one), rate=None, utterance=one.id)
        assert heard.shape == (info.samples,) and heard.dtype == np.float32, one.id
        assert 0.02 < np.abs(heard).max() <= 1 and abs(heard.mean()) < 0.02, one.id  # sound, not noise


def test_one_recording_in_three_containers_is_the_same(corpus):
    heard = [read_audio(entry(one), rate=None) for one in corpus("english_misc") if one.split == "format"]
    assert len(heard) == 3
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_array_equal(heard[0], heard[2])


@pytest.mark.parametrize("form", ["flac", "ark"])
@pytest.mark.parametrize("name", CORPORA)
def test_every_file_is_formatted(corpus, data_dir, speechkit, tmp_path, name, form):
    every = {one.id: one for one in corpus(name)}
    spoken = [one for one in every.values() if one.transcript]
    others = [one for one in every.values() if not one.transcript]
    for label, part in (("spoken", spoken), ("others", others)):
        if not part:
            continue
        source = data_dir(part, label, {one.id: entry(one) for one in part})
        speechkit("validate", source, "--read-audio", "true", "--no-text", "true")
        out = tmp_path / "dump" / label
        speechkit("format", "--data", source, "--out", out, "--kind", "evaluation", "--format", form)
        made = read_data_dir(out)
        assert made.utterances == sorted(one.id for one in part)
        assert made.text == {one.id: one.transcript for one in part if one.transcript}
        for utterance in made.utterances:
            one, samples = every[utterance], int(made.tables["utt2num_samples"][utterance])
            info = audio_info(made.wav[utterance])
            assert (info.rate, info.channels, info.samples) == (16000, 1, samples), utterance
            before = audio_info(entry(one)).samples
            assert samples == resampled_length(before, one.rate, 16000), utterance
            wanted = read_audio(entry(one), rate=16000).clip(-1, 1)
            assert np.abs(read_audio(made.wav[utterance]) - wanted).max() <= QUANTUM, utterance
