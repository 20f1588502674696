"""Validation: decoded audio, warnings, summary."""

import numpy as np
import soundfile
from factories import make_data_dir, make_wave, waveform, write_table

from speechkit.bin.__main__ import main
from speechkit.data.kaldi_dir import validate_data_dir
from speechkit.data.validate import Checks, check_data_dir, duration_lines


def messages(path, **checks) -> list[str]:
    return [str(problem) for problem in check_data_dir(path, Checks(read_audio=True, **checks)).problems]


def test_a_good_directory_has_no_findings_and_true_lengths(tmp_path, capsys):
    path = make_data_dir(tmp_path / "train", 4, 2, seconds=[0.5, 1.0, 1.5, 2.0])
    report = check_data_dir(path, Checks(read_audio=True))
    assert not report.problems and not report.warnings
    assert report.seconds == {"s00-000": 0.5, "s01-000": 1.0, "s00-001": 1.5, "s01-001": 2.0}
    assert main(["validate", str(path), "--read-audio", "true"]) == 0
    out = capsys.readouterr().err
    assert "4 utterances, 2 speakers, 5.0 seconds; 0 problem(s), 0 warning(s)" in out
    assert "0.50 to 2.00 s, median 1.25" in out


def test_validation_without_reading_does_not_decode(tmp_path):
    path = make_data_dir(tmp_path / "d", 2)
    (path / "audio" / "s00-000.wav").write_bytes(b"nonsense")
    assert validate_data_dir(path) == []
    (problem,) = validate_data_dir(path, read_audio=True)
    assert (problem.file, problem.line, problem.value) == (str(path / "wav.scp"), 1, "s00-000")


def test_each_trouble_in_the_audio_is_found_at_its_line(tmp_path):
    path = make_data_dir(tmp_path / "d", 6, 1, texts=["w"] * 6)
    audio = path / "audio"
    data = (audio / "s00-000.wav").read_bytes()
    (audio / "s00-000.wav").write_bytes(data[: len(data) // 2])
    soundfile.write(audio / "s00-001.wav", np.zeros(16000), 16000)
    make_wave(audio / "s00-002.wav", rate=8000)
    soundfile.write(
        audio / "s00-003.wav", np.array([0.1, np.nan] * 800, dtype=np.float32), 16000, subtype="FLOAT"
    )
    (audio / "s00-004.wav").write_bytes(b"")
    found = messages(path, rate=16000)
    for line, text in enumerate(["truncated", "silence", "8000 Hz, not 16000", "NaN", "empty file"], 1):
        assert any(m.startswith(f"{path}/wav.scp:{line}: ") and text in m for m in found), (text, found)
    assert len(found) == 5


def test_what_is_odd_but_usable_is_a_warning(tmp_path):
    path = make_data_dir(tmp_path / "d", 3, 1, texts=["w", "", "ﬁ\u200b e\u0301"])
    make_wave(path / "audio" / "s00-000.wav", channels=2, rate=8000)
    soundfile.write(path / "audio" / "s00-001.wav", np.zeros(16000), 16000)
    loud = np.clip(20 * waveform(), -1, 1)
    soundfile.write(path / "audio" / "s00-002.wav", loud, 16000)
    report = check_data_dir(path, Checks(read_audio=True, need_text=False))
    assert not report.problems
    texts = "\n".join(map(str, report.warnings))
    expected = (
        "several channels: 2",
        "silence",
        "clipped",
        "mixed sample rates: 1 at 8000 Hz, 2 at 16000 Hz",
        "NFC",
    )
    for text in (*expected, "not printable: U+200B"):
        assert text in texts
    strict = check_data_dir(path, Checks(need_text=False, printable=True))
    assert [(p.line, p.value) for p in strict.problems] == [(3, "s00-002")]


def test_the_share_of_clipped_samples_is_measured(tmp_path):
    path = make_data_dir(tmp_path / "d", 1, 1)
    samples = waveform(1.0)
    samples[:160] = 1.0
    soundfile.write(path / "audio" / "s00-000.wav", samples, 16000)
    (warning,) = check_data_dir(path, Checks(read_audio=True)).warnings
    assert "clipped: 1.0 % of samples" in str(warning)


def test_speaker_that_is_no_prefix_is_a_warning(tmp_path):
    path = make_data_dir(tmp_path / "d", 2, 1)
    write_table(path / "utt2spk", {"s00-000": "x", "s00-001": "x"})
    write_table(path / "spk2utt", {"x": "s00-000 s00-001"})
    report = check_data_dir(path)
    assert not report.problems
    assert "utt2spk:1: the speaker is no prefix of the utterance id, for 2 of 2" in str(report.warnings[0])


def test_segments_are_held_against_the_decoded_length(tmp_path):
    path = make_data_dir(tmp_path / "d", 4, 1, segments=True)  # four seconds in one recording
    rows = {"s00-000": "s00 0 1", "s00-001": "s00 3.5 4.3", "s00-002": "s00 3 4.6", "s00-003": "s00 9 10"}
    write_table(path / "segments", rows)
    report = check_data_dir(path, Checks(read_audio=True))
    assert [(p.line, p.value) for p in report.problems] == [(3, "s00-002"), (4, "s00-003")]
    assert all("segment beyond the end of its recording" in p.message for p in report.problems)
    assert [(p.line, p.message) for p in report.warnings] == [
        (2, "segment ends after its recording: by 0.300 s; the rest is used")
    ]
    assert report.seconds == {"s00-000": 1.0, "s00-001": 0.5}


def test_declared_counts_are_held_against_decoded_ones(tmp_path):
    path = make_data_dir(tmp_path / "d", 2, 1)
    write_table(path / "utt2num_samples", {"s00-000": "16000", "s00-001": "16001"})
    write_table(path / "utt2dur", {"s00-000": "1.04", "s00-001": "1.2"})
    assert messages(path) == [
        f"{path}/utt2dur:2: wrong duration: 1.2 s declared, 1.000 s decoded (s00-001)",
        f"{path}/utt2num_samples:2: wrong number of samples: 16001 declared, 16000 decoded (s00-001)",
    ]


def test_pipes_are_refused_unless_allowed(tmp_path):
    path = make_data_dir(tmp_path / "d", 1, 1)
    write_table(path / "wav.scp", {"s00-000": f"sox {path}/audio/s00-000.wav -t wav - |"})
    assert "pipe refused" in str(validate_data_dir(path)[0])
    assert "pipe refused" in str(validate_data_dir(path, read_audio=True)[0])
    assert validate_data_dir(path, allow_pipes=True) == []
    assert validate_data_dir(path, read_audio=True, allow_pipes=True) == []


def test_a_missing_video_is_a_warning(tmp_path):
    path = make_data_dir(tmp_path / "d", 2, 1)
    write_table(path / "video.scp", {"s00-001": "/nowhere.mp4"})
    report = check_data_dir(path)
    assert not report.problems and "video.scp:1: no such file" in str(report.warnings[0])


def test_the_histogram_counts_every_length_once():
    seconds = [0.5, 1.0, 1.0, 2.5, 7.99, 8.0]
    lines = duration_lines(seconds)
    assert sum(int(line.split(" s ")[1].split()[0]) for line in lines[:-1]) == len(seconds)
    assert "0.50 to 8.00 s, median 1.75" in lines[-1]
    assert duration_lines([]) == []


def test_suggested_cut_offs_leave_out_the_odd_ones():
    lines = duration_lines([2.0] * 990 + [0.01] * 2 + [60.0] * 4)
    assert "2.0 to 2.0 s would keep 990 of 996 utterances" in lines[-1]
