"""The corpus of nine languages: sentences, voices, phones, audio, and that what is held out is unheard."""

import itertools
import json
import re
import sys

import numpy as np
import pytest
import soundfile
from recipes.large_recipe import ROOT, copy, run

from speechkit.data.kaldi_dir import read_data_dir, validate_data_dir
from speechkit.data.leakage import find_leaks
from speechkit.data.synthesis import Synthesizer, Voice
from speechkit.errors import InputError
from speechkit.files import hash_file
from speechkit.text.phone_inventory import ipa_phones, language_switch, odd_symbols
from speechkit.text.phone_tags import strip_tag
from speechkit.text.tokenizer import load_tokenizer

RECIPE = ROOT / "egs/mini_multi/unispeech1"
PATH = list(sys.path)
sys.path.insert(0, str(RECIPE / "local"))

import corpus as recipe  # noqa: E402
import languages  # noqa: E402
from languages import SOURCE_VOICES, SOURCES, TARGET_VOICES, TARGETS  # noqa: E402

sys.path[:] = PATH
VOICES = SOURCES | TARGETS
DEFAULT = {name: size for name, (size, _) in recipe.SIZES.items()}
TINY = {"english": 8, "source": 6, "source_dev": 2, "test": 7, "dev": 5, "train": 12, "unlabelled": 6}
LETTERS = {
    "en": "a-z",
    "es": "a-záéíóúñü",
    "fr": "a-zàâçèéêëîïôûùüœ'-",
    "it": "a-zàèéìòù'",
    "ky": "а-яёңөү",
    "nl": "a-z'",
    "ru": "а-яё",
    "sv": "a-zåäö",
    "tt": "а-яёәөүҗңһ",
}


@pytest.fixture(scope="module")
def texts():
    """Every language's sentences at the default sizes."""
    return {
        language: languages.write_texts(language, recipe.sizes_of(language, DEFAULT), 1)
        for language in VOICES
    }


# --- grammars and sentences --------------------------------------------------------------------------


@pytest.mark.parametrize("language", [language for language in VOICES if language != "en"])
def test_a_grammar_is_large_and_whole(language):
    rules = languages.read_rules(languages.GRAMMARS / f"{language}.txt")
    grammar = languages.read_grammar(language)
    symbols = set(re.findall(r"\b[A-Z]+\b", " ".join(rules.values())))
    assert symbols | {"SENTENCE"} == set(rules), "a symbol without a rule, or a rule that nothing asks for"
    assert len(grammar.words()) >= 230 and grammar.count("SENTENCE") > 500_000


