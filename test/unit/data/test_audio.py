"""Decoding against libsndfile and against files built byte by byte."""

import io
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from factories import make_wave, waveform

from speechkit.data.archive import ArkWriter
from speechkit.data.audio import (
    audio_info,
    decode,
    encode,
    is_silent,
    read_audio,
    resample,
    resampled_length,
)
from speechkit.data.containers import AudioError
from speechkit.errors import BadSample

SPEECH = waveform(1.5, seed=1)
FORMATS = [
    ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("FLAC", "PCM_S8"), ("MP3", None), ("OGG", "VORBIS"),
    ("OGG", "OPUS"), ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"),
    ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "ALAW"), ("WAVEX", "PCM_16"),
    ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("NIST", "PCM_16"), ("NIST", "ULAW"), ("NIST", "ALAW"),
]  # fmt: skip


def written(form: str, subtype: str | None, speech: np.ndarray = SPEECH, rate: int = 16000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, speech, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("form,subtype", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_equal_libsndfile_s(form, subtype, channels):
    speech = SPEECH if channels == 1 else np.stack([SPEECH, SPEECH[::-1]], axis=1)
    data = written(form, subtype, speech)
    expected, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    heard = decode(data)
    assert heard.rate == rate == 16000
    np.testing.assert_array_equal(heard.samples, expected)
    assert heard.samples.shape == (24000, channels) and heard.samples.dtype == np.float32


@pytest.mark.parametrize("form,subtype", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.4, 0.7, 0.97, 0.9999])
def test_cut_files_are_noticed(form, subtype, share):
    data = written(form, subtype)
    with pytest.raises(AudioError) as error:
        decode(data[: int(len(data) * share)])
    assert error.value.reason in ("truncated audio", "corrupt audio")
    assert "again" in error.value.detail


def test_a_changed_bit_in_flac_is_noticed():
    data = bytearray(written("FLAC", "PCM_16"))
    data[len(data) // 2] ^= 1
    with pytest.raises(AudioError) as error:
        decode(bytes(data))
    assert error.value.reason == "corrupt audio"


def test_flac_from_a_pipe_does_not_know_its_length():
    samples = (SPEECH * 32768).astype("<i2")
    flac = shutil.which("flac")
    if flac is None:
        pytest.skip("flac is not installed")
    options = (
        "-s -c --force-raw-format --endian=little --sign=signed --channels=1 --bps=16 --sample-rate=16000 -"
    )
    run = subprocess.run([flac, *options.split()], input=samples.tobytes(), capture_output=True, check=True)
    assert run.stdout[21] & 15 == 0 and run.stdout[22:26] == bytes(4)  # no sample count
    np.testing.assert_array_equal(decode(run.stdout).samples[:, 0], samples / np.float32(32768))
    with pytest.raises(AudioError):
        decode(run.stdout[:-2000])


def wav_bytes(
    samples: np.ndarray, riff_size=None, data_size=None, before=b"", after=b"", tag=1, bits=16
) -> bytes:
    body = samples.astype("<i2").tobytes()
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, 16000, 16000 * bits // 8, bits // 8, bits)
    size = len(body) if data_size is None else data_size
    rest = b"WAVE" + before + fmt + b"data" + struct.pack("<I", size) + body + after
    return b"RIFF" + struct.pack("<I", len(rest) if riff_size is None else riff_size) + rest


RAMP = np.arange(1000)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("riff_size", [0, 0xFFFFFFFF, 36])
def test_streamed_wav_is_as_long_as_its_file(size, riff_size):
    data = wav_bytes(RAMP, riff_size=riff_size, data_size=size)
    np.testing.assert_array_equal(decode(data).samples[:, 0], RAMP / np.float32(32768))
    assert len(decode(data[:-1]).samples) == 999  # stopped within a sample: only whole ones count


def test_odd_chunks_around_the_samples():
    before = b"LIST" + struct.pack("<I", 5) + b"INFOx" + b"\0" + b"bext" + struct.pack("<I", 2) + b"ab"
    data = wav_bytes(RAMP, before=before, after=b"id3 " + struct.pack("<I", 3) + b"abc\0")
    np.testing.assert_array_equal(decode(data).samples[:, 0], RAMP / np.float32(32768))


def test_declared_sizes_that_do_not_fit():
    with pytest.raises(AudioError, match="truncated audio.*1001 samples, the file holds 1000"):
        decode(wav_bytes(RAMP, data_size=2002))
    with pytest.raises(AudioError, match="corrupt audio"):
        decode(wav_bytes(RAMP, data_size=1999))
    with pytest.raises(AudioError, match="zero-length"):
        decode(wav_bytes(RAMP[:0]))
    with pytest.raises(AudioError, match="unsupported encoding.*0x11"):
        decode(wav_bytes(RAMP, tag=0x11, bits=4 * 8))
    assert len(decode(wav_bytes(RAMP, data_size=1000)).samples) == 500  # shorter is what it says


def test_big_endian_rifx():
    body = RAMP.astype(">i2").tobytes()
    fmt = struct.pack(">4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    rest = b"WAVE" + fmt + b"data" + struct.pack(">I", len(body)) + body
    heard = decode(b"RIFX" + struct.pack(">I", len(rest)) + rest)
    assert heard.rate == 8000
    np.testing.assert_array_equal(heard.samples[:, 0], RAMP / np.float32(32768))


def sphere_bytes(body: bytes, **fields: str) -> bytes:
    lines = [
        f"{name} -{'i' if value.isdigit() else f's{len(value)}'} {value}" for name, value in fields.items()
    ]
    head = "NIST_1A\n   1024\n" + "\n".join(lines) + "\nend_head\n"
    return head.encode().ljust(1024) + body


@pytest.mark.parametrize("order,dtype", [("01", "<i2"), ("10", ">i2")])
def test_sphere_byte_orders(order, dtype):
    stereo = np.stack([RAMP, -RAMP], axis=1)
    fields = {"sample_count": "1000", "sample_rate": "8000", "channel_count": "2", "sample_n_bytes": "2"}
    data = sphere_bytes(
        stereo.astype(dtype).tobytes(), sample_byte_format=order, sample_coding="pcm", **fields
    )
    heard = decode(data)
    assert heard.rate == 8000
    np.testing.assert_array_equal(heard.samples, stereo / np.float32(32768))
    with pytest.raises(AudioError, match="truncated audio.*1000 samples, the file holds 900"):
        decode(data[:-400])


def test_shorten_is_refused_with_the_way_out():
    data = sphere_bytes(b"ajkg", sample_rate="8000", sample_coding="pcm,embedded-shorten-v2.00")
    with pytest.raises(AudioError, match="sph2pipe"):
        decode(data)


@pytest.mark.parametrize(
    "name,dtype,scale",
    [
        ("s16le", "<i2", 32768),
        ("s16be", ">i2", 32768),
        ("s32le", "<i4", 2**31),
        ("s8", "i1", 128),
        ("f32le", "<f4", 1),
    ],
)
def test_headerless(tmp_path, name, dtype, scale):
    values = (SPEECH[:2000].reshape(-1, 2) * scale).astype(dtype)
    (tmp_path / "a.raw").write_bytes(values.tobytes())
    for arguments in (
        {"entry": f"{tmp_path}/a.raw#{name},8000,2"},
        {"entry": f"{tmp_path}/a.raw", "raw_format": f"{name},8000,2"},
    ):
        heard = read_audio(**arguments, channel=1, rate=None)
        np.testing.assert_allclose(heard, values[:, 1].astype(np.float64) / scale, atol=1e-7)
    info = audio_info(f"{tmp_path}/a.raw#{name},8000,2")
    assert (info.rate, info.channels, info.samples, info.format) == (8000, 2, 1000, "raw")


def test_raw_format_leaves_other_files_alone(tmp_path):
    path = make_wave(tmp_path / "a.flac", 0.5)
    assert len(read_audio(str(path), raw_format="s16le,8000,1")) == 8000


def test_names_with_marks_of_other_entries(tmp_path):
    for name in ("a:12", "b#s16,1", "c |d.wav", "e;f $(g).wav", "h i.wav"):
        shutil.copy(make_wave(tmp_path / "x.wav", 0.2), tmp_path / name)
        assert len(read_audio(str(tmp_path / name))) == 3200


def test_segments_and_channels(tmp_path):
    path = str(make_wave(tmp_path / "a.wav", 2.0, channels=2))
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(read_audio(path, channel=1, start=0.25, end=1.5), whole[4000:24000, 1])
    np.testing.assert_array_equal(read_audio(path, channel=0, start=1.0, end=-1), whole[16000:, 0])
    np.testing.assert_array_equal(read_audio(path, channel=0, start=1.0, end=2.4), whole[16000:, 0])
    np.testing.assert_array_equal(read_audio(path, channel=0, end=0.5), whole[:8000, 0])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_keeps_a_tone(tmp_path, rate):
    soundfile.write(
        tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate, subtype="FLOAT"
    )
    heard = read_audio(str(tmp_path / "a.wav"))
    assert len(heard) == 16000 == resampled_length(rate, rate, 16000)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert np.abs(heard - expected)[800:-800].max() < 1e-3


def test_resampled_length_is_exact():
    random = np.random.default_rng(0)
    for _ in range(200):
        samples, old = (
            int(random.integers(1, 60000)),
            int(random.choice([8000, 11025, 22050, 44100, 48000, 900, 1100])),
        )
        new = 1000 if old < 8000 else 16000
        assert len(resample(np.zeros(samples, np.float32), old, new)) == resampled_length(samples, old, new)


@pytest.mark.parametrize("form", ["flac", "wav"])
def test_encode_is_exact_at_16_bits(form):
    samples = np.array([-32768, -1, 0, 1, 32767], np.float32) / 32768
    np.testing.assert_array_equal(decode(encode(samples, 16000, form)).samples[:, 0], samples)
    loud = decode(encode(np.array([2.0, -2.0], np.float32), 16000, form)).samples[:, 0]
    np.testing.assert_array_equal(loud, np.array([32767, -32768], np.float32) / 32768)
    assert encode(SPEECH, 16000, form) == encode(SPEECH, 16000, form)


def test_audio_in_archives(tmp_path):
    (tmp_path / "plain.wav").write_bytes(encode(SPEECH, 16000, "wav"))
    with ArkWriter(tmp_path, "a") as writer:
        entries = [
            writer.write_audio("x", encode(SPEECH, 16000)),
            writer.write_audio("y", encode(-SPEECH, 16000, "wav")),
        ]
    # Kaldi's own wav archives: the RIFF file follows its key directly
    kaldi = tmp_path / "kaldi.ark"
    kaldi.write_bytes(b"u1 " + encode(SPEECH, 16000, "wav") + b"u2 " + encode(-SPEECH, 16000, "wav"))
    second = 3 + 44 + 2 * len(SPEECH) + 3
    for entry, sign in [(entries[0], 1), (entries[1], -1), (f"{kaldi}:3", 1), (f"{kaldi}:{second}", -1)]:
        np.testing.assert_allclose(read_audio(entry), sign * SPEECH, atol=1 / 32768)


def test_silence_is_told_apart():
    assert is_silent(np.zeros(10)) and not is_silent(np.array([0, 1e-9]))


def test_a_file_that_lies_about_its_suffix_is_read_by_content(tmp_path):
    os.rename(make_wave(tmp_path / "a.flac", 0.5), tmp_path / "a.wav")
    assert audio_info(str(tmp_path / "a.wav")).format == "flac"


def test_bad_samples_travel_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(BadSample("u", "truncated audio", "d")))
    assert (error.utterance, error.reason, error.detail) == ("u", "truncated audio", "d")


@pytest.mark.parametrize("form,subtype", [*FORMATS, ("FLAC-piped", "PCM_16")])
def test_random_damage_gives_audio_or_one_clear_error(form, subtype):
    data = written(form.partition("-")[0], subtype, SPEECH[:4000])
    if form == "FLAC-piped":
        data = data[:21] + b"\xf0" + bytes(20) + data[42:]  # neither length nor MD5 sum
    random = np.random.default_rng(len(form))
    for _ in range(60):
        damaged = bytearray(data[: int(random.integers(1, len(data) + 1))] if random.random() < 0.5 else data)
        early = min(len(damaged), 120)  # headers are where readers stumble
        for place in random.integers(
            0, early if random.random() < 0.7 else len(damaged), random.integers(0, 4)
        ):
            damaged[place] = int(random.integers(256))
        try:
            heard = decode(bytes(damaged))
        except AudioError as error:
            assert error.reason and error.detail
        else:
            assert heard.samples.ndim == 2 and len(heard.samples) and heard.rate > 0
