"""Leakage: speakers, sentences, language model text, recordings."""

import functools
import json

import numpy as np
import pytest
import soundfile
from factories import make_data_dir, write_table
from scipy.signal import lfilter

from speechkit.bin.__main__ import main
from speechkit.data.fingerprint import FingerprintIndex, fingerprint, sample_hash
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.data.leakage import find_leaks, sentences_in_text, shared_sentences, shared_speakers
from speechkit.errors import InputError


@functools.cache
def speechlike(seconds: float, seed: int, rate: int = 16000) -> np.ndarray:
    """Noise through resonances that change every 100 ms: as varied over time and frequency as speech."""
    draw = np.random.default_rng(seed)
    pieces = []
    for _ in range(round(seconds * 10)):
        piece = draw.standard_normal(rate // 10)
        for _ in range(3):
            angle, radius = 2 * np.pi * draw.uniform(200, 3500) / rate, 0.97
            piece = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], piece)
        pieces.append(piece / np.abs(piece).max() * draw.uniform(0.05, 0.5))
    return np.concatenate(pieces).astype(np.float32)


def sets(tmp_path, train_texts, test_texts, **options):
    train = make_data_dir(
        tmp_path / "train", len(train_texts), 2, texts=train_texts, prefix="a", seed=1, **options
    )
    test = make_data_dir(
        tmp_path / "test", len(test_texts), 2, texts=test_texts, prefix="b", seed=2, **options
    )
    return train, test


def test_clean_sets_pass(tmp_path, capsys):
    train, test = sets(tmp_path, ["one two three"] * 4, ["four five six"] * 4, seconds=1.5)
    (tmp_path / "text").write_text("seven eight nine\n")
    arguments = ["leakage", "--train", str(train), "--test", str(test), "--text", str(tmp_path / "text")]
    assert main([*arguments, "--report", str(tmp_path / "r.json")]) == 0
    assert "nothing shared" in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["leaks"] == []


def test_speakers(tmp_path):
    a = read_data_dir(make_data_dir(tmp_path / "a", 6, 3, audio=False))
    b = read_data_dir(make_data_dir(tmp_path / "b", 4, 2, audio=False))
    assert [leak.test for leak in shared_speakers(b, a)] == ["s00", "s01"]
    c = read_data_dir(make_data_dir(tmp_path / "c", 4, 2, prefix="c", audio=False))
    assert not list(shared_speakers(c, a))


def test_sentences_exactly_and_in_plain_form(tmp_path):
    train, test = sets(
        tmp_path,
        ["The cat's mat, again", "a b c", "yes", "ﬁve old men"],
        ["a b c", "the cat s MAT again!", "yes", "five old men", "d e f", "a b"],
        audio=False,
    )
    a, b = read_data_dir(train), read_data_dir(test)
    found = {(leak.kind, leak.test, leak.other) for leak in shared_sentences(b, a)}
    where = {text: utterance for utterance, text in a.text.items()}
    here = {text: utterance for utterance, text in b.text.items()}
    assert found == {
        ("sentence", here["a b c"], where["a b c"]),
        ("normalised sentence", here["the cat s MAT again!"], where["The cat's mat, again"]),
        ("normalised sentence", here["five old men"], where["ﬁve old men"]),
    }
    assert ("sentence", here["yes"], where["yes"]) in {
        (leak.kind, leak.test, leak.other) for leak in shared_sentences(b, a, min_words=1)
    }


def test_sentences_within_a_text_as_brute_force_finds_them(tmp_path):
    draw = np.random.default_rng(0)
    sentences = sorted({" ".join(draw.choice(list("abc"), draw.integers(3, 9))) for _ in range(40)})
    test = read_data_dir(make_data_dir(tmp_path / "t", len(sentences), 2, texts=sentences, audio=False))
    lines = [" ".join(draw.choice(list("abc"), 30)) for _ in range(60)] + sentences[::7]
    (tmp_path / "text").write_text("\n".join(lines) + "\n")
    expected = {
        utterance
        for utterance, text in test.text.items()
        if text in lines or (len(text.split()) >= 5 and any(f" {text} " in f" {line} " for line in lines))
    }
    found = list(sentences_in_text([test], tmp_path / "text"))
    assert {leak.test for leak in found} == expected and 5 < len(expected) < len(sentences)
    for leak in found:
        assert leak.detail in lines[int(leak.other.split()[1]) - 1]


def test_text_that_is_missing_or_not_utf8(tmp_path):
    test = read_data_dir(make_data_dir(tmp_path / "t", 2, 1, audio=False))
    with pytest.raises(InputError, match="none: cannot be read"):
        list(sentences_in_text([test], tmp_path / "none"))
    (tmp_path / "text").write_bytes(b"fine\n\xff\n")
    with pytest.raises(InputError, match="text:2: not UTF-8"):
        list(sentences_in_text([test], tmp_path / "text"))


