"""Log-mel and MFCC against Kaldi's algorithm written again in numpy, from its published sources.

Sources: Kaldi's feat/feature-window.cc (framing, window), feat/mel-computations.cc (filters) and
feat/feature-mfcc.cc (cosine transform, lifter).
"""

import pickle
import threading

import numpy as np
import pytest
from factories import waveform

from speechkit.config import load_config
from speechkit.errors import InputError
from speechkit.frontends import fbank, mfcc


def kaldi_frames(samples, rate, snip=True, remove_dc=True, preemphasis=0.97):
    """Raw log energy (T,) and power spectrum (T, N/2) of 25 ms Povey windows every 10 ms."""
    window, shift = int(rate * 0.025), int(rate * 0.01)
    signal = samples.astype(np.float64) * 32768
    if snip:
        count = 0 if len(signal) < window else 1 + (len(signal) - window) // shift
        starts = [shift * t for t in range(count)]
    else:
        count = (len(signal) + shift // 2) // shift
        starts = [shift * t + shift // 2 - window // 2 for t in range(count)]
    fft = 1 << (window - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
    energies, powers = [], []
    for start in starts:
        places = np.arange(start, start + window)
        while ((places < 0) | (places >= len(signal))).any():  # mirrored at both ends
            places = np.where(places < 0, -places - 1, places)
            places = np.where(places >= len(signal), 2 * len(signal) - 1 - places, places)
        frame = signal[places]
        if remove_dc:
            frame = frame - frame.mean()
        energies.append(np.log(max(np.sum(frame**2), np.finfo(np.float32).eps)))
        frame = np.append(frame[:1] * (1 - preemphasis), frame[1:] - preemphasis * frame[:-1])
        spectrum = np.fft.rfft(frame * hann**0.85, fft)
        powers.append(np.abs(spectrum[: fft // 2]) ** 2)
    return np.array(energies), np.array(powers)


def mel_filters(bins, rate, fft_half, low=20.0, high=0.0):
    high = high if high > 0 else rate / 2 + high

    def mel(hertz):
        return 1127 * np.log(1 + np.asarray(hertz) / 700)

    edges = mel(low) + np.arange(bins + 2) * (mel(high) - mel(low)) / (bins + 1)
    places = mel(np.arange(fft_half) * rate / (2 * fft_half))
    rising = (places - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - places) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(np.minimum(rising, falling), 0)


def log_mels(powers, bins, rate, **edges):
    mels = powers @ mel_filters(bins, rate, powers.shape[1], **edges).T
    return np.log(np.maximum(mels, np.finfo(np.float32).eps))


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("snip", [True, False])
def test_fbank_is_kaldi_s(rate, snip):
    speech = waveform(1.3, rate, seed=3)
    features = fbank.build(fbank.Config(rate=rate, snip_edges=snip))(speech)
    _, powers = kaldi_frames(speech, rate, snip)
    assert features.shape == (len(powers), 80)
    np.testing.assert_allclose(features, log_mels(powers, 80, rate), atol=1e-3)


@pytest.mark.parametrize("ceps,bins,energy,high", [(13, 23, True, 0.0), (40, 40, False, -400.0)])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_mfcc_is_kaldi_s(ceps, bins, energy, high, rate):
    speech = waveform(0.9, rate, seed=4)
    config = mfcc.Config(rate=rate, ceps=ceps, bins=bins, use_energy=energy, high_freq=high)
    features = mfcc.build(config)(speech)
    energies, powers = kaldi_frames(speech, rate)
    k, n = np.arange(ceps)[:, None], np.arange(bins)
    cosines = np.sqrt(2 / bins) * np.cos(np.pi / bins * (n + 0.5) * k)
    cosines[0] = np.sqrt(1 / bins)
    lifter = 1 + 0.5 * 22 * np.sin(np.pi * np.arange(ceps) / 22)
    expected = log_mels(powers, bins, rate, high=high) @ cosines.T * lifter
    if energy:
        expected[:, 0] = energies
    np.testing.assert_allclose(features, expected, atol=5e-3)


def test_options_change_the_numbers_as_they_say():
    speech = waveform(0.5, seed=5)
    plain = fbank.build(fbank.Config())(speech)
    shifted = fbank.build(fbank.Config(scale=1.0))(speech)
    np.testing.assert_allclose(plain - shifted, np.log(32768.0**2), atol=2e-2)
    _, powers = kaldi_frames(speech, 16000, remove_dc=False, preemphasis=0.0)
    loose = fbank.build(fbank.Config(remove_dc=False, preemphasis=0.0, low_freq=100, high_freq=-500))(speech)
    np.testing.assert_allclose(loose, log_mels(powers, 80, 16000, low=100, high=-500), atol=1e-3)


@pytest.mark.parametrize("module", [fbank, mfcc])
@pytest.mark.parametrize("rate", [8000, 11025, 16000])
@pytest.mark.parametrize("snip", [True, False])
def test_frames_is_what_comes_out(module, rate, snip):
    extractor = module.build(module.Config(rate=rate, snip_edges=snip))
    speech = waveform(0.3, rate, seed=6)
    window, shift = extractor.window, extractor.shift
    edges = [window + k * shift + d for k in (0, 1, 2, 7) for d in (-1, 0, 1)]
    for samples in [0, 1, shift // 2 - 1, shift // 2, shift, *edges, *range(500, len(speech), 391)]:
        features = extractor(speech[:samples])
        assert features.shape == (extractor.frames(samples), extractor.dim), samples
        assert features.dtype == np.float32 and np.isfinite(features).all()


def test_long_audio_in_pieces_equals_one_piece(monkeypatch):
    speech = waveform(3, seed=7)
    extractor = fbank.build(fbank.Config())
    whole = extractor(speech)
    monkeypatch.setattr("speechkit.frontends.kaldi.PIECE", 777)
    np.testing.assert_array_equal(extractor(speech), whole)


def test_silence_is_finite():
    features = fbank.build(fbank.Config())(np.zeros(8000, np.float32))
    np.testing.assert_allclose(features, np.log(np.finfo(np.float32).eps), atol=1e-4)


def test_threads_and_pickles_give_the_same():
    extractor = fbank.build(fbank.Config())
    speeches = [waveform(1, seed=seed) for seed in range(4)]
    alone = [extractor(speech) for speech in speeches]
    results = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: [extractor(speeches[i]) for _ in range(3)]}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, runs in results.items():
        assert all(np.array_equal(run, alone[index]) for run in runs)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor))(speeches[0]), alone[0])


def test_utterance_normalisation():
    features = fbank.build(fbank.Config(normalise="utterance"))(waveform(2, seed=8))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize(
    "override,said",
    [
        ("dither=1.0", "dither=1.0 must be 0"),
        ("high_freq=9000", "high_freq=9000.0"),
        ("low_freq=8000", "low_freq"),
        ("bins=1", "bins=1"),
        ("window=hann", "povey"),
        ("bin=80", "did you mean 'bins'"),
        ("rate=16000.5", "a whole number"),
    ],
)
def test_bad_options_are_named(override, said):
    with pytest.raises(InputError, match=said):
        load_config(fbank.Config, overrides=[override])


def test_cannot_be_given_several_channels():
    with pytest.raises(ValueError, match=r"\(S,\)"):
        fbank.build(fbank.Config())(np.zeros((100, 2), np.float32))
