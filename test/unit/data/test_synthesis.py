"""espeak-ng in process: sound, timing, phones, errors, and the same bytes for any number of jobs."""

import subprocess
import sys

import numpy as np
import pytest

from speechkit.data import synthesis
from speechkit.data.synthesis import Synthesizer, Voice, without_stress
from speechkit.errors import InputError

TEXT = "the baker who lives near the river talked about the flour last week"


@pytest.fixture(scope="module")
def synthesizer():
    return Synthesizer()


def test_speech_is_audible_and_follows_the_rate(synthesizer):
    fast = synthesizer.speak(TEXT, Voice(rate=200))
    slow = synthesizer.speak(TEXT, Voice(rate=125))
    assert fast.rate == slow.rate == 22050 and fast.samples.dtype == np.int16
    assert np.sqrt(np.mean(np.square(fast.samples.astype(float)))) > 500
    assert 1.4 < len(slow.samples) / len(fast.samples) < 1.8  # 200 / 125 = 1.6


def test_pitch_raises_the_fundamental(synthesizer):
    def fundamental(pitch):
        samples = synthesizer.speak("ah " * 4, Voice(variant="m3", pitch=pitch, pitch_range=0)).samples
        frame = samples[4000:8000].astype(float)
        correlation = np.correlate(frame, frame, "full")[len(frame) - 1 :]
        return 22050 / (60 + np.argmax(correlation[60:400]))

    assert fundamental(70) > 1.2 * fundamental(30)


def test_word_marks_name_the_words_in_order_and_fill_the_audio(synthesizer):
    speech = synthesizer.speak(TEXT, Voice(variant="f2"))
    assert [mark.label for mark in speech.words] == TEXT.split()
    assert all(mark.start < mark.end for mark in speech.words)
    assert all(one.end == two.start for one, two in zip(speech.words, speech.words[1:]))
    assert speech.words[-1].end == len(speech.samples) / speech.rate


def test_phone_marks_are_the_phones_of_the_text(synthesizer):
    speech = synthesizer.speak(TEXT)
    phones = [without_stress(phone) for word in synthesizer.phones(TEXT) for phone in word]
    assert [mark.label for mark in speech.phones] == phones
    assert all(
        0 <= one.start < one.end <= two.start + 1e-9 for one, two in zip(speech.phones, speech.phones[1:])
    )


@pytest.mark.parametrize(
    "text, voice", [(TEXT, "en-us"), ("le chat mange une pomme", "fr"), ("el perro corre", "es")]
)
def test_phones_equal_those_of_the_program(synthesizer, text, voice):
    command = ["espeak-ng", "-q", "--ipa=1", "-v", voice, "--sep=_", text]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [[p for p in group.split("_") if p] for group in told] == synthesizer.phones(text, Voice(voice))


def test_phones_go_on_after_a_clause(synthesizer):
    assert len(synthesizer.phones("hello, there. who are you?")) >= 4


@pytest.mark.parametrize(
    "voice, message",
    [
        (Voice("xx"), "no voice 'xx'"),
        (Voice(variant="nosuch"), "no voice variant 'nosuch'"),
        (Voice(variant="../en"), "no voice variant '../en'"),
    ],
)
def test_unknown_voices_are_named(synthesizer, voice, message):
    with pytest.raises(InputError, match=message):
        synthesizer.speak(TEXT, voice)


def test_silence_is_an_error(synthesizer):
    with pytest.raises(InputError, match="no sound of ''"):
        synthesizer.speak("")


def test_missing_library_says_what_to_install(monkeypatch):
    def no_library(name):
        raise OSError(name)

    monkeypatch.setattr(synthesis.ctypes, "CDLL", no_library)
    with pytest.raises(InputError, match="apt-get install espeak-ng"):
        synthesis._Library()


def test_variants_are_listed(synthesizer):
    assert {"m3", "f2", "zac", "klatt4"} <= set(synthesizer.variants())


SCRIPT = """
import hashlib
from speechkit.data.synthesis import Synthesizer, Voice, in_fresh_processes

def work(texts):
    speak, voice = Synthesizer().speak, Voice(variant="m3")
    return [hashlib.sha256(speak(text, voice).samples.tobytes()).hexdigest() for text in texts]

def run(jobs):
    return list(in_fresh_processes(work, ["one two three", *["the same"] * 3] * 3, jobs, block=5))

if __name__ == "__main__":
    one, two = run(1), run(2)
    Synthesizer().speak("now this process has spoken")
    three = run(2)
    print(one == two, one == three, len(one), len(set(one)))
"""


def test_blocks_give_the_same_bytes_for_any_number_of_jobs(tmp_path):
    script = tmp_path / "jobs.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    same_jobs, same_after_speaking, count, different = done.stdout.split()
    assert (same_jobs, same_after_speaking, count) == ("True", "True", "12")
    assert int(different) > 2  # the library does carry state: without blocks the order would matter
