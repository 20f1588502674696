"""BABEL: transcriptions against lhotse's reader, tags by the table, and every stage in miniature."""

import json
import re
from collections import Counter
from dataclasses import replace

import miniature_corpora as mini
import pytest
import soundfile
from bert_folders import SPECIAL, write_bert
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from recipes.test_aishell_asr import FUSED, check_fusion, read_system
from recipes.test_mandarin_ssl import make_checkpoint

from speechkit.config import differences, load_config, to_dict
from speechkit.errors import InputError
from speechkit.systems import read_systems
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/babel/asr1"
CODES = {"vietnamese": "107", "swahili": "202", "tamil": "204"}


@pytest.fixture(scope="module")
def reader():
    """local/data.py and, in it, what local/transcripts.py has."""
    return program(RECIPE / "local/data.py")


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Folder -> the three packs in miniature: path, and lines of each side; not to be changed."""
    folder = tmp_path_factory.mktemp("packs")
    return {language: mini.make_babel(folder, language) for language in mini.BABEL}


def words(text):
    """What must be left of a line of the miniature: no tags, no marks, small letters."""
    return re.sub(r"<[^>]*>|[-*~]", " ", text).replace("_", " ").lower().split()


def rows(table):
    return [line.split() for line in table.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("language", list(CODES))
def test_a_pack_becomes_three_sets(reader, packs, language, tmp_path, capsys):
    pack, made = packs[language]
    reader.prepare(pack, language, tmp_path, 0.3)
    said = capsys.readouterr().out
    speakers = {}
    for name, kept in (("train", (1, 2, 3)), ("dev", (1, 2, 3)), ("test", (1, 2, 3, 4))):
        spoken = texts(tmp_path / name / "text")
        spans = {
            u: (side, float(start), float(end)) for u, side, start, end in rows(tmp_path / name / "segments")
        }
        sides = {side for side, _, _ in spans.values()}
        assert {(side, round(start / 2.1)) for side, start, _ in spans.values()} == {
            (s, k) for s in sides for k in kept
        }
        for utterance, (side, start, end) in spans.items():
            assert end - start == pytest.approx(2.1)
            assert spoken[utterance].split() == words(made[side][round(start / 2.1)])
        speakers[name] = {speaker for _, speaker in rows(tmp_path / name / "utt2spk")}
        assert all(u.startswith(f"{s}_") for u, s in rows(tmp_path / name / "utt2spk"))
        lost = (tmp_path / name / "lost.txt").read_text("utf-8").splitlines()
        assert len(lost) == len(sides) * (5 - len(kept)) and "no words: <no-speech>" in lost[0]
        counts = {tag: (int(count), what) for tag, count, what in rows(tmp_path / name / "tags.txt")}
        n = len(sides)
        assert counts["<hes>"] == counts["<breath>"] == (n, "drop") and counts["~"] == (2 * n, "drop")
        assert counts["<foreign>"] == (n, "drop" if name == "test" else "utterance")
        assert counts["-"] == (2 * n, "mark") and counts["*"] == (n, "mark")
        assert f"{name}: {len(spans)} utterances, {len(speakers[name])} speakers" in said
    numbers = {name: {speaker.split("_")[1] for speaker in found} for name, found in speakers.items()}
    assert not numbers["train"] & numbers["dev"] and len(numbers["train"] | numbers["dev"]) == 6
    assert numbers["dev"] and numbers["test"] == {"20001"}
    assert speakers["test"] == {f"{CODES[language]}_20001_A", f"{CODES[language]}_20001_B"}
    again = tmp_path / "again"
    reader.prepare(pack, language, again, 0.3)
    assert (again / "dev/text").read_bytes() == (tmp_path / "dev/text").read_bytes(), (
        "the choice is no chance"
    )


@pytest.mark.parametrize("language", list(CODES))
def test_the_pieces_are_those_of_lhotse(reader, language, tmp_path):
    """An independent reader finds the same spans and, tags and marks aside, the same words."""
    from lhotse.recipes.babel import prepare_single_babel_language

    pack, _ = mini.make_babel(tmp_path, language)
    for path in pack.rglob("*.sph"):  # which lhotse needs another program for
        soundfile.write(path.with_suffix(".wav"), *soundfile.read(path))
        path.unlink()
    untold = next(pack.rglob("eval/transcription"))  # without any text there it fails
    (untold / next(pack.rglob("eval/audio/*")).with_suffix(".txt").name).write_text("[0.0]\na\n[1.0]\n")
    manifests = prepare_single_babel_language(pack)
    rules = load_config(reader.Rules, reader.TAGS)
    for part in ("training", "dev"):
        folder = next(pack.rglob(f"conversational/{part}"))
        found = {
            (path.stem, piece.start, piece.end): reader.clean(piece.text, rules, test=True)[0].lower().split()
            for path in folder.glob("transcription/*.txt")
            for piece in reader.read_pieces(path)
        }
        expected = {(s.recording_id, s.start, s.end): words(s.text) for s in manifests[part]["supervisions"]}
        assert len(found) == len(expected) > 0
        for (name, start, end), value in expected.items():
            (key,) = [
                k for k in found if k[0] == name and abs(k[1] - start) < 1e-6 and abs(k[2] - end) < 1e-6
            ]
            assert found[key] == value
        sides = {s.recording_id: s.speaker for s in manifests[part]["supervisions"]}
        assert {side.name: side.speaker for side in reader.read_part(folder, CODES[language], rules)} == sides


RULES = {
    "tags": {"<hes>": "drop", "<foreign>": "utterance", "(())": "utterance", "<laugh>": "haha", "~": "drop"},
    "test": {"(())": "drop"},
    "edges": "-*~",
    "inside": {"_": " "},
}


@pytest.mark.parametrize(
    "text, test, expected, counts, against",
    [
        ("moja mbili", False, "moja mbili", {}, []),
        ("<hes>moja<hes> mbili", False, "moja mbili", {"<hes>": 2}, []),
        ("moja <laugh> mbili", False, "moja haha mbili", {"<laugh>": 1}, []),
        ("moja (()) mbili", False, "moja mbili", {"(())": 1}, ["(())"]),
        ("moja (()) mbili", True, "moja mbili", {"(())": 1}, []),
        ("moja (( mbili tatu )) nne", True, "moja nne", {"(())": 1}, []),
        ("<foreign> moja", True, "moja", {"<foreign>": 1}, ["<foreign>"]),
        ("~ moja ~ ~", False, "moja", {"~": 3}, []),
        ("mo- -ja *mbili* ta-tu -", False, "mo ja mbili ta-tu", {"-": 3, "*": 1}, []),
        ("~moja u_k_w -", False, "moja u k w", {"~": 1, "_": 1, "-": 1}, []),
        ("<hes>", False, "", {"<hes>": 1}, []),
        ("ng'ombe", False, "ng'ombe", {}, []),
    ],
)  # fmt: skip
def test_a_text_is_cleaned_by_the_table(reader, text, test, expected, counts, against):
    assert reader.clean(text, reader.Rules(**RULES), test) == (expected, Counter(counts), against)


@pytest.mark.parametrize("tag", ["<laughter>", "<>", "(moja)", "<hes", "[noise]"])
def test_what_is_no_word_and_not_in_the_table_is_an_error(reader, tag):
    with pytest.raises(reader.UnknownTag, match=re.escape(tag)):
        reader.clean(f"moja {tag} mbili", reader.Rules(**RULES), test=False)


@pytest.mark.parametrize(
    "content, says",
    [
        ("[0.0]\na\n[1.0]\nb\n", "x.txt:4: the file ends without the time"),
        ("a\n[0.0]\nb\n[1.0]\n", "x.txt:1: text before the first"),
        ("[0.0]\na\nb\n[1.0]\n", "x.txt:3: a second line of text"),
        ("[1.0]\na\n[0.5]\n", "x.txt:3: \\[0.5\\] comes after \\[1\\]"),
        ("\n", "x.txt: the file is empty"),
    ],
)
def test_a_broken_transcription_is_named(reader, content, says, tmp_path):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(InputError, match=says):
        reader.read_pieces(tmp_path / "x.txt")


def test_times_without_text_and_blank_lines_make_no_piece(reader, tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbf[0.0]\r\n[1]\r\n\r\nmoja \r\n[2.25]\r\n[3.0]\r\n")
    assert reader.read_pieces(tmp_path / "x.txt") == [(4, 1.0, 2.25, "moja")]


@pytest.fixture
def pack(tmp_path):
    """A pack that may be broken; the folder `conversational` in it."""
    return next(mini.make_babel(tmp_path)[0].rglob("conversational"))


def test_an_incomplete_test_set_is_refused_and_training_is_listed(reader, pack, tmp_path, capsys):
    def prepare(share=0.3):
        reader.prepare(pack.parent, "swahili", tmp_path / "data", share)

    gone = pack / "dev/audio/BABEL_OP1_202_20001_20120201_101500_inLine.sph"
    kept = gone.rename(tmp_path / gone.name)
    with pytest.raises(InputError, match=f"no result on it would count: {gone.stem}: no recording"):
        prepare()
    kept.rename(gone)
    for place in ("audio/BABEL_OP1_202_10002_20120102_205740_inLine.sph",
                  "transcription/BABEL_OP1_202_10003_20120103_205740_outLine.txt"):  # fmt: skip
        (pack / "training" / place).unlink()
    prepare()
    lost = "".join((tmp_path / "data" / name / "lost.txt").read_text() for name in ("train", "dev"))
    assert "10002_20120102_205740_inLine: no recording\n" in lost
    assert "10003_20120103_205740_outLine: no transcription\n" in lost
    for share in (0, 1):
        with pytest.raises(InputError, match=f"a dev share of {share} is not possible"):
            prepare(share)


def test_what_is_wrong_with_a_pack_is_one_line(reader, pack, tmp_path):
    def refused(*arguments):
        done = run(RECIPE, "python", "local/data.py", *arguments)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "data").exists()
        return done.stderr

    swahili = (pack.parent, "swahili", tmp_path / "data", "0.3")
    assert "no language 'swaheli'; did you mean 'swahili'?" in refused(swahili[0], "swaheli", *swahili[2:])
    assert "not the name of one side of a call in language 204" in refused(swahili[0], "tamil", *swahili[2:])
    assert "0 folders 'conversational' in it" in refused(pack / "dev", *swahili[1:])
    path = pack / "training/transcription/BABEL_OP1_202_10004_20120104_205740_inLine.txt"
    text = path.read_text()
    path.write_text(text.replace("<breath>", "<breathe>").replace("<click>", "<clack>"))
    assert f"{path.name}:6: '<breathe>' is not in tags.yaml, nor is '<clack>'; say there" in refused(*swahili)
    path.write_text(text.removesuffix("[10.500]\n"))
    assert f"{path.name}:10: the file ends without the time" in refused(*swahili)


@pytest.mark.parametrize("part, size", [("test", 3000), ("train", 500)])
def test_truncated_sphere_stops_the_formatting(reader, pack, tmp_path, part, size):
    folder = pack / {"test": "dev", "train": "training"}[part] / "audio"
    reader.prepare(pack.parent, "swahili", tmp_path / "data", 0.3)
    side = rows(tmp_path / "data" / part / "wav.scp")[-1][0]
    path = folder / f"{side}.sph"
    path.write_bytes(path.read_bytes()[:size])
    command = [
        "speechkit",
        "format",
        "--data",
        tmp_path / "data" / part,
        "--out",
        tmp_path / "dump",
        "--jobs",
        "1",
    ]
    done = run(tmp_path, *command, "--kind", "evaluation" if part == "test" else "train")
    assert done.returncode == 1 and not (tmp_path / "dump").exists()
    assert "truncated audio" in done.stderr and str(path) in done.stderr and "copy it again" in done.stderr


def test_values_are_those_of_the_paper():
    base, large = (
        load_config(RunConfig, RECIPE / f"conf/train_{name}.yaml") for name in ("wav2vec2", "xlsr53")
    )
    assert base == load_config(RunConfig, ROOT / "egs/aishell/asr1/conf/train_wav2vec2.yaml")
    assert base.plan.seconds * 16000 == 640_000 and base.plan.micro_batches == 4
    assert large.plan.seconds * 16000 == 480_000 and large.plan.micro_batches == 3 * 4
    assert (
        (base.plan.min_seconds, base.plan.max_tokens)
        == (large.plan.min_seconds, large.plan.max_tokens)
        == (0.5, 512)
    )
    assert base.optim == large.optim and base.schedule == large.schedule and base.freeze == large.freeze


def test_wavbert_differs_from_that_of_aishell_in_its_schedule():
    own, large = (read_system(RECIPE, name) for name in ("wavbert", "wavbert_xlsr53"))
    aishell = read_system(ROOT / "egs/aishell/asr1", "wavbert")
    p = own.model.linguistic.sampling.p
    assert [round(p(s), 9) for s in (0, 100_000, 150_000, 200_000)] == [0.9, 0.9, 0.5, 0.1]
    sampling = {"model.linguistic.sampling.start", "model.linguistic.sampling.end"}
    lines = differences(to_dict(aishell), to_dict(own))
    assert {line.split(":")[0] for line in lines} == sampling
    assert large.plan == load_config(RunConfig, RECIPE / "conf/train_xlsr53.yaml").plan
    assert large.model == own.model


@pytest.mark.parametrize("language", list(CODES))
def test_a_language_adds_the_papers_numbers_and_nothing_else(language):
    plain = read_systems(RECIPE / "conf/systems.yaml")
    own = read_systems(RECIPE / f"conf/systems_{language}.yaml")
    numbers = {name: system.paper for name, system in own.systems.items() if system.paper}
    assert {"wav2vec2", "wav2vec2_letters", "wavbert", "adapter_bert", "cif_bert"} <= set(numbers)
    assert numbers["wavbert"]["fused"]["test"] < numbers["wav2vec2"]["greedy"]["test"]
    without = {name: replace(system, paper={}) for name, system in own.systems.items()}
    assert replace(own, systems=without, paper=None) == plain and list(without) == list(plain.systems)


@pytest.mark.parametrize(
    "options, says",
    [
        (["--language", "zulu"], "--language must be vietnamese"),
        (["--cer-space", "true"], "--cer-space must be keep"),
        (["--bert", "/nowhere/bert"], "--bert: no folder /nowhere/bert"),
        (["--stage", "1", "--stop-stage", "1"], "--corpus-dir: name a language pack"),
        (["--stage", "4", "--stop-stage", "4"], "--checkpoint: name a Hugging Face folder"),
        (
            ["--stage", "4", "--stop-stage", "4", "--checkpoint", "x", "--bert", "none"],
            "only conformer and *blstmp do without a BERT",
        ),
    ],
)
def test_options_with_few_values_are_checked(options, says):
    done = run(RECIPE, "./run.sh", *options)
    assert done.returncode == 2 and says in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_in_miniature(tmp_path):
    pack, _ = mini.make_babel(tmp_path, "vietnamese")
    sentences = " ".join(mini.BABEL["vietnamese"][1]).split()
    pieces = sorted({"h", "##ô", "##m", *sentences} - {"hôm"})
    vocab, tokenizer = [*SPECIAL, "##x", *pieces], {"do_lower_case": True}
    bert = write_bert(tmp_path / "bert", vocab, tokenizer=tokenizer, max_position_embeddings=64)
    copy("aishell/asr1", tmp_path)
    recipe = copy("babel/asr1", tmp_path)
    options = ["--corpus-dir", pack, "--language", "vietnamese", "--bert", bert, "--dev-share", "0.3"]
    options += ["--checkpoint", make_checkpoint(tmp_path / "checkpoint"), "--methods", "all"]
    said = stages(recipe, *options, timeout=1500)
    work = recipe / "quick/vietnamese"
    assert "finished stages 0 1 2 3 4 5 6 7 8" in said and not (recipe / "quick/exp").exists()

    for audio in (work / "dump/test/audio").rglob("*.flac"):
        info = soundfile.info(audio)
        assert (info.samplerate, info.channels, info.frames) == (16000, 1, 33600)
    tokens = {line.split()[0] for line in (work / "data/tokens/bert/tokens.txt").open()}
    assert {"hôm", "h", "##ô", "chào"} & tokens == {"h", "##ô", "chào"}, "tone marks stay"
    words_known = set((work / "data/lm/words").read_text().split())
    assert {"chào", "đẹp"} <= words_known
    exp = work / "exp"
    reference = texts(work / "dump/test/text").values()
    for system, how in (("conformer", "ngram"), ("conformer", "lexicon"), ("wav2vec2", "greedy")):
        folder = exp / system / f"seed1/decode_test_{how}"
        result = json.loads((folder / "result.json").read_text())
        assert result["scored"]["cer_counts_spaces"] is True
        assert result["cer"]["counts"]["characters"] == sum(map(len, reference))
    check_fusion(exp, FUSED)
    stages(recipe, *options, "--stage", "7", "--stop-stage", "7", "--cer-space", "drop")
    result = json.loads((exp / "wav2vec2/seed1/decode_test_greedy/result.json").read_text())
    assert result["scored"]["cer_counts_spaces"] is False
    assert result["cer"]["counts"]["characters"] == sum(len(text.replace(" ", "")) for text in reference)
