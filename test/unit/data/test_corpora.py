"""Data sets from lhotse's recipes and from folders of audio."""

from types import SimpleNamespace

import miniature_corpora as mini
import pytest
from factories import make_wave
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.recipes import prepare_aishell3, prepare_librispeech

from speechkit.data.corpora import read_corpus, read_folder
from speechkit.errors import InputError


def test_librispeech_is_read_as_it_is_written(tmp_path):
    made = mini.make_librispeech(tmp_path, ("dev-clean", "test-other"), seconds=0.5)
    sets, lost = read_corpus(prepare_librispeech, tmp_path / "LibriSpeech", dataset_parts=list(made))
    assert lost == [] and {part: data.text for part, data in sets.items()} == made
    data = sets["dev-clean"]
    assert data.segments == {} and data.speakers == ["174", "84"]
    root = tmp_path / "LibriSpeech/dev-clean"
    assert data.wav["84-1084-0000"] == str(root / "84/1084/84-1084-0000.flac")


def test_a_missing_recording_is_counted(tmp_path):
    mini.make_librispeech(tmp_path, ("dev-clean",), seconds=0.5)
    gone = tmp_path / "LibriSpeech/dev-clean/84/1084/84-1084-0003.flac"
    gone.unlink()
    sets, lost = read_corpus(prepare_librispeech, tmp_path / "LibriSpeech", dataset_parts=["dev-clean"])
    assert lost == [f"No such file: {gone}"]
    assert "84-1084-0003" not in sets["dev-clean"].utt2spk and len(sets["dev-clean"].utt2spk) == 9


def test_a_recipe_with_its_names_exchanged_is_read_too(tmp_path):
    names = mini.make_aishell3(tmp_path, seconds=0.5)
    sets, _ = read_corpus(prepare_aishell3, tmp_path / "aishell3", prefix="a3-")
    read = {utterance for data in sets.values() for utterance in data.utterances}
    assert read == {f"a3-{name}" for name in names}
    assert sets["train"].speakers == ["a3-SSB0005"] and set(sets["train"].text.values()) == {"广州"}


def of(path, start=0.0, duration=1.0, speaker="s", name="u", text="hello  there\n"):
    """A recipe that finds one utterance in one file."""
    recording = Recording.from_file(path, recording_id="r")
    piece = SupervisionSegment(name, "r", start, duration, speaker=speaker, text=text)
    manifest = {
        "recordings": RecordingSet.from_recordings([recording]),
        "supervisions": SupervisionSet.from_segments([piece]),
    }
    return lambda corpus: {"train": manifest}


def test_pieces_of_a_recording_become_segments(tmp_path):
    path = make_wave(tmp_path / "r.wav", 2.0)
    sets, _ = read_corpus(of(path, 0.5, 1.0), tmp_path, prefix="x-")
    assert sets["train"].segments == {"x-u": ("x-r", 0.5, 1.5)}
    assert sets["train"].text == {"x-u": "hello there"} and sets["train"].utt2spk == {"x-u": "x-s"}
    sets, _ = read_corpus(of(path, 0.0, 2.0, name="r", speaker=None), tmp_path)
    assert sets["train"].segments == {} and sets["train"].utt2spk == {"r": "r"}


def test_audio_outside_the_corpus_is_refused(tmp_path):
    path = make_wave(tmp_path / "elsewhere/r.wav", 1.0)
    (tmp_path / "corpus").mkdir()
    with pytest.raises(InputError, match="outside the corpus"):
        read_corpus(of(path), tmp_path / "corpus")
    with pytest.raises(InputError, match="outside the corpus"):
        read_corpus(of(tmp_path / "corpus/../elsewhere/r.wav"), tmp_path / "corpus")


@pytest.mark.parametrize("line", ["84-1084-0000", "\n", "../../../../etc/passwd-1-2 X"])
def test_a_transcript_that_is_broken_is_an_error_or_counted(tmp_path, line):
    mini.make_librispeech(tmp_path, ("dev-clean",), seconds=0.5)
    table = tmp_path / "LibriSpeech/dev-clean/84/1084/84-1084.trans.txt"
    table.write_text(line)
    try:
        sets, lost = read_corpus(prepare_librispeech, tmp_path / "LibriSpeech", dataset_parts=["dev-clean"])
    except InputError as error:
        assert "LibriSpeech: prepare_librispeech cannot read it" in str(error)
    else:
        assert len(lost) == 1 and len(sets["dev-clean"].utt2spk) == 5


def test_an_unreadable_recording_is_named(tmp_path):
    mini.make_librispeech(tmp_path, ("dev-clean",), seconds=0.5)
    broken = tmp_path / "LibriSpeech/dev-clean/84/1084/84-1084-0003.flac"
    broken.write_bytes(b"no audio")
    with pytest.raises(InputError, match="84-1084-0003"):
        read_corpus(prepare_librispeech, tmp_path / "LibriSpeech", dataset_parts=["dev-clean"])
    with pytest.raises(InputError, match="no such folder"):
        read_corpus(prepare_librispeech, tmp_path / "nowhere")


def test_a_folder_of_audio_is_a_data_set(tmp_path):
    for name in ("ann a/1.wav", "ben/deep/2.FLAC", "3.wav"):
        make_wave(tmp_path / name.lower(), 0.2)
    (tmp_path / "ben/deep/2.flac").rename(tmp_path / "ben/deep/2.FLAC")
    (tmp_path / "notes.txt").write_text("no audio")
    data = read_folder(tmp_path, prefix="c-")
    assert data.utt2spk == {"c-ann_a-1": "c-ann_a", "c-ben-deep-2": "c-ben-deep", "c-3": "c-all"}
    assert data.wav["c-3"] == str(tmp_path / "3.wav") and data.text == {}
    make_wave(tmp_path / "ann_a/1.wav", 0.2)
    with pytest.raises(InputError, match="same id, c-ann_a-1"):
        read_folder(tmp_path, prefix="c-")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio file"):
        read_folder(tmp_path / "empty")


def test_a_recording_must_be_a_file(tmp_path):
    path = make_wave(tmp_path / "r.wav", 1.0)
    manifest = of(path)(tmp_path)["train"]
    source = SimpleNamespace(type="command", source="rm -rf /")
    manifest["recordings"] = type("RecordingSet", (list,), {})(
        [SimpleNamespace(id="r", sources=[source], duration=1.0)]
    )
    with pytest.raises(InputError, match="is a command, not a file"):
        read_corpus(lambda corpus: {"train": manifest}, tmp_path)
