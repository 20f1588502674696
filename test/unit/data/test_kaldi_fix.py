"""Fixing: form repaired, rejections named and bounded, evaluation sets untouched."""

import json

import pytest
from factories import make_data_dir, write_table

from speechkit.bin.__main__ import main
from speechkit.data.fix import fix_data_dir, kind_of, repair
from speechkit.data.kaldi_dir import read_data_dir, validate_data_dir
from speechkit.data.validate import Checks
from speechkit.errors import InputError, ProblemsError


def snapshot(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_form_is_repaired_without_losing_anything(tmp_path):
    path = make_data_dir(tmp_path / "train", 6, 2)
    good = {name: (path / name).read_bytes() for name in ("text", "wav.scp", "utt2spk", "spk2utt")}
    lines = good["text"].splitlines(keepends=True)
    (path / "text").write_bytes(
        b"\xef\xbb\xbf" + b"".join(reversed(lines)).replace(b"\n", b" \r\n") + b"\n" + lines[0]
    )
    (path / "wav.scp").write_bytes(good["wav.scp"].replace(b" ", b"\t")[:-1])
    (path / "spk2utt").unlink()
    assert validate_data_dir(path)
    fixed = fix_data_dir(path)
    assert not fixed.ledger.dropped and len(fixed.ledger.kept) == 6
    assert {name: (path / name).read_bytes() for name in good} == good
    assert (path / ".backup" / "text").read_bytes().startswith(b"\xef\xbb\xbf")
    assert fixed.repairs["byte order mark removed"] == 1 and fixed.repairs["last line feed added"] == 1


def test_texts_get_plain_spaces():
    fixed, _ = repair("u a\u00a0b\u2028c\x0bd\n".encode(), "text")
    assert fixed == b"u a b c d\n"
    assert repair(fixed, "text") == (fixed, {})


def broken(path, total: int = 20):
    """A training set with a different trouble in each of seven utterances."""
    make_data_dir(path, total, 1, texts=["w w"] * total)
    ids = [f"s00-{index:03d}" for index in range(total)]
    text = {utterance: "w w" for utterance in ids[1:]}  # 0 has no text
    text[ids[1]] = ""
    text[ids[2]] = "w"  # one word, two tags
    write_table(path / "text", text)
    lines = (path / "text").read_bytes().split(b"\n")
    lines[2] = b"s00-003 \xff"
    (path / "text").write_bytes(b"\n".join(lines))
    write_table(path / "word_tags", dict.fromkeys(ids, "- -"))
    wav = dict(line.split(" ", 1) for line in (path / "wav.scp").read_text().splitlines())
    wav[ids[4]] = "/nowhere/a.wav"
    wav[ids[5]] = "cat x |"
    write_table(path / "wav.scp", wav)
    with open(path / "utt2spk", "a") as file:
        file.write("s00-006 other\n")
    return ids


def test_every_rejection_is_named_with_its_reason(tmp_path):
    path = tmp_path / "train"
    ids = broken(path)
    fixed = fix_data_dir(path, max_reject=0.5)
    rows = [json.loads(line) for line in (path / "rejected.jsonl").read_text().splitlines()]
    reasons = {row["utterance"]: row["reason"] for row in rows}
    assert reasons == {
        ids[0]: "utterance not in text",
        ids[1]: "empty transcript",
        ids[2]: "word_tags: not one tag for each word",
        ids[3]: "text: not UTF-8",
        ids[4]: "no such file",
        ids[5]: "pipe refused: --allow-pipes true runs such entries",
        ids[6]: "utt2spk: duplicate id",
    }
    assert fixed.ledger.kept == ids[7:]
    assert validate_data_dir(path, read_audio=True) == []
    assert len(list((path / "audio").iterdir())) == 20  # audio is never deleted
    assert (path / ".backup" / "text").read_bytes().count(b"\xff") == 1


def test_fixing_again_changes_nothing_and_forgets_nothing(tmp_path):
    path = tmp_path / "train"
    broken(path)
    fix_data_dir(path, max_reject=0.5)
    before = snapshot(path)
    assert not fix_data_dir(path).ledger.dropped
    assert snapshot(path) == before
    wav = (path / "wav.scp").read_text().splitlines()
    (path / "wav.scp").write_text("\n".join(wav[1:]) + "\n")
    fix_data_dir(path, max_reject=0.5)
    assert len((path / "rejected.jsonl").read_text().splitlines()) == 8


def test_above_the_ceiling_nothing_is_written(tmp_path, capsys):
    path = tmp_path / "train"
    broken(path)
    before = snapshot(path)
    with pytest.raises(InputError, match=r"7 of 20 utterances dropped .* at most 0\.01"):
        fix_data_dir(path)
    assert main(["fix", str(path)]) == 1
    assert "speechkit fix: error: stage fix: 7 of 20" in capsys.readouterr().err
    assert main(["fix", str(path), "--output", str(tmp_path / "out")]) == 1
    assert snapshot(path) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dev", "test_clean", "Eval2000", "valid"])
def test_nothing_is_rejected_from_an_evaluation_set(tmp_path, name, capsys):
    path = tmp_path / name
    broken(path)
    before = snapshot(path)
    assert main(["fix", str(path), "--max-reject", "1"]) == 1
    assert "nothing may be dropped from an evaluation set" in capsys.readouterr().err
    assert snapshot(path) == before
    assert main(["fix", str(path), "--max-reject", "1", "--evaluation", "false"]) == 0
    assert "7 rejected" in capsys.readouterr().err


def test_an_evaluation_set_can_have_its_form_repaired(tmp_path):
    path = make_data_dir(tmp_path / "test", 4, 2)
    content = (path / "text").read_bytes()
    (path / "text").write_bytes(content.replace(b"\n", b"\r\n"))
    assert main(["fix", str(path)]) == 0
    assert (path / "text").read_bytes() == content


def test_kind_by_name():
    assert kind_of("data/test") == kind_of("dump/dev_other/") == "evaluation"
    assert kind_of("data/train") == kind_of("data/latest") == "train"


def test_audio_is_heard_when_asked(tmp_path):
    path = make_data_dir(tmp_path / "train", 4, 1)
    (path / "audio" / "s00-002.wav").write_bytes(b"RIFF")
    assert not fix_data_dir(path, tmp_path / "a").ledger.dropped
    fixed = fix_data_dir(path, tmp_path / "b", max_reject=0.3, checks=Checks(read_audio=True))
    assert [fate.utterance for fate in fixed.ledger.dropped] == ["s00-002"]
    assert read_data_dir(tmp_path / "b").utterances == ["s00-000", "s00-001", "s00-003"]
    assert sum(fate.seconds for fate in fixed.ledger.fates if fate.kept) == 3.0


def test_a_broken_recording_rejects_all_its_segments(tmp_path):
    path = make_data_dir(tmp_path / "train", 6, 2, segments=True)
    (path / "audio" / "s01.wav").unlink()
    fixed = fix_data_dir(path, tmp_path / "out", max_reject=0.5)
    assert [fate.utterance for fate in fixed.ledger.dropped] == ["s01-000", "s01-001", "s01-002"]
    assert list(read_data_dir(tmp_path / "out").wav) == ["s00"]


def test_recordings_and_speakers_that_nothing_needs_go_too(tmp_path):
    path = make_data_dir(tmp_path / "train", 4, 2, segments=True)
    with open(path / "wav.scp", "a") as file:
        file.write("s09 /some/where.wav\n")
    with open(path / "spk2utt", "a") as file:
        file.write("s09 s09-001\n")
    assert validate_data_dir(path)
    assert not fix_data_dir(path).ledger.dropped
    assert validate_data_dir(path) == []


def test_utt2spk_is_made_from_spk2utt(tmp_path):
    path = make_data_dir(tmp_path / "train", 4, 2)
    content = (path / "utt2spk").read_bytes()
    (path / "utt2spk").unlink()
    fix_data_dir(path)
    assert (path / "utt2spk").read_bytes() == content


@pytest.mark.parametrize("name", ["text", "utt2spk"])
def test_a_useless_table_stops_the_fix(tmp_path, name):
    path = make_data_dir(tmp_path / "train", 4, 2)
    (path / name).write_bytes(b"")
    with pytest.raises(ProblemsError, match=f"{name}: empty file"):
        fix_data_dir(path, max_reject=1.0)


def test_nothing_left_is_an_error(tmp_path):
    path = make_data_dir(tmp_path / "train", 4, 2, audio=False)
    with pytest.raises(InputError, match="no utterance can be kept"):
        fix_data_dir(path, max_reject=1.0)
