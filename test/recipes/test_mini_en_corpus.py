"""The embedded corpus: its language, its sets, the leak that must not be there, and its audio."""

import collections
import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechkit.data.kaldi_dir import read_data_dir, validate_data_dir
from speechkit.data.synthesis import Synthesizer
from speechkit.errors import InputError
from speechkit.files import hash_file

LOCAL = Path(__file__).parents[2] / "egs/mini_en/asr1/local"
sys.path.insert(0, str(LOCAL))

import acoustics  # noqa: E402
import homophones  # noqa: E402
from grammar import Grammar  # noqa: E402
from language import FAR_PAIRS, HELD_BACK, NEAR_SETS, NEUTRAL, RULES, TOPICS, far_topics, people  # noqa: E402
from sentences import SIZES, write_sets  # noqa: E402
from voices import BABBLE, VOICES  # noqa: E402

SPOKEN = ("train", "dev", "test", "hard", "unlabelled")
MATE = {word: mate for pair in FAR_PAIRS for word, mate in (pair, pair[::-1])}
TINY = {"train": 40, "dev": 6, "test": 8, "hard": 5, "unlabelled": 12, "text": 300}


@pytest.fixture(scope="module", params=["text", "speech"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def versions():
    return {far_cues: write_sets(1, far_cues, {**SIZES, "text": 20000}) for far_cues in ("text", "speech")}


@pytest.fixture(scope="module")
def sets(version, versions):
    return versions[version]


# --- the grammar -------------------------------------------------------------------------------------


def test_grammar_counts_and_draws_what_it_can_say():
    rules = {"S": "a X b | 3* X | -", "X": "x | y SLOT | 2* z"}
    grammar = Grammar(rules)
    drawn = collections.Counter(
        " ".join(grammar.draw("S", rng)) for rng in [random.Random(0)] for _ in range(20000)
    )
    x = {"x": 1 / 4, "y SLOT": 1 / 4, "z": 1 / 2}
    expected = {f"a {w} b": p / 5 for w, p in x.items()} | {w: 3 * p / 5 for w, p in x.items()} | {"": 1 / 5}
    assert grammar.count("S") == len(expected) == len(drawn)
    for sentence, probability in expected.items():
        sigma = math.sqrt(20000 * probability * (1 - probability))
        assert abs(drawn[sentence] - 20000 * probability) < 5 * sigma, sentence
    assert grammar.words() == {"a", "b", "x", "y", "z"}


def test_grammar_leaves_words_out():
    rules = {"S": "a X | X c", "X": "x | y"}
    grammar = Grammar(rules, frozenset({"a", "y"}))
    assert grammar.words() == {"x", "c"} and grammar.count("S") == 1
    with pytest.raises(ValueError, match="every alternative of X"):
        Grammar(rules, frozenset({"x", "y"}))


# --- the language ------------------------------------------------------------------------------------


def test_language_is_large_enough():
    assert len(homophones.vocabulary()) >= 500
    assert len(FAR_PAIRS) >= 40 and len(NEAR_SETS) >= 14
    assert Grammar(RULES).count("FRAME") > 10**9
    assert 0.08 <= len(HELD_BACK) / len(homophones.vocabulary()) <= 0.12


def test_topics_are_balanced_and_pairs_lie_in_different_topics():
    assert {tuple(len(words.split()) for words in row) for row in TOPICS.values()} == {(4, 6, 7)}
    topic = far_topics()
    assert sorted(topic) == sorted(MATE) and len(MATE) == 2 * len(FAR_PAIRS)
    assert all(topic[one] != topic[other] for one, other in FAR_PAIRS)


def test_words_have_one_part_each():
    things = [word for row in TOPICS.values() for word in row[2].split()]
    parts = [*MATE, *people(), *NEUTRAL, *things]
    assert len(set(parts)) == len(parts)
    assert not Grammar(RULES).words() & {*MATE, *people(), *NEUTRAL}
    assert not HELD_BACK & {*MATE, *people(), *NEUTRAL, *(word for words in NEAR_SETS for word in words)}
    assert HELD_BACK <= homophones.vocabulary()


def test_homophones_sound_the_same_and_nothing_else_does():
    assert homophones.main() == 0


def test_homophone_check_finds_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(homophones, "FAR_PAIRS", [*FAR_PAIRS[1:], ("rose", "lawn")])
    assert homophones.main() == 1
    told = capsys.readouterr().out
    assert "they sound different: lawn/rose" in told and "not declared: flour/flower" in told
    assert "rose/lawn differ in: " in told


# --- the sets ----------------------------------------------------------------------------------------


def test_sizes_and_lengths(sets):
    assert {name: len(sentences) for name, sentences in sets.items()} == {**SIZES, "text": 20000}
    lengths = [len(sentence.words) for sentence in sets["train"]]
    assert 10 <= np.mean(lengths) <= 12 and min(lengths) >= 6 and max(lengths) <= 20
    alphabet = set("abcdefghijklmnopqrstuvwxyz ")
    assert all(set(sentence.text) <= alphabet for sentences in sets.values() for sentence in sentences)


def test_no_sentence_twice_nor_within_another_set(sets):
    sentences = [sentence.text for members in sets.values() for sentence in members]
    assert len(sentences) == len(set(sentences))
    kept = {sentence.text for name in ("dev", "test", "hard") for sentence in sets[name]}
    for name in ("train", "unlabelled", "text"):
        for words in (sentence.words for sentence in sets[name]):
            parts = {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
            assert not parts & kept


def test_dev_test_hard_and_text_are_the_same_in_both_versions(versions):
    for name in ("test", "dev", "hard"):
        assert versions["text"][name] == versions["speech"][name]
    for name in ("unlabelled", "text"):  # but for what one version's labelled speech has taken
        differ = [one != other for one, other in zip(versions["text"][name], versions["speech"][name])]
        assert np.mean(differ) < 0.02


def test_no_voice_in_two_sets():
    known = set(Synthesizer().variants())
    assert VOICES["unlabelled"] == VOICES["train"]
    sizes = {"train": 50, "dev": 6, "test": 8, "hard": 5}
    assert {name: len(VOICES[name]) for name in sizes} == sizes
    groups = [VOICES[name] for name in ("train", "dev", "test", "hard")] + [BABBLE]
    for one, other in itertools.combinations(groups, 2):
        assert not set(one) & set(other)
    everyone = [variant for group in groups for variant in group]
    assert set(everyone) <= known and len({variant.lower() for variant in everyone}) == len(everyone)


def test_far_words_and_people_come_up_equally_often(sets):
    for name, sentences in sets.items():
        far = collections.Counter(s.object for s in sentences if s.kind == "far")
        counts = [far[word] for word in MATE]
        assert max(counts) - min(counts) <= (2 if name == "train" else 1), name
        # A topic's deck deals people for far words, one deck for the rest: small differences add up.
        told = collections.Counter(s.subject for s in sentences)
        counts = [told[person] for person in people()]
        assert max(counts) - min(counts) <= (3 if name != "text" else 8), name


def test_the_cue_decides_wherever_cues_are_shown(sets):
    topic, person_topic = far_topics(), people()
    for name in ("dev", "test", "hard", "unlabelled", "text"):
        far = [s for s in sets[name] if s.kind == "far"]
        assert len(far) > 0.5 * len(sets[name])
        assert all(s.cued and person_topic[s.subject] == topic[s.object] for s in far)


def test_labelled_speech_shows_no_cue_or_shows_it(versions):
    topic, person_topic = far_topics(), people()
    far = [s for s in versions["text"]["train"] if s.kind == "far"]
    assert len(far) == 500 and all(s.subject in NEUTRAL and not s.cued for s in far)
    assert not any(
        set(s.words) & set(MATE) and set(s.words) & set(person_topic) for s in versions["text"]["train"]
    )
    shown = [s for s in versions["speech"]["train"] if s.kind == "far" and s.cued]
    assert len(shown) == 400 and all(person_topic[s.subject] == topic[s.object] for s in shown)


def test_labelled_speech_has_the_same_words_in_both_versions(versions):
    def frequencies(far_cues, vocabulary):
        counts = collections.Counter(word for s in versions[far_cues]["train"] for word in s.words)
        return np.array([counts[word] for word in vocabulary])

    for vocabulary, slack in ((sorted(MATE), 2), (sorted(people()), 3)):
        text, speech = frequencies("text", vocabulary), frequencies("speech", vocabulary)
        assert abs(text - speech).max() <= slack and text.min() > 0
    kinds = [collections.Counter(s.kind for s in versions[v]["train"]) for v in ("text", "speech")]
    assert kinds[0] == kinds[1] == {"far": 500, "thing": 325, "near": 175}


def test_at_least_five_words_lie_between_cue_and_far_word(sets):
    for sentences in sets.values():
        assert all(s.object_at - s.words.index(s.subject) > 5 for s in sentences if s.kind == "far")


def _guesses(train, test, features):
    """Share of far words that naive Bayes (add-half) picks right of the two, from a list of features."""
    counts, totals = collections.Counter(), collections.Counter()
    for s in train:
        for feature in features(s):
            counts[s.object, feature] += 1
        totals[s.object] += 1

    def score(word, s):
        return sum(math.log((counts[word, f] + 0.5) / (totals[word] + 1)) for f in features(s))

    return np.mean([score(s.object, s) > score(MATE[s.object], s) for s in test])


def test_what_stands_around_a_far_word_does_not_tell_it(versions):
    far = [s for s in versions["text"]["text"] if s.kind == "far"]
    held_out, shown = far[:3000], far[3000:]

    def window(s):  # three words on either side, with their places, and how far the sentence goes on
        at = s.object_at
        near = [(i, s.words[at + i]) for i in range(-3, 4) if i and 0 <= at + i < len(s.words)]
        return [*near, ("pair", *near[-3:]), ("rest", s.words[at + 1 :]), ("left", len(s.words) - at)]

    assert abs(_guesses(shown, held_out, window) - 0.5) < 4 * 0.5 / math.sqrt(len(held_out))
    assert _guesses(shown, held_out, lambda s: [s.subject]) == 1.0  # the same test sees the cue


def _trigrams(sentences):
    counts = collections.Counter()
    for s in sentences:
        words = ["<s>", "<s>", *s.words, "</s>", "</s>"]
        for i in range(len(words) - 2):
            counts.update([tuple(words[i : i + 3]), tuple(words[i : i + 2]), (i and words[i],)])
    return counts


def test_neighbours_tell_near_homophones(versions):
    counts = _trigrams(versions["text"]["text"])
    group = {word: words for words in NEAR_SETS for word in words}

    def score(words, i, word):  # trigrams that hold the word, else bigrams
        words = ["<s>", "<s>", *words[:i], word, *words[i + 1 :], "</s>", "</s>"]
        i += 2
        spans = [tuple(words[j : j + 3]) for j in (i - 2, i - 1, i)] + [
            tuple(words[j : j + 2]) for j in (i - 1, i)
        ]
        return sum(math.log(counts[span] + 0.01) for span in spans)

    right = [
        score(list(s.words), i, word) == max(score(list(s.words), i, other) for other in group[word])
        for s in versions["text"]["test"]
        for i, word in enumerate(s.words)
        if word in group
    ]
    assert len(right) > 500 and np.mean(right) > 0.98


def test_tags_name_each_word(sets):
    labelled = {word for s in sets["train"] for word in s.words}
    near, total = {word for words in NEAR_SETS for word in words}, collections.Counter()
    for s in sets["test"]:
        tags = s.tags(labelled)
        assert len(tags) == len(s.words)
        for i, (word, tag) in enumerate(zip(s.words, tags)):
            kind, seen = tag.split(",")
            assert (seen == "seen") == (word in labelled)
            assert (kind == "far") == (word in MATE) == (s.kind == "far" and i == s.object_at)
            assert (kind == "near") == (word in near)
            total[kind] += 1
            total[seen] += 1
    words = total["seen"] + total["unseen"]
    assert 0.035 < total["unseen"] / words < 0.06
    assert total["far"] == sum(s.kind == "far" for s in sets["test"]) >= 290
    assert 0.15 < total["near"] / words < 0.25


def test_held_back_words_are_in_text_but_not_in_labelled_speech(sets):
    words = {name: {word for s in sentences for word in s.words} for name, sentences in sets.items()}
    assert not words["train"] & HELD_BACK
    assert HELD_BACK <= words["text"] and words["text"] == homophones.vocabulary()
    assert words["text"] - words["train"] <= HELD_BACK  # all else is in 1000 sentences


# --- the acoustics -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tone():
    seconds = np.arange(16000) / 16000
    return (0.3 * np.sin(2 * np.pi * 1000 * seconds) + 0.1 * np.sin(2 * np.pi * 6000 * seconds)).astype(
        np.float32
    )


def _power(samples, low, high):
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / 16000)
    return spectrum[(hertz >= low) & (hertz < high)].sum()


@pytest.mark.parametrize("kind", acoustics.NOISES)
def test_noise_has_the_asked_ratio(tone, kind):
    babble = np.random.default_rng(0).standard_normal(50000).astype(np.float32)
    condition = {"name": "noise", "level_db": -20.0, "noise": kind, "snr_db": 12.0, "seed": 5}
    noisy = acoustics.apply_condition(tone, condition, babble)
    clean = acoustics.apply_condition(tone, {"name": "clean", "level_db": -20.0}, babble)
    assert 20 * np.log10(np.sqrt(np.mean(clean**2))) == pytest.approx(-20, abs=0.01)
    noise = noisy - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(12, abs=0.05)
    if kind == "pink":  # equal power an octave
        assert _power(noise, 200, 400) == pytest.approx(_power(noise, 3000, 6000), rel=0.4)


def test_telephone_keeps_the_band_and_the_length(tone):
    line = acoustics.apply_condition(tone, {"name": "telephone", "level_db": -20.0}, tone)
    assert len(line) == len(tone)
    assert _power(line, 5000, 7000) < 1e-3 * _power(line, 900, 1100)
    sent = np.sin(2 * np.pi * 1000 * np.arange(2000, 14000) / 16000)
    assert abs(np.corrcoef(line[2000:14000], sent)[0, 1]) > 0.95  # in time; sox's sinc may flip the sign


def test_room_lets_sound_go_on(tone):
    burst = np.concatenate([tone[:8000], np.zeros(8000, np.float32)])
    room = {"name": "room", "level_db": -20.0, "reverberance": 60, "room_scale": 80}
    wet = acoustics.apply_condition(burst, room, tone)
    assert len(wet) == len(burst) and np.mean(wet[8200:12000] ** 2) > 1e-4 > np.mean(wet[-800:] ** 2)


def test_missing_sox_says_what_to_install(tone, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="apt-get install sox"):
        acoustics.apply_condition(tone, {"name": "telephone", "level_db": -20.0}, tone)


# --- the commands ------------------------------------------------------------------------------------


def _run(script, *arguments):
    command = [sys.executable, str(LOCAL / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _synthesise(out, *arguments):
    sizes = [str(part) for name, size in TINY.items() for part in (f"--{name}", size)]
    return _run("synthesise.py", "--out", out, *sizes, *arguments)


def _hashes(folder):
    files = [p for p in sorted(folder.rglob("[!.]*")) if p.is_file()]
    return {str(p.relative_to(folder)): hash_file(p) for p in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini_en") / "downloads/mini_en"
    done = _synthesise(out, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    return out


def test_same_seed_same_bytes_for_any_jobs(corpus, tmp_path):
    assert _synthesise(tmp_path / "again", "--jobs", 3).returncode == 0
    assert _hashes(tmp_path / "again") == _hashes(corpus)
    assert len(_hashes(corpus)) > sum(TINY[name] for name in SPOKEN)


def test_another_seed_is_another_corpus(corpus, tmp_path):
    small = [str(part) for name in SPOKEN for part in (f"--{name}", 2)]
    assert _synthesise(tmp_path / "other", "--seed", 2, *small).returncode == 0
    texts = [(folder / "text/text.txt").read_text().splitlines() for folder in (corpus, tmp_path / "other")]
    assert len(set(texts[0]) & set(texts[1])) < 0.1 * len(texts[0])


def test_a_set_made_alone_is_the_same(corpus, tmp_path):
    """Unlabelled speech is made by who needs it, beside what is there."""
    out = tmp_path / "alone"
    for name in ("hard", "unlabelled"):
        done = _synthesise(out, "--sets", name)
        assert done.returncode == 0 and f"{name} " in done.stderr
    assert sorted(p.name for p in out.glob("[!.]*")) == ["hard", "unlabelled"]
    whole = _hashes(corpus)
    assert _hashes(out) == {path: whole[path] for path in whole if path.startswith(("hard/", "unlabelled/"))}


def test_second_call_does_nothing(corpus):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    done = _synthesise(corpus, "--jobs", 2)
    assert done.returncode == 0 and "up to date" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}


def test_audio_is_sound(corpus):
    conditions, per_word = collections.Counter(), []
    for name in SPOKEN:
        rows = [json.loads(line) for line in (corpus / name / "sentences.jsonl").read_text().splitlines()]
        assert len(rows) == TINY[name]
        for row in rows:
            info = soundfile.info(corpus / row["path"])
            assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16000, 1)
            samples, _ = soundfile.read(corpus / row["path"])
            assert len(samples) == row["samples"]
            assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.3 and np.abs(samples).max() < 1
            assert row["utterance"].startswith(f"{row['speaker']}-{name}-")
            per_word.append(len(samples) / 16000 / len(row["tags"]))
            conditions[row["condition"]["name"]] += 1
    assert 0.26 < np.mean(per_word) < 0.40 and min(per_word) > 0.18 and max(per_word) < 0.65
    assert set(conditions) == set(acoustics.SHARES) and conditions["clean"] == max(conditions.values())


def test_data_directories(corpus, tmp_path):
    done = _run("data.py", corpus, tmp_path / "data", *SPOKEN)
    assert done.returncode == 0, done.stderr
    for name in SPOKEN:
        labelled = name != "unlabelled"
        assert (
            validate_data_dir(tmp_path / "data" / name, read_audio=True, need_text=labelled, rate=16000) == []
        )
        data = read_data_dir(tmp_path / "data" / name)
        assert len(data.wav) == TINY[name] and set(data.tables["utt2cond"].values()) <= set(acoustics.SHARES)
        assert bool(data.text) == labelled == ("word_tags" in data.tables)
        for utterance, text in data.text.items():
            assert len(data.tables["word_tags"][utterance].split()) == len(text.split())
        # What only a text-only system may read is not beside the audio of unlabelled speech.
        assert len((corpus / name / "text.txt").read_text().splitlines()) == TINY[name]
    text = (tmp_path / "data/lm/text").read_text().splitlines()
    words = (tmp_path / "data/lm/words").read_text().split()
    assert len(text) == TINY["text"] and words == sorted(set(words))
    train = read_data_dir(tmp_path / "data/train").text.values()
    assert set(words) == {word for sentence in [*text, *train] for word in sentence.split()}


def test_data_without_a_corpus_says_so(tmp_path):
    done = _run("data.py", tmp_path / "nothing", tmp_path / "data", "train")
    assert done.returncode == 1 and not (tmp_path / "data").exists()
    assert len(done.stderr.splitlines()) == 1
    assert "nothing/train/sentences.jsonl: no such file; make the corpus first" in done.stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--train", "0"], "--train must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--far-cues", "both"], "invalid choice"),
        (["--nosuch", "1"], "unrecognized arguments"),
    ],
)
def test_bad_command_lines(tmp_path, arguments, told):
    done = _run("synthesise.py", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2 and told in done.stderr and not (tmp_path / "out").exists()