def test_the_same_samples_in_another_container(tmp_path):
    train, test = sets(tmp_path, ["one two three"] * 2, ["four five six"] * 2)
    samples, rate = soundfile.read(train / "audio" / "as01-000.wav", dtype="int16")
    soundfile.write(test / "audio" / "copy.flac", samples, rate)
    write_table(
        test / "wav.scp",
        {"bs00-000": str(test / "audio" / "copy.flac"), "bs01-000": str(test / "audio" / "bs01-000.wav")},
    )
    leaks = find_leaks([read_data_dir(test)], [read_data_dir(train)], similar=False)
    assert [(leak.kind, leak.test, leak.other) for leak in leaks] == [("audio", "bs00-000", "as01-000")]


def test_hash_is_of_16_bit_samples_and_the_rate():
    samples = speechlike(0.5, 1)
    rounded = (np.rint(samples * 32768) / 32768).astype(np.float32)
    assert sample_hash(samples, 16000) == sample_hash(rounded, 16000)
    assert sample_hash(samples, 16000) != sample_hash(samples, 8000)
    assert sample_hash(samples, 16000) != sample_hash(samples[1:], 16000)


def coded(samples, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, samples, 16000)
    return soundfile.read(path, dtype="float32")


CHANGES = {
    "gain": lambda x, tmp: (0.1 * x, 16000),
    "noise": lambda x, tmp: (x + 0.1 * x.std() * speechlike(len(x) / 16000, 99)[: len(x)], 16000),
    "trimmed": lambda x, tmp: (x[3211:-2777], 16000),
    "padded": lambda x, tmp: (np.concatenate([np.zeros(9999, np.float32), x]), 16000),
    "mp3": lambda x, tmp: coded(x, tmp, ".mp3"),
    "ogg": lambda x, tmp: coded(x, tmp, ".ogg"),
    "8 kHz": lambda x, tmp: (x[::2] * 0.5 + x[1::2] * 0.5, 8000),
}


@functools.cache
def prints() -> tuple[FingerprintIndex, list[np.ndarray]]:
    """Eight known sounds, and twenty others."""
    known = FingerprintIndex((f"u{seed}", fingerprint(speechlike(3, seed), 16000)) for seed in range(8))
    return known, [fingerprint(speechlike(3, seed), 16000) for seed in range(100, 120)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_others_are_not(tmp_path, change):
    index, others = prints()
    for seed in (1, 5):
        samples, rate = CHANGES[change](speechlike(3, seed), tmp_path)
        matches = list(index.find("copy", fingerprint(samples, rate)))
        assert [match.other for match in matches] == [f"u{seed}"] and matches[0].bit_errors < 0.3
    assert not [match for other in others for match in index.find("other", other)]


def test_a_short_part_of_a_recording_is_not_the_recording():
    whole = speechlike(8, 1)
    mixed = np.concatenate([speechlike(4, 2), whole[:32000], speechlike(4, 3)])
    index = FingerprintIndex([("whole", fingerprint(whole, 16000))])
    assert not list(index.find("mixed", fingerprint(mixed, 16000)))
    assert list(index.find("cut", fingerprint(whole[20000:80000], 16000)))


def test_silence_and_short_sounds_match_nothing():
    index = FingerprintIndex([("silence", fingerprint(np.zeros(48000, np.float32), 16000))])
    assert not list(index.find("silence", fingerprint(np.zeros(48000, np.float32), 16000)))
    assert len(fingerprint(speechlike(0.2, 1), 16000)) == 0
    assert not list(FingerprintIndex([]).find("x", fingerprint(speechlike(3, 1), 16000)))


def test_command_reports_waives_and_exits(tmp_path, capsys):
    train = make_data_dir(
        tmp_path / "train", 4, 2, texts=["one two three", "b c d", "e f g", "h i j"], audio=False
    )
    test = make_data_dir(tmp_path / "test", 2, 1, texts=["one two three", "k l m"], audio=False)
    arguments = ["leakage", "--train", str(train), "--test", str(test), "--audio", "false"]
    report = tmp_path / "leakage.json"
    assert main([*arguments, "--report", str(report)]) == 1
    out = capsys.readouterr().err
    assert f"speaker: s00 is in {train} as s00" in out and "sentence: s00-000" in out
    account = json.loads(report.read_text())
    assert account["counts"]["speaker"] == account["counts"]["sentence"] == 1 and account["waived"] is None
    assert main([*arguments, "--report", str(report), "--waive", "prompts are read by all"]) == 0
    assert json.loads(report.read_text())["waived"] == "prompts are read by all"
    assert "waived: prompts are read by all" in capsys.readouterr().err
    assert main([*arguments, "--waive", "no place to record it"]) == 2
    assert main([*arguments, "--waive", " ", "--report", str(report)]) == 2
    assert main(["leakage", "--test", str(test)]) == 2


def test_pretraining_sets_are_compared_by_sound(tmp_path):
    test = make_data_dir(tmp_path / "test", 2, 1, texts=["a b c", "d e f"])
    other = make_data_dir(tmp_path / "other", 2, 1, texts=["g h i", "j k l"], prefix="x", seed=5)
    (other / "audio" / "xs00-001.wav").write_bytes((test / "audio" / "s00-000.wav").read_bytes())
    assert main(["leakage", "--test", str(test), "--pretrain", str(other)]) == 1
    leaks = find_leaks([read_data_dir(test)], [read_data_dir(other)])
    assert [(leak.kind, leak.test, leak.other) for leak in leaks] == [("audio", "s00-000", "xs00-001")]
