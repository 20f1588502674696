"""Subsets, joins and splits."""

import json
import random
from collections import Counter

import pytest
from factories import make_data_dir, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from speechkit.bin.__main__ import main
from speechkit.data import subset
from speechkit.data.combine import combine, rename
from speechkit.data.durations import utterance_seconds
from speechkit.data.kaldi_dir import DataDir, Segment, read_data_dir, validate_data_dir, write_data_dir
from speechkit.data.split import split, write_split
from speechkit.errors import InputError, ProblemsError


def made(sizes: list[int], seed: int = 0) -> tuple[DataDir, dict[str, float]]:
    """A data set in memory with so many utterances of each speaker, and random lengths."""
    draw = random.Random(seed)
    utt2spk = {f"s{s:02d}-{u:03d}": f"s{s:02d}" for s, size in enumerate(sizes) for u in range(size)}
    data = DataDir(wav=dict.fromkeys(utt2spk, "x.wav"), text=dict.fromkeys(utt2spk, "w"), utt2spk=utt2spk)
    return data, {utterance: draw.uniform(0.5, 20) for utterance in utt2spk}


sizes = st.lists(st.integers(1, 12), min_size=1, max_size=8)


# ---- subset


@given(sizes, st.lists(st.floats(0.02, 1), min_size=2, max_size=5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_hour_budgets_are_kept_nested_and_fair(sizes, shares, seed):
    data, seconds = made(sizes, seed)
    total = sum(seconds.values())
    previous: set[str] = set()
    for share in sorted(shares):
        try:
            chosen = subset.by_hours(data, share * total / 3600, seconds, seed)
        except InputError:
            continue
        used = sum(seconds[utterance] for utterance in chosen)
        assert share * total - max(seconds.values()) < used <= share * total + 1e-5
        assert previous <= set(chosen)
        previous = set(chosen)
        for speaker, utterances in data.spk2utt.items():
            own = sum(seconds[utterance] for utterance in utterances)
            taken = sum(seconds[utterance] for utterance in utterances if utterance in previous)
            longest = max(seconds[utterance] for utterance in utterances)
            # the pace is that of the last utterance taken: no speaker is off it by more than one utterance
            pace = used / total
            slack = longest / own + max(seconds.values()) * len(sizes) / total
            assert abs(taken / own - pace) <= slack + 1e-9, speaker


def test_hours_depend_on_the_seed_and_on_nothing_else():
    data, seconds = made([10, 10, 10])
    chosen = subset.by_hours(data, 0.02, seconds, seed=1)
    shuffled = list(data.utt2spk.items())
    random.Random(3).shuffle(shuffled)
    again = DataDir(utt2spk=dict(shuffled))
    assert subset.by_hours(again, 0.02, seconds, seed=1) == chosen
    assert subset.by_hours(data, 0.02, seconds, seed=2) != chosen


@pytest.mark.parametrize("hours", [0, -1, 1e-6, 1000, float("nan")])
def test_impossible_hours(hours):
    data, seconds = made([3, 3])
    with pytest.raises(InputError, match="cannot take|no utterance fits"):
        subset.by_hours(data, hours, seconds)


def test_first_last_shortest_random():
    data, seconds = made([4, 4])
    ids = data.utterances
    assert subset.by_count(data, 3, "first") == ids[:3]
    assert subset.by_count(data, 3, "last") == ids[-3:]
    assert subset.by_count(data, 3, "shortest", 0, seconds) == sorted(ids, key=seconds.get)[:3]
    assert subset.by_count(data, 8, "random") != ids and sorted(subset.by_count(data, 8, "random")) == ids
    few, more = subset.by_count(data, 2, "random", 7), subset.by_count(data, 5, "random", 7)
    assert set(few) < set(more)
    for count in (0, 9, -1):
        with pytest.raises(InputError, match="cannot take"):
            subset.by_count(data, count, "first")


def test_random_choices_are_uniform():
    data, _ = made([5, 5])
    counts = Counter(u for seed in range(2000) for u in subset.by_count(data, 3, "random", seed))
    assert len(counts) == 10 and max(abs(n - 600) for n in counts.values()) < 6 * (2000 * 0.3 * 0.7) ** 0.5


def test_speakers_are_taken_whole_until_there_are_enough():
    data, _ = made([3, 5, 2, 4])
    for count in range(1, 15):
        chosen = subset.by_speakers(data, count, seed=count)
        taken = Counter(data.utt2spk[utterance] for utterance in chosen)
        assert all(taken[speaker] == len(data.spk2utt[speaker]) for speaker in taken)
        last = data.utt2spk[chosen[-1]]
        assert len(chosen) >= count > len(chosen) - taken[last]


def test_per_speaker_as_kaldi_chooses_them():
    """Worked by hand from Kaldi's rule: the largest step with step * n <= the speaker's utterances."""
    data, _ = made([10, 2, 7])
    assert subset.per_speaker(data, 3) == [
        *("s00-000", "s00-003", "s00-006"),
        *("s01-000", "s01-001"),
        *("s02-000", "s02-002", "s02-004"),
    ]
    with pytest.raises(InputError):
        subset.per_speaker(data, 0)


def test_lists(tmp_path):
    data, _ = made([2, 2])
    (tmp_path / "u").write_text("s01-000 extra columns\ns00-001\n")
    (tmp_path / "s").write_text("s01\n")
    assert subset.by_list(data, tmp_path / "u", "utterance") == ["s00-001", "s01-000"]
    assert subset.by_list(data, tmp_path / "s", "speaker") == ["s01-000", "s01-001"]


def test_subset_command_cuts_segments_and_recordings(tmp_path, capsys):
    path = make_data_dir(tmp_path / "train", 8, 2, seconds=1.0, segments=True, audio=False)
    out = tmp_path / "out"
    arguments = ["subset", str(path), str(out), "--hours", str(3.5 / 3600)]
    assert main(arguments) == 0
    assert "3 of 8 utterances, 2 of 2 speakers" in capsys.readouterr().err
    assert validate_data_dir(out, need_audio=False) == [] and len(read_data_dir(out).segments) == 3
    assert main(arguments) == 0 and "up to date" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1"]) == 0 and "3 of 8" in capsys.readouterr().err
    assert main([*arguments[:3], "--minutes", str(2.5 / 60)]) == 0 and "2 of 8" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1"]) == 0 and "3 of 8" in capsys.readouterr().err
    (path / "text").write_text((path / "text").read_text().replace("one", "eleven"))
    assert main([*arguments, "--seed", "1"]) == 0 and "3 of 8" in capsys.readouterr().err


def test_lengths_come_from_the_first_source_that_knows(tmp_path):
    path = make_data_dir(tmp_path / "d", 2, 1, seconds=[0.5, 0.75])
    data = read_data_dir(path)
    assert utterance_seconds(data) == {"s00-000": 0.5, "s00-001": 0.75}
    data.tables["utt2num_samples"] = {"s00-000": "16000", "s00-001": "8000"}
    assert utterance_seconds(data) == {"s00-000": 1.0, "s00-001": 0.5}
    data.tables["utt2dur"] = {"s00-000": "3", "s00-001": "4"}
    assert utterance_seconds(data) == {"s00-000": 3.0, "s00-001": 4.0}
    data.segments = {"s00-000": Segment("r", 1, 6), "s00-001": Segment("r", 6, 7)}
    assert utterance_seconds(data) == {"s00-000": 5, "s00-001": 1}


# ---- split


@given(sizes, st.integers(1, 10), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_split_is_a_balanced_partition(sizes, parts, per_utterance):
    data, _ = made(sizes)
    if parts > len(data.utt2spk):
        with pytest.raises(InputError, match="cannot split"):
            split(data, parts, per_utterance)
        return
    pieces = split(data, parts, per_utterance)
    assert [u for piece in pieces for u in piece.utterances] == data.utterances and len(pieces) == parts
    counts = [len(piece.utt2spk) for piece in pieces]
    assert min(counts) > 0
    if per_utterance or len(sizes) < parts:
        assert max(counts) - min(counts) <= 1
    else:
        speakers = [speaker for piece in pieces for speaker in piece.speakers]
        assert len(speakers) == len(set(speakers))
        if len(set(sizes)) == 1:
            assert max(counts) - min(counts) <= sizes[0]


def test_split_layout_and_only_the_recordings_needed(tmp_path, capsys):
    path = make_data_dir(tmp_path / "train", 12, 4, segments=True, audio=False)
    write_table(path / "utt2lang", dict.fromkeys(read_data_dir(path).utterances, "en"))
    assert main(["split", str(path), "2"]) == 0
    parts = [read_data_dir(path / "split2" / n) for n in "12"]
    assert [list(part.wav) for part in parts] == [["s00", "s01"], ["s02", "s03"]]
    assert all(validate_data_dir(part.path, need_audio=False) == [] for part in parts)
    joint, messages = combine(parts)
    assert joint.rows() == read_data_dir(path).rows() and not messages
    assert main(["split", str(path), "6", "--per-utt", "true"]) == 0
    assert sorted(p.name for p in (path / "split6utt").iterdir()) == list("123456")
    read_data_dir(path)  # the parts are no tables of the whole
    capsys.readouterr()
    assert main(["split", str(path), "2"]) == 0 and "up to date" in capsys.readouterr().err


def test_a_failed_split_leaves_the_earlier_one(tmp_path):
    path = make_data_dir(tmp_path / "train", 4, 2, audio=False)
    write_split(read_data_dir(path), 2)
    assert main(["split", str(path), "5"]) == 1
    assert main(["split", str(path), "0"]) == 2
    assert sorted(p.name for p in path.iterdir() if p.is_dir()) == ["split2"]


# ---- combine


def test_combined_sets_hold_everything_once(tmp_path):
    a = read_data_dir(make_data_dir(tmp_path / "a", 4, 2, prefix="a", audio=False))
    b = read_data_dir(make_data_dir(tmp_path / "b", 6, 3, prefix="b", audio=False))
    joint, messages = combine([a, b])
    assert joint.text == {**a.text, **b.text} and joint.wav == {**a.wav, **b.wav} and not messages
    write_data_dir(joint, tmp_path / "joint")
    assert read_data_dir(tmp_path / "joint").rows() == joint.rows()


def test_a_speaker_may_be_in_both_but_must_be_the_same(tmp_path):
    whole = read_data_dir(make_data_dir(tmp_path / "a", 4, 1, audio=False))
    whole.tables["spk2gender"] = {"s00": "f"}
    a, b = whole.select(["s00-000"]), whole.select(["s00-001"])
    assert combine([a, b])[0].spk2utt == {"s00": ["s00-000", "s00-001"]}
    b.tables["spk2gender"] = {"s00": "m"}
    with pytest.raises(ProblemsError, match=r"spk2gender: speaker is also in .* with another value \(s00\)"):
        combine([a, b])


def test_duplicate_utterances_are_named_once_each(tmp_path):
    a = read_data_dir(make_data_dir(tmp_path / "a", 2, 1, audio=False))
    b = read_data_dir(make_data_dir(tmp_path / "b", 2, 1, audio=False))
    b.wav = dict(a.wav)
    with pytest.raises(ProblemsError) as error:
        combine([a, b])
    assert [str(p) for p in error.value.problems] == [
        f"{tmp_path}/b/utt2spk: utterance is also in {tmp_path}/a (s00-00{n})" for n in (0, 1)
    ]


def test_a_table_that_one_source_lacks(tmp_path, capsys):
    a = make_data_dir(tmp_path / "a", 2, 1, prefix="a", audio=False)
    b = make_data_dir(tmp_path / "b", 2, 1, prefix="b", audio=False)
    write_table(b / "utt2lang", dict.fromkeys(read_data_dir(b).utterances, "en"))
    out = tmp_path / "out"
    assert main(["combine", str(out), str(a), str(b)]) == 1
    assert f"{a}: no utt2lang, which other sources have" in capsys.readouterr().err
    assert not out.exists()
    assert main(["combine", str(out), str(a), str(b), "--drop-partial", "true"]) == 0
    assert f"utt2lang left out: {a} has none" in capsys.readouterr().err
    assert not read_data_dir(out).tables


def test_segments_are_never_left_out(tmp_path, capsys):
    a = make_data_dir(tmp_path / "a", 2, 1, prefix="a", audio=False)
    b = make_data_dir(tmp_path / "b", 2, 1, prefix="b", segments=True, audio=False)
    assert main(["combine", str(tmp_path / "out"), str(a), str(b), "--drop-partial", "true"]) == 1
    assert "no segments" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_renaming_keeps_recordings_unless_they_are_the_utterances(tmp_path):
    whole = read_data_dir(make_data_dir(tmp_path / "a", 4, 2, segments=True, audio=False))
    new = rename(whole, lambda u: f"p-{u}", lambda s: f"p-{s}")
    assert list(new.wav) == ["s00", "s01"] and new.utt2spk["p-s00-000"] == "p-s00"
    simple = read_data_dir(make_data_dir(tmp_path / "b", 4, 2, audio=False))
    simple.tables["spk2gender"] = {"s00": "f", "s01": "m"}
    new = rename(simple, lambda u: f"p-{u}", lambda s: f"p-{s}")
    assert list(new.wav) == sorted(new.text) and new.tables["spk2gender"] == {"p-s00": "f", "p-s01": "m"}
    write_data_dir(new, tmp_path / "c")
    with pytest.raises(InputError, match="two utterances would get the same"):
        rename(simple, lambda u: "same")


def test_no_command_writes_over_its_source(tmp_path, capsys):
    path = make_data_dir(tmp_path / "a", 4, 2, audio=False)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    assert main(["subset", str(path), str(path) + "/.", "--count", "2"]) == 1
    assert main(["combine", str(path), str(path)]) == 1
    assert "is also the source" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--hours", "1", "--count", "2"],
        ["--hours", "x"],
        ["--hours", "0.001", "--pick", "first"],
        ["--pick", "first"],
    ],
)
def test_bad_command_lines(tmp_path, options):
    path = make_data_dir(tmp_path / "a", 4, 2, audio=False)
    try:
        status = main(["subset", str(path), str(tmp_path / "out"), *options])
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and not (tmp_path / "out").exists()


# ---- what lies beside frame labels


def labelled(folder, prefix, **record):
    """A data directory with km_mfcc.txt, and the record that speechkit kmeans writes beside it."""
    make_data_dir(folder, 4, 2, prefix=prefix, audio=False)
    write_table(folder / "km_mfcc.txt", {name: "3 1 2" for name in read_data_dir(folder).utterances})
    if record:
        (folder / "km_mfcc.json").write_text(json.dumps({"utterances": 4, "inertia": 0.5, **record}))
    return folder


FACTS = {"label_rate": 100, "offset": 0.0125, "clusters": 5, "kmeans": "abc"}


def test_a_part_keeps_what_is_true_of_its_labels(tmp_path, capsys):
    source, out = labelled(tmp_path / "a", "a", **FACTS), tmp_path / "out"
    command = ["subset", str(source), str(out), "--count", "2"]
    assert main(command) == 0
    assert json.loads((out / "km_mfcc.json").read_text()) == FACTS  # no counts of the whole
    assert len(read_data_dir(out).tables["km_mfcc.txt"]) == 2
    (source / "km_mfcc.json").write_text(json.dumps({**FACTS, "kmeans": "new"}))
    assert main(command) == 0 and "up to date" not in capsys.readouterr().err
    assert json.loads((out / "km_mfcc.json").read_text())["kmeans"] == "new"
    (source / "km_mfcc.txt").unlink()
    assert main(command) == 0
    assert not list(out.glob("km*"))  # no record without its labels


def test_joined_labels_must_be_of_one_model(tmp_path, capsys):
    a, b = labelled(tmp_path / "a", "a", **FACTS), labelled(tmp_path / "b", "b", **FACTS)
    out = tmp_path / "out"
    assert main(["combine", str(out), str(a), str(b)]) == 0
    assert json.loads((out / "km_mfcc.json").read_text()) == FACTS
    other = labelled(tmp_path / "c", "c", **{**FACTS, "label_rate": 50})
    assert main(["combine", str(tmp_path / "bad"), str(a), str(other)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert f"{other}: km_mfcc.txt has another label_rate (50) than that of {a} (100)" in line
    assert not (tmp_path / "bad").exists()
    silent = labelled(tmp_path / "d", "d")
    assert main(["combine", str(out), str(a), str(silent)]) == 0
    assert f"km_mfcc.json left out: {silent} has none" in capsys.readouterr().err
    assert (out / "km_mfcc.txt").exists() and not (out / "km_mfcc.json").exists()


def test_phones_of_frames_go_with_their_utterances(tmp_path, capsys):
    source = make_data_dir(tmp_path / "a", 4, 2, prefix="a", audio=False)
    names = read_data_dir(source).utterances
    write_table(source / "phones.txt", {names[0]: "sil h ə", names[1]: "", names[3]: "sil"})  # none of one
    assert not validate_data_dir(source, need_audio=False)
    assert "phones.txt" not in read_data_dir(source, labels=False).tables
    out = tmp_path / "out"
    assert main(["subset", str(source), str(out), "--count", "2", "--pick", "first"]) == 0
    assert (out / "phones.txt").read_text() == f"{names[0]} sil h ə\n{names[1]}\n"
    other = make_data_dir(tmp_path / "b", 2, 1, prefix="b", audio=False)
    assert main(["combine", str(tmp_path / "joint"), str(out), str(other)]) == 0  # partial: b needs none
    assert (tmp_path / "joint/phones.txt").read_text() == (out / "phones.txt").read_text()
    write_table(source / "phones.txt", {"nobody": "sil"})
    capsys.readouterr()
    assert main(["subset", str(source), str(out), "--count", "2"]) == 1
    assert f"{source}/phones.txt:1: utterance is not in utt2spk (nobody)" in capsys.readouterr().err


def featured(folder, prefix, **config):
    """A data directory with feats.scp, and the record that speechkit features writes beside it."""
    make_data_dir(folder, 4, 2, prefix=prefix, audio=False)
    write_table(folder / "feats.scp", {name: f"a.ark:{name}" for name in read_data_dir(folder).utterances})
    counts = {"utterances": 4, "frames": 99, "speeds": [1.0]}
    (folder / "features.json").write_text(json.dumps({"config": config, "config_hash": "h", **counts}))
    return folder


def test_parts_and_joins_know_how_their_features_were_made(tmp_path, capsys):
    a, b, other = (
        featured(tmp_path / name, name, bins=bins) for name, bins in (("a", 80), ("b", 80), ("c", 40))
    )
    kept = {"config": {"bins": 80}, "config_hash": "h"}
    assert main(["subset", str(a), str(tmp_path / "part"), "--count", "2"]) == 0
    assert main(["combine", str(tmp_path / "both"), str(a), str(b)]) == 0
    for out in ("part", "both"):
        assert json.loads((tmp_path / out / "features.json").read_text()) == kept
    assert main(["combine", str(tmp_path / "bad"), str(a), str(other)]) == 1
    assert f"{other}: feats.scp has another config" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