def test_rules_are_read_and_a_broken_file_is_refused(tmp_path):
    file = tmp_path / "xx.txt"
    file.write_text("# a note\nSENTENCE\n    2* a B\n    b | -\n\nB\n    c\n", encoding="utf-8")
    assert languages.read_rules(file) == {"SENTENCE": "    2* a B\n    b | -", "B": "    c"}
    file.write_text("# a note\n    a | b\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"xx\.txt:2: alternatives without a symbol"):
        languages.read_rules(file)
    with pytest.raises(InputError, match="nosuch.txt: no such file"):
        languages.read_rules(tmp_path / "nosuch.txt")


@pytest.mark.parametrize("language", VOICES)
def test_sentences_are_in_the_languages_script_and_of_sound_length(texts, language):
    sentences = list(itertools.chain(*texts[language].values()))
    assert all(re.fullmatch(f"[ {LETTERS[language]}]+", text) for text in sentences)
    assert all(text == " ".join(text.split()) and 2 <= len(text.split()) <= 22 for text in sentences)
    used = {letter for text in sentences for letter in text}
    own = set(LETTERS[language].replace("a-z", "").replace("а-яё", "")) & set("ñçàèìåäöңөүәҗһ")
    assert own <= used, "letters that only this language has must come up"


@pytest.mark.parametrize("language", VOICES)
def test_no_sentence_comes_up_twice(texts, language):
    sizes = recipe.sizes_of(language, DEFAULT)
    assert {name: len(own) for name, own in texts[language].items()} == sizes
    assert len(set(itertools.chain(*texts[language].values()))) == sum(sizes.values())


@pytest.mark.parametrize("language", ["en", "ky"])
def test_sentences_depend_on_the_seed_and_not_on_what_follows(texts, language):
    sizes = recipe.sizes_of(language, DEFAULT)
    first, last = list(sizes)[0], list(sizes)[-1]
    fewer = languages.write_texts(language, sizes | {last: 5}, 1)
    assert fewer[first] == texts[language][first] and fewer[last] == texts[language][last][:5]
    other = languages.write_texts(language, sizes, 2)
    assert len(set(other[first]) & set(texts[language][first])) < 0.1 * sizes[first]


def test_a_grammar_that_is_too_small_says_so():
    with pytest.raises(InputError, match=r"nl: 9000001 sentences asked for, its grammar gives \d+"):
        languages.write_texts("nl", {"test": 1, "dev": 9_000_000}, 1)


# --- voices and conditions ---------------------------------------------------------------------------


def test_no_voice_is_in_two_groups():
    groups = [*SOURCE_VOICES.values(), *(TARGET_VOICES[name] for name in ("test", "dev", "train"))]
    for one, other in itertools.combinations(groups, 2):
        assert not {v.lower() for v in one} & {v.lower() for v in other}
    assert TARGET_VOICES["unlabelled"] == TARGET_VOICES["train"]
    assert set(itertools.chain(*groups)) <= set(Synthesizer().variants())
    assert min(map(len, groups)) >= 4 and len(SOURCE_VOICES["train"]) >= 28


@pytest.fixture(scope="module")
def planned():
    return recipe.plan_corpus(list(VOICES), "nl", DEFAULT, 1)


def test_a_plan_keeps_voices_and_telephones_apart(planned):
    heard = {name: {row["speaker"] for row in rows} for name, rows in planned.items()}
    sources = set().union(*(heard[name] for name in heard if name.partition("_")[0] in SOURCES))
    for target in TARGETS:
        parts = [heard[f"{target}_{part}"] for part in ("test", "dev", "train")]
        assert not sources & set().union(*parts) and sum(map(len, parts)) == len(set().union(*parts))
        assert heard[f"{target}_unlabelled"] == heard[f"{target}_train"]
    for name, rows in planned.items():
        conditions = {row["condition"]["name"] for row in rows}
        over = name.endswith("_telephone")
        assert conditions == {"telephone"} if over else conditions <= {"clean", "noise", "room"}, name
        assert {row["voice"]["name"] for row in rows} == {VOICES[name.partition("_")[0]]}
    utterances = [row["utterance"] for rows in planned.values() for row in rows]
    assert len(utterances) == len(set(utterances))


def test_the_telephone_copy_says_the_same(planned):
    for part in recipe.TELEPHONE:
        original, copy = planned[f"nl_{part}"], planned[f"nl_{part}_telephone"]
        for one, other in zip(original, copy, strict=True):
            assert all(one[key] == other[key] for key in ("speaker", "text", "voice"))
            assert other["condition"]["level_db"] == one["condition"]["level_db"]
            assert one["utterance"] != other["utterance"] and one["path"] != other["path"]
    assert not any("telephone" in name for name in recipe.plan_corpus(["nl"], "none", TINY, 1))


# --- phones ------------------------------------------------------------------------------------------


def said(synthesizer, text, voice):
    """The phones of a text as `speechkit phonemize` names them, or the mark of a language that came in."""
    raw = " ".join("_".join(group) for group in synthesizer.phones(text, voice))
    switch = language_switch(raw)
    return [switch] if switch else ipa_phones(raw, voice.name)


@pytest.fixture(scope="module")
def phones(texts):
    """language -> set -> the phones of its first sentences."""
    synthesizer, found = Synthesizer(), {}
    for language, sets in texts.items():
        voice = Voice(VOICES[language])
        found[language] = {
            name: {phone for text in own[:120] for phone in said(synthesizer, text, voice)}
            for name, own in sets.items()
        }
    return found


@pytest.mark.parametrize("language", VOICES)
def test_no_word_is_read_in_another_language(phones, language):
    spoken = set().union(*phones[language].values())
    assert not [phone for phone in spoken if phone.startswith("(")] and not odd_symbols(spoken)
    assert len(spoken) >= 30
    if language != "en":  # every word, also what the first sentences lack
        synthesizer, voice = Synthesizer(), Voice(VOICES[language])
        words = languages.read_grammar(language).words()
        assert not [word for word in words if said(synthesizer, word, voice)[0].startswith("(")]


@pytest.mark.parametrize("language", TARGETS)
def test_a_target_has_phones_that_english_lacks(phones, language):
    english = phones["en"]["train"]
    assert len(phones[language]["test"] - english) >= 8
    assert len(phones[language]["test"] & english) >= 8, "and some that both have"
    sources = set().union(*(phones[source]["train"] for source in SOURCES))
    assert phones[language]["test"] - sources, "some are in no source at all"
    assert len(phones[language]["test"] - phones[language]["train"]) <= 3


# --- the commands ------------------------------------------------------------------------------------


def make(out, *arguments):
    sizes = [word for name, size in TINY.items() for word in (f"--{name.replace('_', '-')}", size)]
    command = [sys.executable, "local/corpus.py", "--out", out, *sizes, *arguments]
    return run(RECIPE, *command, timeout=280)


def hashes(folder):
    return {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini_multi") / "downloads/mini_multi"
    done = make(out, "--telephone", "nl", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def data(made):
    out = made.parents[1] / "data"
    done = run(RECIPE, sys.executable, "local/data.py", made, out)
    assert done.returncode == 0, done.stderr
    return out


def rows_of(made, name):
    return [json.loads(line) for line in (made / name / "sentences.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.timeout(600)
def test_same_seed_same_bytes_for_any_jobs(tmp_path):
    few = ("--sources", "es", "--targets", "ky", "--telephone", "ky", "--train", 60)  # two blocks
    for jobs in (1, 3):
        assert make(tmp_path / str(jobs), *few, "--jobs", jobs).returncode == 0
    assert hashes(tmp_path / "1") == hashes(tmp_path / "3") and len(hashes(tmp_path / "1")) > 120
    other = make(tmp_path / "other", "--sources", "es", "--targets", "ky", "--seed", 2)
    assert other.returncode == 0
    assert hashes(tmp_path / "other")["ky_test/text.txt"] != hashes(tmp_path / "1")["ky_test/text.txt"]


def test_second_call_does_nothing(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    done = make(made, "--telephone", "nl", "--jobs", 2)
    assert done.returncode == 0 and "up to date" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*")}


def test_the_default_sizes_make_the_minutes_that_are_told(made):
    wanted = {"en_train": 40, "unlabelled": 20, "test": 10, "dev": 5, "train": 5}
    for language in VOICES:
        rows = list(itertools.chain(*(rows_of(made, p.name) for p in made.glob(f"{language}_*"))))
        mean = np.mean([row["samples"] for row in rows]) / 16000
        for name, count in recipe.sizes_of(language, DEFAULT).items():
            minutes = wanted.get(f"{language}_{name}", 20 if language in SOURCES else wanted[name])
            if name != "dev" or language in TARGETS:
                assert 0.75 < mean * count / 60 / minutes < 1.3, (language, name)


def test_audio_is_sound_and_a_telephone_is_narrow(made):
    def high(name):  # share of the power above 4 kHz
        shares = []
        for row in rows_of(made, name):
            samples, rate = soundfile.read(made / row["path"])
            info = soundfile.info(made / row["path"])
            assert (info.format, info.subtype, rate, info.channels) == ("FLAC", "PCM_16", 16000, 1)
            assert len(samples) == row["samples"] and 0.01 < np.sqrt(np.mean(samples**2)) < 0.3
            power = np.abs(np.fft.rfft(samples)) ** 2
            shares.append(power[len(power) // 2 :].sum() / power.sum())
        return np.mean(shares)

    assert high("nl_test_telephone") < 1e-3 < high("nl_test")
    assert high("ru_unlabelled") > 1e-3


def test_data_directories(made, data):
    names = sorted(path.name for path in data.iterdir())
    assert len(names) == 4 * 2 + 5 * 4 + 3
    for name in names:
        labelled = not name.endswith("_unlabelled")
        assert validate_data_dir(data / name, read_audio=True, need_text=labelled, rate=16000) == [], name
        kept = read_data_dir(data / name)
        assert set(kept.tables["utt2lang"].values()) == {name.partition("_")[0]}
        assert bool(kept.text) == labelled and "utt2cond" in kept.tables
        assert list(kept.text.values() or rows_of(made, name)) and len(kept.wav) == len(rows_of(made, name))


def test_data_is_left_alone_when_the_corpus_is_the_same(made, data):
    (data / "nl_dev/phones.txt").write_text("")
    done = run(RECIPE, sys.executable, "local/data.py", made, data)
    assert done.returncode == 0 and done.stderr.count("up to date") == 31
    assert (data / "nl_dev/phones.txt").is_file()
    (data / "nl_dev/phones.txt").unlink()


def test_data_without_a_corpus_says_so(tmp_path):
    done = run(RECIPE, sys.executable, "local/data.py", tmp_path / "nothing", tmp_path / "data")
    assert done.returncode == 1 and not (tmp_path / "data").exists()
    assert "nothing: no sets of speech there; make the corpus first" in done.stderr


def test_nothing_is_shared_with_what_is_held_out(data):
    sets = {path.name: read_data_dir(path) for path in data.iterdir()}
    held_out = [sets[f"{target}_{part}"] for target in TARGETS for part in ("dev", "test")]
    trained = [own for name, own in sets.items() if name.endswith(("_train", "_unlabelled"))]
    assert len(trained) == 4 + 5 * 2
    assert find_leaks(held_out, [*trained, sets["nl_train_telephone"]], []) == []
    tests = [sets[f"{target}_test"] for target in TARGETS]
    assert find_leaks(tests, [sets[f"{target}_dev"] for target in TARGETS], [], audio=False) == []
    kinds = {
        leak.kind for leak in find_leaks([sets["nl_test"]], [sets["nl_test_telephone"]], [], audio=False)
    }
    assert kinds == {"speaker", "sentence"}  # the copy would be found


def test_phones_of_frames_are_those_of_the_language(made, data):
    """mini_en's program tells the phones of other languages too: those that the sentence has."""
    names = [f"{target}_test" for target in TARGETS]
    done = run(RECIPE, sys.executable, "../../mini_en/ssl1/local/phones.py", made, data, *names, timeout=280)
    assert done.returncode == 0, done.stderr
    synthesizer = Synthesizer()
    for name in names:
        frames = read_data_dir(data / name).tables["phones.txt"]
        for row in rows_of(made, name):
            symbols = frames[row["utterance"]].split()
            assert len(symbols) == row["samples"] // 160
            expected = said(synthesizer, row["text"], Voice(**row["voice"]))
            heard = [p for p, before in zip(symbols, [None, *symbols]) if p not in (before, "sil")]
            assert len(set(heard) & set(expected)) >= 0.9 * len(set(expected)), (name, row["text"], heard)
            assert len(heard) > 0.8 * len(expected)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--test", "0"], "--test must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--sources", "en,xx"], "--sources: 'xx': give some of en,es,fr,it, each once"),
        (["--targets", "ky,ky"], "--targets: 'ky'"),
        (["--targets", "ky", "--telephone", "nl"], "--telephone nl: must be one of --targets, or none"),
        (["--nosuch", "1"], "unrecognized arguments"),
    ],
)
def test_bad_command_lines(tmp_path, capsys, arguments, told):
    with pytest.raises(SystemExit) as stopped:
        recipe.arguments(["--out", str(tmp_path / "out"), *arguments])
    assert stopped.value.code == 2 and told in capsys.readouterr().err


# --- the first stages --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_synthesis_to_vocabularies(tmp_path):
    for name in ("mini_en/asr1", "mini_en/ssl1"):
        copy(name, tmp_path)
    here = copy("mini_multi/unispeech1", tmp_path)
    command = ["./run.sh", "--corpus", "small", "--stop-stage", "3", "--jobs", "1"]
    done = run(here, *command, timeout=1700)
    assert done.returncode == 0, done.stderr[-4000:]
    dump = here / "quick/small/dump"
    sets = {path.name for path in dump.iterdir() if path.is_dir()}
    assert {"fr_train_phn", "ky_test_phn", "ky_train_sep", "ky_unlabelled", "nl_train_telephone"} <= sets
    assert (dump / "en_train_phn/cmvn.json").is_file() and not (dump / "ky_train_phn/cmvn.json").exists()
    for name in ("fr_dev_phn", "ky_dev_phn"):
        spelt = read_data_dir(dump / name)
        frames = spelt.tables["phones.txt"]
        assert frames.keys() == spelt.text.keys() and set(spelt.tables["utt2lang"].values()) == {name[:2]}
        timed = {phone for line in frames.values() for phone in line.split()} - {"sil"}
        written = {strip_tag(phone) for line in spelt.text.values() for phone in line.split()}
        assert len(timed & written) >= 0.9 * len(written | timed), timed ^ written
    held_out = read_data_dir(dump / "held_out_phn")
    assert set(held_out.tables["utt2lang"].values()) == {"en", "es", "fr", "it", "ky", "nl"}
    assert held_out.tables["phones.txt"].keys() == held_out.text.keys() == held_out.tables["feats.scp"].keys()
    tokens = here / "quick/small/data/tokens"
    spelt = {path.name: set(load_tokenizer(path).vocab) for path in tokens.iterdir() if path.is_dir()}
    assert spelt.keys() == {"en", "sources", "ky", "nl", "targets", "targets_sep", "letters"}
    assert any(phone.startswith("(es)") for phone in spelt["sources"]) and "(en)s" in spelt["en"]
    assert "(nl)s" in spelt["targets_sep"] and "s" in spelt["targets"] >= spelt["ky"] | spelt["nl"]
