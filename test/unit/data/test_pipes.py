"""Pipes: the good ones give the samples sox gives, the hostile ones are refused before anything runs."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from factories import make_wave

from speechkit.data import pipes
from speechkit.data.audio import read_audio
from speechkit.data.containers import AudioError
from speechkit.data.pipe_rules import SOX_EFFECTS, SOX_REFUSED
from speechkit.errors import BadSample

needs_sox = pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_wave("a.wav", 1.0, seed=1)
    make_wave("b c.wav", 0.5, seed=2)
    make_wave("it's.wav", 0.5, seed=2)
    make_wave("stereo.wav", 0.5, seed=3, channels=2)
    make_wave("a.flac", 0.5, seed=4)
    return tmp_path


def shell(command: str) -> np.ndarray:
    """What a shell makes of it; raw 16-bit samples."""
    run = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    return np.frombuffer(run.stdout, "<i2") / np.float32(32768)


@needs_sox
@pytest.mark.parametrize(
    "line",
    [
        "sox a.wav -t wav - |",
        "sox 'b c.wav' -t wav - |",
        'sox "b c.wav" -t wav - | ',
        "sox b\\ c.wav -t wav - |",
        'sox "it\'s.wav" -t wav - |',
        "sox -D a.wav -r 8k -b16 -c1 -t wav - trim 0.1 0.5 |",
        "cat a.wav | sox -D -t wav - -t wav - speed 1.1 |",
        "sox -D stereo.wav -t wav -e signed-integer -b 16 - remix 2 |",
        "sox -D -v 0.5 a.wav -t wav - |",
        "sox -D -m -v 0.3 a.wav -v 0.2 'b c.wav' -t wav - |",
        "flac -c -d -s a.flac |",
        "flac -cds a.flac | sox -D -t wav - -t wav - rate -v 8000 |",
    ],
)
def test_good_pipes_give_what_a_shell_gives(folder, line):
    ours = read_audio(line, allow_pipes=True, rate=None)
    raw = shell(line.strip().rstrip("|") + " | sox -D -t wav - -t raw -e signed-integer -b 16 -L -")
    np.testing.assert_array_equal(ours, raw)
    assert len(ours) > 3000


@needs_sox
def test_output_without_a_length_in_its_header_is_measured(folder):
    # sox cannot go back in a pipe to fill in the size
    assert len(read_audio("sox a.wav -t wav - repeat 2 |", allow_pipes=True)) == 48000


HOSTILE = [
    "sox a.wav -t wav - ; touch pwned |",
    "sox a.wav -t wav - && touch pwned |",
    "sox a.wav -t wav - & touch pwned |",
    "sox a.wav -t wav - || touch pwned |",
    "sox a.wav -t wav - | touch pwned |",
    "touch pwned |",
    "bash -c 'touch pwned' |",
    "sh -c 'sox a.wav -t wav -' |",
    "/usr/bin/sox a.wav -t wav - |",
    "./sox a.wav -t wav - |",
    "env sox a.wav -t wav - |",
    "LD_PRELOAD=./x.so sox a.wav -t wav - |",
    "sox $(touch pwned) -t wav - |",
    "sox `touch pwned` -t wav - |",
    'sox "$(touch pwned)" -t wav - |',
    'sox "`touch pwned`" -t wav - |',
    "sox ${HOME}/a.wav -t wav - |",
    "sox a.wav -t wav pwned |",
    "sox a.wav pwned.wav |",
    "sox a.wav -t wav - > pwned |",
    "sox a.wav -t wav - 2>pwned |",
    "sox < a.wav -t wav - |",
    "cat <(touch pwned) |",
    "sox '|touch pwned' -t wav - |",
    'sox "|touch pwned; cat a.wav" -t wav - |',
    "sox \\|touch\\ pwned -t wav - |",
    "sox http://example.org/a.wav -t wav - |",
    "sox list.m3u -t wav - |",
    "sox -t m3u list.wav -t wav - |",
    "sox -t alsa default -t wav - |",
    "sox -d -t wav - |",
    "sox -n -t wav - synth 1 sine 440 |",
    "sox a.wav -t wav - spectrogram -o pwned |",
    "sox a.wav -t wav - noiseprof pwned |",
    "sox a.wav -t wav - trim 0 0.1 : newfile : restart |",
    "sox a.wav -t wav - ladspa evil.so |",
    "sox --effects-file evil a.wav -t wav - |",
    "sox --temp . a.wav -t wav - |",
    "sox --plot octave a.wav -t wav - gain -3 |",
    "sox a.wav - 'b c.wav' |",
    "sox -twav a.wav a.flac |",
    "flac -d a.flac |",
    "flac -s -d -o pwned a.flac |",
    "flac -d -c --delete-input-file a.flac |",
    "flac -d -c -f -o pwned a.flac |",
    "flac a.wav |",
    "sph2pipe -f wav a.wav pwned |",
    "sph2pipe -h a.wav a.wav |",
    "ffmpeg -i a.wav pwned.wav |",
    "ffmpeg -y -i a.wav -f wav - |",
    "ffmpeg -i http://example.org/a.mp3 -f wav - |",
    "ffmpeg -i concat:a.wav -f wav - |",
    "ffmpeg -f lavfi -i amovie=a.wav -f wav - |",
    "ffmpeg -i a.wav -filter_complex 'amovie=a.wav' -f wav - |",
    "ffmpeg -i a.wav -f wav - -f wav pwned |",
    "ffmpeg -protocol_whitelist file,http -i a.wav -f wav - |",
    "ffmpeg -i a.wav -f tee - |",
    "cat /etc/../no/such/file |",
    "cat -n a.wav |",
    "cat *.wav |",
    "cat ~/a.wav |",
    "sox a.wav -t wav -\n touch pwned |",
    "sox a.wav -t wav - \x00 |",
    "sox 'a.wav -t wav - |",
    "sox a.wav -t wav - | | cat |",
    "| sox a.wav -t wav - |",
    "|",
    "sox a.wav -t wav - |" + " cat |" * 9,
    "sox " + "a.wav " * 2000 + "-t wav - |",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_pipes_are_refused_and_nothing_runs(folder, line, monkeypatch):
    def no_process(*_, **__):
        raise AssertionError("a program was started")

    (folder / "list.m3u").write_text("|touch pwned\n")
    (folder / "list.wav").write_text("|touch pwned\n")
    monkeypatch.setattr(subprocess, "Popen", no_process)
    before = sorted(os.listdir(folder))
    with pytest.raises(BadSample) as error:
        read_audio(line, utterance="u7", allow_pipes=True)
    assert error.value.reason == "pipe refused"
    assert str(error.value).startswith("utterance u7: pipe refused: '")
    assert sorted(os.listdir(folder)) == before


def test_without_permission_every_pipe_is_refused(folder):
    with pytest.raises(BadSample, match="--allow-pipes true"):
        read_audio("sox a.wav -t wav - |")


@needs_sox
def test_failures_are_told(folder):
    (folder / "broken.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(BadSample, match="sox ended with 2: .*broken.wav"):
        read_audio("sox broken.wav -t wav - |", allow_pipes=True)
    with pytest.raises(BadSample, match="sox ended with"):  # the first of two fails, the second is content
        read_audio("sox broken.wav -t wav - | cat a.wav |", allow_pipes=True)
    (folder / "empty").write_bytes(b"")
    with pytest.raises(BadSample, match="no output"):
        read_audio("cat empty |", allow_pipes=True)
    (folder / "cut.wav").write_bytes((folder / "a.wav").read_bytes()[:9000])
    with pytest.raises(BadSample, match="truncated audio"):
        read_audio("cat cut.wav |", allow_pipes=True)


@needs_sox
def test_an_endless_pipe_is_stopped(folder, monkeypatch):
    monkeypatch.setattr(pipes, "MAX_BYTES", 1 << 22)
    with pytest.raises(AudioError, match="more than"):
        pipes.read_pipe("sox a.wav -t wav - repeat 100000 |")
    os.mkfifo(folder / "fifo")
    with pytest.raises(AudioError, match="is no file"):  # would wait for a writer for ever
        pipes.read_pipe("cat fifo |")
    with pytest.raises(AudioError, match="took too long"):
        pipes.read_pipe("sox a.wav -t wav - repeat 1000000 reverse |", timeout=0.3)


def test_a_missing_program_is_named(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(AudioError, match="cat is not installed"):
        pipes.read_pipe("cat a.wav |")


@needs_sox
def test_every_effect_of_this_sox_is_known_by_name():
    # an unknown effect would be taken for a file name, and the output would be looked for in the wrong place
    text = subprocess.run(["sox", "--help"], capture_output=True, text=True).stdout
    names = text.split("EFFECTS:")[1].split("\n")[0].split()
    assert {name.rstrip("*+#") for name in names} <= SOX_EFFECTS | SOX_REFUSED


def test_environment_is_not_handed_on(folder, monkeypatch):
    seen = {}
    monkeypatch.setenv("SOX_OPTS", "--temp /")
    real = subprocess.Popen

    def spy(words, **options):
        seen.update(options["env"])
        return real(words, **options)

    monkeypatch.setattr(subprocess, "Popen", spy)
    soundfile.write("x.wav", np.zeros(100), 16000)
    pipes.read_pipe("cat x.wav |")
    assert "SOX_OPTS" not in seen and "PATH" in seen
