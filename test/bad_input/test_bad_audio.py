"""Bad audio at stage 2: exit status 1, one line naming the utterance and the trouble, nothing left behind."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile
from factories import make_data_dir, make_wave, waveform, write_table

from speechkit.bin.__main__ import main
from speechkit.data.archive import ArkWriter
from speechkit.data.audio import read_audio
from speechkit.errors import BadSample


def encoded(
    form: str, subtype: str | None = None, speech: np.ndarray | None = None, rate: int = 16000
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform(1.0) if speech is None else speech, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def with_value(value: float) -> np.ndarray:
    speech = waveform(1.0)
    speech[777] = value
    return speech


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


WAV, FLAC, MP3, OGG, OPUS = (
    encoded("WAV"),
    encoded("FLAC"),
    encoded("MP3"),
    encoded("OGG"),
    encoded("OGG", "OPUS"),
)
SPHERE = encoded("NIST", "PCM_16")
CUT = "truncated audio"

# what is wrong -> (file name, its bytes, part of the message)
CASES = {
    "empty file": ("a.wav", b"", "empty file"),
    "one byte": ("a.wav", b"R", "unknown format"),
    "text file": ("a.wav", b"<html>404 Not Found</html>", "unknown format"),
    "zero-length wav": ("a.wav", encoded("WAV", speech=np.zeros(0)), "zero-length audio"),
    "flac with no frame": ("a.flac", FLAC[:4] + b"\x80" + FLAC[5:21] + b"\xf0" + bytes(20), "complete"),
    "wav cut in its header": ("a.wav", WAV[:30], CUT),
    "wav cut after its header": ("a.wav", WAV[:44], CUT),
    "wav without its last sample": ("a.wav", WAV[:-2], "16000 samples, the file holds 15999"),
    "wav cut within a sample": ("a.wav", WAV[:-1], CUT),
    "wav cut in half": ("a.wav", WAV[: len(WAV) // 2], CUT),
    "24-bit wav cut": ("a.wav", encoded("WAV", "PCM_24")[:-100], CUT),
    "rf64 cut": ("a.wav", encoded("RF64", "PCM_16")[:-100], CUT),
    "wav with an impossible fmt chunk": ("a.wav", WAV[:22] + bytes(2) + WAV[24:], "0 channels"),
    "wav of an unread codec": ("a.wav", encoded("WAV", "MS_ADPCM"), "unsupported encoding"),
    "wav with rate 0": ("a.wav", WAV[:24] + bytes(4) + WAV[28:], "0 Hz"),
    "riff but no wave": ("a.wav", b"RIFF" + struct.pack("<I", 20) + b"AVI " + bytes(16), "no WAVE file"),
    "flac cut": ("a.flac", FLAC[: len(FLAC) // 2], "truncated"),
    "flac without its last bytes": ("a.flac", FLAC[:-20], "truncated"),
    "flac cut in its header": ("a.flac", FLAC[:20], CUT),
    "flac with a changed byte": ("a.flac", flipped(FLAC), "corrupt audio"),
    "mp3 cut": ("a.mp3", MP3[: len(MP3) // 2], CUT),
    "mp3 without its last bytes": ("a.mp3", MP3[:-5], CUT),
    "mp3 with rubbish inside": ("a.mp3", MP3[: len(MP3) // 2] + b"rubbish!" * 99, "mp3"),
    "only an id3 tag": ("a.mp3", b"ID3\4\0\0\0\0\0\0", CUT),
    "vorbis cut": ("a.ogg", OGG[: len(OGG) // 2], CUT),
    "vorbis without its last page": ("a.ogg", OGG[: OGG.rfind(b"OggS")], CUT),
    "opus cut": ("a.opus", OPUS[: len(OPUS) // 2], CUT),
    "opus without its last page": ("a.opus", OPUS[: OPUS.rfind(b"OggS")], CUT),
    "ogg with rubbish after it": ("a.ogg", OGG + b"rubbish" * 9, "no Ogg page"),
    "sphere cut": ("a.sph", SPHERE[:-200], CUT),
    "sphere cut in its header": ("a.sph", SPHERE[:200], "SPHERE header"),
    "sphere with shorten": ("a.sph", SPHERE.replace(b"-s3 pcm", b"-s3 shortpack"), "sph2pipe"),
    "nan": ("a.wav", encoded("WAV", "FLOAT", with_value(np.nan)), "NaN or infinite, the first at 777"),
    "infinity": ("a.wav", encoded("WAV", "FLOAT", with_value(-np.inf)), "non-finite samples"),
    "16-bit values as float": ("a.wav", encoded("WAV", "FLOAT", 9000 * waveform(1)), "divide by 32768"),
    "stereo": ("a.wav", encoded("WAV", speech=np.zeros((999, 2))), "choose one with --channel"),
    "eight channels": ("a.flac", encoded("FLAC", speech=np.zeros((999, 8))), "8 channels where one is meant"),
    "headerless and not declared": ("a.raw", waveform(1).astype("<i2").tobytes() + b"\1\2", "--raw-format"),
    "no sample at the new rate": ("a.wav", encoded("WAV", speech=np.ones(1), rate=96000), "leave none"),
    "aiff": ("a.aiff", encoded("AIFF"), "unknown format"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data_dir("data/x", utterances=3, speakers=1)
    return tmp_path


def refused(capsys, *options: str, status: int = 1) -> str:
    """Runs format; checks the status and that nothing was made; returns what it said."""
    try:
        result = main(["format", "--data", "data/x", "--out", "dump/x", "--jobs", "1", *options])
    except SystemExit as end:
        result = end.code
    said = capsys.readouterr().err
    assert result == status, said
    assert not os.path.exists("dump") or os.listdir("dump") == []
    assert "Traceback" not in said
    return said


def put_entry(entry: str) -> None:
    write_table(
        "data/x/wav.scp", {f"s00-00{n}": f"data/x/audio/s00-00{n}.wav" for n in (0, 2)} | {"s00-001": entry}
    )


@pytest.mark.parametrize("what", CASES)
def test_bad_files(what, capsys):
    name, data, message = CASES[what]
    with open(name, "wb") as file:
        file.write(data)
    put_entry(name)
    for kind in ("train", "evaluation"):
        said = refused(capsys, "--kind", kind)
        line = next(line for line in said.splitlines() if line.startswith("  s00-001: "))
        assert message in line
    with pytest.raises(BadSample, match="^utterance s00-001: "):
        read_audio(name, utterance="s00-001")


@pytest.mark.parametrize(
    "entry,message",
    [
        ("no/such.wav", "missing file: no/such.wav"),
        ("data", "is a folder"),
        ("data/x/audio/s00-000.wav#s16le,16000,3", "truncated audio"),
        ("data/x/audio/s00-000.wav#s17le,16000,1", "encodings: u8"),
        ("data/x/audio/s00-000.wav#s16le,0,1", "must not be 0"),
        ("data/x/audio/s00-000.wav:99", "no audio in the archive"),
        ("data/x/audio/s00-000.wav:99999999", "beyond the end"),
        ("no.ark:5", "no such archive"),
        ("sox a.wav -t wav - |", "--allow-pipes true"),
        ("http://example.org/a.wav", "no such file"),
        ("-", "no such file"),
        ("a\\0b.wav", "no such file"),
    ],
)
def test_bad_entries(entry, message, capsys):
    put_entry(entry)
    said = refused(capsys, "--kind", "evaluation")
    assert any(line.startswith("  s00-001: ") and message in line for line in said.splitlines()), said


@pytest.mark.parametrize("times", ["0.5 0.5", "1.0 2.0", "0.2 1.6", "5 6"])
def test_bad_segments(times, capsys):
    write_table(
        "data/x/segments", {f"s00-00{n}": f"s00-00{n} 0 1" for n in (0, 2)} | {"s00-001": f"s00-001 {times}"}
    )
    said = refused(capsys, "--kind", "evaluation")
    assert "s00-001" in said or "segments:2" in said


def test_no_such_channel(capsys):
    make_wave("a.wav", 0.5, channels=2)
    put_entry("a.wav")
    assert "s00-001: no such channel: --channel 5, but the audio has 2" in refused(
        capsys, "--channel", "5", "--kind", "evaluation"
    )


def test_wrong_rate_when_it_is_fixed(capsys):
    put_entry(str(make_wave("a.wav", 0.5, rate=8000)))
    said = refused(capsys, "--resample", "false", "--kind", "evaluation")
    assert "s00-001: wrong sample rate: 8000 Hz where 16000 Hz is required" in said


@pytest.mark.parametrize("bite", [1, 1000, 20000])
def test_cut_archives(bite, capsys):
    with ArkWriter("ark", "a") as writer:
        entry = writer.write_audio("x", encoded("WAV"))
    os.truncate("ark/a.ark", os.path.getsize("ark/a.ark") - bite)
    put_entry(entry)
    said = refused(capsys, "--kind", "evaluation")
    assert "s00-001: truncated audio: ark/a.ark:2: " in said


def test_every_utterance_of_a_bad_recording_is_listed(capsys):
    make_data_dir("data/x", utterances=9, speakers=2, segments=True)
    with open("data/x/audio/s01.wav", "r+b") as file:
        file.truncate(5000)
    said = refused(capsys, "--kind", "evaluation")
    assert [line[2:9] for line in said.splitlines() if "truncated" in line and line[:2] == "  "] == [
        f"s01-00{n}" for n in range(4)
    ]


def test_nothing_left(capsys):
    for n in range(3):
        open(f"data/x/audio/s00-00{n}.wav", "wb").close()
    assert "not one of 3 utterances" in refused(capsys, "--max-drop", "1")


def test_everything_too_short(capsys):
    assert "not one of 3" in refused(capsys, "--min-seconds", "2", "--max-drop", "1")


def test_a_file_that_cannot_be_read(capsys):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    os.chmod("data/x/audio/s00-001.wav", 0)
    assert "s00-001: unreadable file" in refused(capsys, "--kind", "evaluation")


@pytest.mark.parametrize(
    "options,status,message",
    [
        (("--rate", "abc"), 2, "--rate"),
        (("--rate", "5"), 2, "rate=5"),
        (("--min-seconds", "-1"), 2, "min_seconds"),
        (("--min-seconds", "5", "--max-seconds", "4"), 2, "max_seconds"),
        (("--max-drop", "1.5"), 2, "max_drop"),
        (("--kind", "dev"), 2, "--kind"),
        (("--raw-format", "s16"), 2, "s16le,16000,1"),
        (("--allow-pipes", "yes"), 2, "neither true nor false"),
        (("--sample-rate", "8000"), 2, "--sample-rate"),
    ],
)
def test_bad_options(options, status, message, capsys):
    assert message in refused(capsys, *options, status=status)


def test_no_data_directory(capsys):
    assert main(["format", "--data", "data/none", "--out", "dump/x"]) == 1
    assert "data/none" in capsys.readouterr().err and not os.path.exists("dump")


def test_no_wav_scp(capsys):
    os.remove("data/x/wav.scp")
    assert "data/x" in refused(capsys)


def test_a_full_disk_while_writing(capsys, monkeypatch):
    import errno
    from pathlib import Path

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    put_entry(str(make_wave("a.wav", 0.5, rate=8000)))
    monkeypatch.setattr(Path, "write_bytes", full)
    assert "no space left on the disk" in refused(capsys)


@pytest.mark.parametrize(
    "overrides,message",
    [
        (("rate=8000",), "wrong sample rate: 16000 Hz where 8000 Hz is required"),
        (("frame_length=2000", "frame_shift=500"), "no feature frame"),
        (("name=plp",), "no kind 'plp'"),
        (("bins",), "expected key=value"),
        (("bins=many",), "a whole number"),
        (("dither=1",), "must be 0"),
    ],
)
def test_bad_features(overrides, message, capsys):
    assert main(["format", "--data", "data/x", "--out", "dump/x"]) == 0
    before = sorted(os.listdir("dump/x"))
    assert main(["features", "--data", "dump/x", "--jobs", "1", *overrides]) == 1
    assert message in capsys.readouterr().err
    assert sorted(os.listdir("dump/x")) == before


def test_features_need_formatted_data(capsys):
    assert main(["features", "--data", "data/x"]) == 1
    assert "data/x" in capsys.readouterr().err and not os.path.exists("data/x/feats")


def test_features_of_audio_damaged_since(capsys):
    assert main(["format", "--data", "data/x", "--out", "dump/x", "--format", "ark"]) == 0
    os.truncate("dump/x/audio/audio.00000.ark", 40000)
    before = sorted(os.listdir("dump/x"))
    assert main(["features", "--data", "dump/x", "--jobs", "1"]) == 1
    said = capsys.readouterr().err
    assert "s00-002: truncated audio: dump/x/audio/audio.00000.ark:" in said
    assert sorted(os.listdir("dump/x")) == before
