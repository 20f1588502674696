"""Data directories that hold `text` alone."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_data_dir, write_table

from speechkit.data.kaldi_dir import DataDir, holds_text_only, read_data_dir, write_data_dir
from speechkit.data.manifest import read_texts
from speechkit.data.plan import BatchPlan, Config, hash_ids
from speechkit.data.text_plan import ChainedPlan
from speechkit.errors import InputError, ProblemsError

TEXT = {"t1": "one two", "t2": "", "t3": "naïve café"}


def test_a_text_set_is_written_read_and_cut(tmp_path):
    data = DataDir(text=TEXT, tables={"utt2lang": dict.fromkeys(TEXT, "fr")})
    write_data_dir(data, tmp_path / "set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["text", "utt2lang"]
    back = read_data_dir(tmp_path / "set", need_audio=False)
    assert back.text == TEXT and back.utterances == ["t1", "t2", "t3"] and back.speakers == []
    part = back.select(["t3", "t1"])
    assert list(part.text) == ["t1", "t3"] and part.tables["utt2lang"] == {"t1": "fr", "t3": "fr"}
    with pytest.raises(InputError, match="no such utterance: t9"):
        back.select(["t9"])


def test_what_is_a_text_set(tmp_path):
    write_table(tmp_path / "set/text", TEXT)
    assert holds_text_only(tmp_path / "set") and not holds_text_only(tmp_path / "none")
    assert not holds_text_only(make_data_dir(tmp_path / "speech", 2, audio=False))
    with pytest.raises(ProblemsError, match="wav.scp: missing"):
        read_data_dir(tmp_path / "set")
    write_table(tmp_path / "set/utt2spk", dict.fromkeys(TEXT, "s"))
    assert not holds_text_only(tmp_path / "set")  # speakers, and their recordings are missing


def test_further_tables_must_have_the_same_sentences(tmp_path):
    write_table(tmp_path / "text", TEXT)
    write_table(tmp_path / "utt2lang", {"t1": "fr", "t9": "fr"})
    write_table(tmp_path / "word_tags", {"t1": "x", "t2": "", "t3": "x y"})
    with pytest.raises(ProblemsError) as found:
        read_data_dir(tmp_path, need_audio=False)
    lines = [str(problem) for problem in found.value.problems]
    assert [line.partition(str(tmp_path))[2] for line in lines] == [
        "/utt2lang: utterance of text is missing (t2)",
        "/utt2lang: utterance of text is missing (t3)",
        "/utt2lang:2: utterance is not in text (t9)",
        "/word_tags:1: 1 tags for the 2 words of text (t1)",
    ]


def test_the_text_of_sets_and_of_speech_is_read_alike(tmp_path):
    write_table(tmp_path / "set/text", TEXT)
    write_table(tmp_path / "set/utt2lang", dict.fromkeys(TEXT, "fr"))
    speech = make_data_dir(tmp_path / "speech", 3, texts=["a", "b", "c"], audio=False)
    manifest = read_texts([tmp_path / "set", speech])
    ids = [manifest.ids[i] for i in range(len(manifest))]
    texts = [manifest.tables["text"][i] for i in range(len(manifest))]
    assert dict(zip(ids, texts)) == {**TEXT, **read_data_dir(speech).text} and len(ids) == 6
    assert manifest.sources.tolist() == [0] * 3 + [1] * 3 and not manifest.samples.any()
    assert "utt2lang" not in manifest.tables  # not all have it
    assert "utt2lang" in read_texts([tmp_path / "set"]).tables
    write_table(tmp_path / "other/text", {**TEXT, "t3": "naïf café"})
    assert read_texts([tmp_path / "set"]).hash != read_texts([tmp_path / "other"]).hash
    with pytest.raises(InputError, match="utterance t1 is in both"):
        read_texts([tmp_path / "set", tmp_path / "other"])
    (speech / "text").unlink()
    with pytest.raises(InputError, match="text: no sentences, and they are needed"):
        read_texts([speech])


def test_evaluation_reads_one_kind_after_the_other():
    def plan(count, unit):
        ids = hash_ids([f"{unit}{i}" for i in range(count)])
        return BatchPlan(ids, np.arange(1.0, count + 1), Config(seconds=9), shuffle=False, unit=unit)

    speech, text = plan(7, "seconds"), plan(5, "tokens")
    both = ChainedPlan([speech, text])
    rows = [both.row(i) for i in range(both.updates(0))]
    expected = [plan.row(i) for plan in (speech, text) for i in range(plan.updates(0))]
    assert [(row[0].unit, row[0].utterances.tolist()) for row in rows] == [
        (row[0].unit, row[0].utterances.tolist()) for row in expected
    ]
    assert sum(len(row[0].utterances) for row in rows) == 12
    with pytest.raises(IndexError):
        both.row(len(rows))


def test_nothing_to_plan_is_an_error():
    with pytest.raises(InputError, match="no usable sentence"):
        BatchPlan(np.zeros(0, np.uint64), np.zeros(0), Config(), unit="tokens")
    with pytest.raises(InputError, match=r"plan.text.micro_batches=4, but the data set has only 1 sentences"):
        BatchPlan(hash_ids(["a"]), np.ones(1), Config(micro_batches=4), unit="tokens")
