"""Frame labels: parsing, the compact arrays, the batch fields, and their checks against the audio."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from factories import write_table
from tiny_training import make_dump

from speechkit.data.dataset import BatchReader, Context, tables_of
from speechkit.data.label_checks import check_labels
from speechkit.data.labels import LabelSet, label_table, read_labels
from speechkit.data.manifest import read_manifest
from speechkit.data.plan import BatchPlan, Config
from speechkit.errors import InputError, ProblemsError


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    folder = make_dump(tmp_path_factory.mktemp("data") / "dump", 6)
    random = np.random.default_rng(0)
    for name, rate, classes in (("km.txt", 100, 50), ("km_deep.txt", 50, 70_000)):
        rows = {
            u: " ".join(map(str, random.integers(0, classes, round(n * rate / 16000))))
            for u, n in samples_of(folder).items()
        }
        write_table(folder / name, rows)
    return folder


def samples_of(folder):
    return {row.split()[0]: int(row.split()[1]) for row in (folder / "utt2num_samples").open()}


def labels_of(path):
    return {row.split()[0]: list(map(int, row.split()[1:])) for row in path.open()}


def test_fields_and_their_tables():
    assert label_table("kmeans") == "km.txt" and label_table("kmeans_mfcc") == "km_mfcc.txt"
    assert [label_table(name) for name in ("speech", "kmean", "kmeans_", "kmeans_a/b")] == [None] * 4
    assert tables_of(["speech", "kmeans", "kmeans_6"]) == ["wav.scp", "km.txt", "km_6.txt"]


def test_labels_are_held_in_the_smallest_type_that_fits(dump):
    manifest = read_manifest([dump], ["wav.scp", "km.txt", "km_deep.txt"])
    assert "km.txt" not in manifest.tables
    for name, dtype in (("km.txt", np.int16), ("km_deep.txt", np.int32)):
        expected = labels_of(dump / name)
        assert manifest.labels[name].flat.dtype == dtype
        for i in range(6):
            assert manifest.labels[name][i].tolist() == expected[manifest.ids[i]]
    chosen = manifest.select(np.array([4, 1]))
    assert chosen.labels["km.txt"][0].tolist() == manifest.labels["km.txt"][4].tolist()
    assert chosen.labels["km.txt"].flat.dtype == np.int16


def test_labels_of_several_directories(dump, tmp_path):
    other = make_dump(tmp_path / "other", 3, prefix="o")
    write_table(other / "km.txt", {u: "7 8 9" for u in samples_of(other)})
    manifest = read_manifest([dump, other], ["wav.scp", "km.txt"])
    assert [manifest.labels["km.txt"][i].tolist() for i in range(6, 9)] == [[7, 8, 9]] * 3
    expected = labels_of(dump / "km.txt")
    assert all(manifest.labels["km.txt"][i].tolist() == expected[manifest.ids[i]] for i in range(6))


def test_the_hash_of_a_manifest_follows_its_labels(dump, tmp_path):
    manifest = read_manifest([dump], ["wav.scp", "km.txt"])
    assert manifest.hash != read_manifest([dump], ["wav.scp"]).hash
    folder = tmp_path / "changed"
    shutil.copytree(dump, folder)
    assert read_manifest([folder], ["wav.scp", "km.txt"]).hash == manifest.hash
    rows = labels_of(folder / "km.txt")
    first = min(rows)
    rows[first][3] += 1
    write_table(folder / "km.txt", {u: " ".join(map(str, row)) for u, row in rows.items()})
    assert read_manifest([folder], ["wav.scp", "km.txt"]).hash != manifest.hash


def test_the_batch_field_is_int64_and_padded(dump):
    manifest = read_manifest([dump], ["wav.scp", "km.txt", "km_deep.txt"])
    plan = BatchPlan(manifest.hashes, manifest.seconds, Config(seconds=100), shuffle=False)
    batch = BatchReader(Context(manifest), ["kmeans", "kmeans_deep"])(plan.row(0)[0]).batch
    for name, table in (("kmeans", "km.txt"), ("kmeans_deep", "km_deep.txt")):
        field, expected = batch[name], labels_of(dump / table)
        assert field.values.dtype == torch.int64
        for i, utterance in enumerate(batch.ids):
            assert field.values[i, : int(field.lengths[i])].tolist() == expected[utterance]


@pytest.mark.parametrize("spaces", ["a 1 2 3", "a 1  2 3 ", "a  1 2 3"])
def test_more_spaces_than_needed_do_not_matter(tmp_path, spaces):
    (tmp_path / "km.txt").write_text(spaces + "\n")
    assert read_labels(tmp_path / "km.txt", ["a", "b"])["a"].tolist() == [1, 2, 3]


def test_empty_rows_and_missing_rows_are_no_labels(dump, tmp_path):
    folder = tmp_path / "holes"
    shutil.copytree(dump, folder)
    rows = {u: " ".join(map(str, row)) for u, row in labels_of(folder / "km.txt").items()}
    first, second, *_ = sorted(rows)
    del rows[first]
    write_table(folder / "km.txt", {**rows, second: ""})
    manifest = read_manifest([folder], ["wav.scp", "km.txt"])
    assert (manifest.labels["km.txt"].lengths == 0).tolist() == [True, True, False, False, False, False]
    missing, odd = check_labels(manifest, [LabelSet("kmeans", 50, 100)])
    assert sorted(missing) == [0, 1] and not odd
    assert missing[1].utterance == second and missing[1].reason == "no labels in km.txt"


def cut(folder, frames):
    """Takes so many labels from the end of the first row; negative adds."""
    rows = labels_of(folder / "km.txt")
    first = min(rows)
    rows[first] = rows[first][:-frames] if frames > 0 else rows[first] + [0] * -frames
    write_table(folder / "km.txt", {u: " ".join(map(str, row)) for u, row in rows.items()})
    return first


@pytest.mark.parametrize("frames, listed", [(9, False), (-9, False), (12, True), (-12, True), (48, True)])
def test_labels_of_an_odd_length_are_listed(dump, tmp_path, frames, listed):
    folder = tmp_path / "odd"
    shutil.copytree(dump, folder)
    first = cut(folder, frames)
    missing, odd = check_labels(read_manifest([folder], ["wav.scp", "km.txt"]), [LabelSet("kmeans", 50, 100)])
    assert not missing and [row["utterance"] for row in odd] == ([first] if listed else [])
    if listed:
        assert odd[0]["table"] == "km.txt" and odd[0]["excess"] == pytest.approx(-frames / 100, abs=0.005)


def test_labels_of_a_wrong_length_or_rate_are_refused(dump, tmp_path):
    folder = tmp_path / "wrong"
    shutil.copytree(dump, folder)
    first = cut(folder, -53)
    with pytest.raises(InputError, match=rf"the labels of 1 of 6 .* 0\.5 s .*\({first}: .*mend"):
        check_labels(read_manifest([folder], ["wav.scp", "km.txt"]), [LabelSet("kmeans", 50, 100)])
    with pytest.raises(InputError, match=r"at 50 Hz for .*; all together are 100\.0 a second"):
        check_labels(read_manifest([dump], ["wav.scp", "km.txt"]), [LabelSet("kmeans", 50, 50)])


def test_a_label_out_of_range_names_utterance_and_value(dump):
    manifest = read_manifest([dump], ["wav.scp", "km.txt", "km_deep.txt"])
    expected = labels_of(dump / "km.txt")
    utterance = next(u for u in sorted(expected) if max(expected[u]) > 40)
    value = next(v for v in expected[utterance] if v > 40)
    with pytest.raises(InputError, match=rf"utterance {utterance} has the label {value}, .* 41 classes"):
        check_labels(manifest, [LabelSet("kmeans", 41, 100)])
    check_labels(manifest, [LabelSet("kmeans", 50, 100), LabelSet("kmeans_deep", 70_000, 50)])


@pytest.mark.parametrize(
    "content, line, message",
    [
        (b"a 1 2\nb 3 x\n", 2, "expected whole numbers separated by spaces (x)"),
        (b"a 1 -2\n", 1, "expected whole numbers separated by spaces (-2)"),
        (b"a 1.5\n", 1, "expected whole numbers separated by spaces (1.5)"),
        (b"a 1\t2\n", 1, "expected whole numbers separated by spaces (1\\t2)"),
        (b"a 1 2\r\n", 1, "expected whole numbers separated by spaces (2\\r)"),
        (b"a 1\na 2\n", 2, "duplicate id (a)"),
        (b"a 1\nc 2\n", 2, "utterance is not in utt2spk (c)"),
        (b"a 1\n\n", 2, "utterance is not in utt2spk"),
        (b"a 1\nb 2 3", 2, "no line feed at the end of the file: is it complete? (b 2 3)"),
        (b"a 3000000000\n", 1, "label too large (3000000000)"),
        (b"a 99999999999999999999999\n", 1, "label too large"),
        ("a 1 ²\n".encode(), 1, "expected whole numbers separated by spaces (²)"),
        ("á 1\n".encode("latin-1"), 1, "utterance is not in utt2spk"),
    ],
    ids=str,
)
def test_bad_rows_name_their_line(tmp_path, content, line, message):
    path = tmp_path / "km.txt"
    path.write_bytes(content)
    with pytest.raises(ProblemsError) as caught:
        read_labels(path, ["a", "b"])
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}:{line}: {message}")
