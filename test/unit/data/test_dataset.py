"""Manifests, readers and reading ahead, against reading each utterance by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from factories import make_data_dir, write_table
from tiny_training import make_dump

from speechkit.data.archive import ArkWriter
from speechkit.data.augment import Augment, Gain, Reverb
from speechkit.data.augment import Config as AugmentConfig
from speechkit.data.dataset import BatchReader, Config, Context, read_ahead, tables_of
from speechkit.data.manifest import Ragged, Strings, read_manifest
from speechkit.data.plan import BatchPlan, hash_ids
from speechkit.data.plan import Config as PlanConfig
from speechkit.errors import InputError
from speechkit.frontends import fbank

EXTRACTOR = fbank.build(fbank.Config())


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    return make_dump(tmp_path_factory.mktemp("data") / "dump", 10)


def plan_of(manifest, seconds=4.0, **options):
    return BatchPlan(manifest.hashes, manifest.seconds, PlanConfig(seconds=seconds), 1, **options)


def parts(plan, epoch=0):
    return [part for update in range(plan.updates(epoch)) for part in plan.row(update)]


def test_strings_and_ragged_give_back_what_they_were_made_of():
    texts = ["", "a", "žluťoučký kůň", "日本語", "", "end"]
    packed = Strings.of(texts)
    assert [packed[i] for i in range(len(packed))] == texts
    chosen = packed.select(np.array([3, 0, 5]))
    assert [chosen[i] for i in range(3)] == ["日本語", "", "end"]
    ragged = Ragged.of([[1, 2], [], [3]])
    assert ragged.lengths.tolist() == [2, 0, 1] and ragged[0].tolist() == [1, 2] and ragged[1].tolist() == []
    assert len(Ragged.of([])) == 0


def test_a_manifest_holds_the_tables_by_utterance(dump):
    manifest = read_manifest([dump], ["wav.scp", "text"])
    tables = {
        n: dict(r.split(maxsplit=1) for r in (dump / n).read_text().splitlines()) for n in ("wav.scp", "text")
    }
    assert [manifest.ids[i] for i in range(10)] == sorted(tables["text"])
    for i in range(10):
        utterance = manifest.ids[i]
        assert manifest.tables["text"][i] == tables["text"][utterance]
        assert manifest.samples[i] == soundfile.info(tables["wav.scp"][utterance]).frames
        assert manifest.hashes[i] == hash_ids([utterance])[0]
    assert np.isnan(manifest.starts).all()


def test_the_hash_of_a_manifest_follows_its_content(dump, tmp_path):
    manifest = read_manifest([dump], ["wav.scp", "text"])
    moved = make_dump(tmp_path / "elsewhere", 10)
    assert read_manifest([moved], ["wav.scp", "text"]).hash == manifest.hash  # other paths, same data
    lines = (moved / "text").read_text().splitlines()
    (moved / "text").write_text("\n".join([lines[0] + " more", *lines[1:]]) + "\n")
    assert read_manifest([moved], ["wav.scp", "text"]).hash != manifest.hash
    assert manifest.select(np.arange(9)).hash != manifest.hash


def test_segments_are_cut_from_their_recording(tmp_path):
    folder = make_data_dir(tmp_path / "seg", 4, 2, [0.6, 0.7, 0.8, 0.9], segments=True)
    manifest = read_manifest([folder], ["wav.scp"])
    reader = BatchReader(Context(manifest), ["speech"])
    segments = {r.split()[0]: r.split()[1:] for r in (folder / "segments").read_text().splitlines()}
    wav = dict(r.split() for r in (folder / "wav.scp").read_text().splitlines())
    for part in parts(plan_of(manifest)):
        batch = reader(part).batch
        for i, utterance in enumerate(batch.ids):
            recording, start, end = segments[utterance]
            samples, _ = soundfile.read(wav[recording], dtype="float32")
            expected = samples[round(float(start) * 16000) : round(float(end) * 16000)]
            length = int(batch["speech"].lengths[i])
            assert length == len(expected)
            np.testing.assert_allclose(batch["speech"].values[i, :length].numpy(), expected, atol=1e-6)


def test_a_batch_holds_what_each_utterance_gives_alone(dump):
    manifest = read_manifest([dump], ["wav.scp", "text"])
    tokens = Ragged.of([[i + 2, 1, i] for i in range(10)])
    augment = Augment(AugmentConfig(speeds=[0.9, 1.0, 1.1]))
    reader = BatchReader(
        Context(manifest, EXTRACTOR, augment, True, tokens), ["speech", "features", "tokens"]
    )
    seen = 0
    for part in parts(plan_of(manifest, speeds=(0.9, 1.0, 1.1))):
        loaded = reader(part)
        batch = loaded.batch
        assert (
            not loaded.bad and batch.keys.tolist() == part.keys.tolist() and batch.keys.dtype == torch.int64
        )
        for i, (u, speed, key) in enumerate(zip(part.utterances, part.speeds, part.keys)):
            samples, _ = soundfile.read(manifest.tables["wav.scp"][int(u)], dtype="float32")
            samples = augment(samples, int(key), float(speed))
            features = EXTRACTOR(samples)
            assert batch.ids[i] == manifest.ids[int(u)]
            assert int(batch["speech"].lengths[i]) == len(samples)
            assert int(batch["features"].lengths[i]) == len(features) == EXTRACTOR.frames(len(samples))
            np.testing.assert_array_equal(batch["features"].values[i, : len(features)].numpy(), features)
            assert (batch["features"].values[i, len(features) :] == 0).all()
            assert batch["tokens"].values[i].tolist() == [int(u) + 2, 1, int(u)]
            seen += 1
    assert seen == 10


def test_dumped_features_are_used_only_when_nothing_but_speed_would_change_the_waveform(dump, tmp_path):
    import shutil

    folder = tmp_path / "dumped"
    shutil.copytree(dump, folder)
    ids = sorted(line.split()[0] for line in (folder / "utt2spk").read_text().splitlines())
    for table, sign in (("feats", 1), ("feats_sp1.1", -1)):
        with ArkWriter(tmp_path, table) as ark:
            for number, utterance in enumerate(ids, 1):  # not what the audio gives
                ark.write(utterance, np.full((5, 80), sign * float(number), np.float32))
        shutil.copy(tmp_path / f"{table}.scp", folder / f"{table}.scp")
    manifest = read_manifest([folder], ["wav.scp"], ["feats.scp", "feats_sp1.1.scp", "utt2lang"])
    assert {"feats.scp", "feats_sp1.1.scp"} <= manifest.tables.keys() and "utt2lang" not in manifest.tables
    speeds = (0.9, 1.0, 1.1)
    for plain in (True, False):
        augment = Augment(AugmentConfig(speeds=list(speeds)))
        reader = BatchReader(Context(manifest, EXTRACTOR, augment, plain), ["features"])
        dumped = set()
        for part in parts(plan_of(manifest, speeds=speeds)):
            batch = reader(part).batch
            for i, (u, speed) in enumerate(zip(part.utterances, part.speeds)):
                expected = plain and speed != 0.9
                assert (int(batch["features"].lengths[i]) == 5) == expected
                if expected:
                    sign = 1 if speed == 1 else -1
                    assert (batch["features"].values[i, :5] == sign * float(u + 1)).all()
                    dumped.add(float(speed))
        assert dumped == ({1.0, 1.1} if plain else set())


def test_unusable_utterances_are_set_aside_with_their_reason(tmp_path):
    folder = make_dump(tmp_path / "broken", 6)
    wav = dict(r.split() for r in (folder / "wav.scp").read_text().splitlines())
    first, second, third = sorted(wav)[:3]
    with open(wav[first], "rb+") as file:
        file.truncate(1000)
    soundfile.write(wav[second], np.zeros(100, np.float32) + 0.1, 16000)
    (tmp_path / "gone").mkdir()
    write_table(folder / "wav.scp", {**wav, third: str(tmp_path / "gone/none.wav")})
    manifest = read_manifest([folder], ["wav.scp"])
    reader = BatchReader(Context(manifest, EXTRACTOR), ["features"])
    bad, good = {}, []
    for part in parts(plan_of(manifest, seconds=100)):
        loaded = reader(part)
        bad |= {utterance: reason for utterance, reason, _ in loaded.bad}
        good += loaded.batch.ids if loaded.batch else []
    assert sorted([*bad, *good]) == sorted(wav)
    assert set(bad) == {first, second, third} and bad[second] == "no feature frame"


def test_a_micro_batch_with_nothing_readable_has_no_batch(tmp_path):
    folder = make_dump(tmp_path / "broken", 2)
    for path in (folder / "audio").iterdir():
        path.write_bytes(b"RIFF")
    manifest = read_manifest([folder], ["wav.scp"])
    loaded = BatchReader(Context(manifest, EXTRACTOR), ["features"])(parts(plan_of(manifest, seconds=100))[0])
    assert loaded.batch is None and len(loaded.bad) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_ahead_keeps_the_order_and_passes_errors_on(workers):
    def read(item):
        if item == 7:
            raise ValueError("seven")
        return item * 10

    config = Config(workers=workers, ahead=3)
    assert list(read_ahead(read, range(7), config)) == [0, 10, 20, 30, 40, 50, 60]
    stream = read_ahead(read, range(20), config)
    got = []
    with pytest.raises(ValueError, match="seven"):
        for value in stream:
            got.append(value)
    assert got == [0, 10, 20, 30, 40, 50, 60]


def test_loading_processes_end_with_the_program_that_an_error_stops(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from speechkit.data.dataset import Config, read_ahead\n"
        "def read(item):\n"
        "    return 1 // (3 - item)\n"
        "list(read_ahead(read, range(50), Config(workers=2, ahead=2)))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_reading_ahead_reads_no_further_than_asked():
    read = []
    stream = read_ahead(lambda item: read.append(item) or item, iter(range(1000)), Config(ahead=3))
    assert next(stream) == 0
    stream.close()
    assert len(read) <= 5


def test_reading_leaves_the_global_random_state_alone(dump):
    manifest = read_manifest([dump], ["wav.scp"])
    augment = Augment(AugmentConfig(speeds=[0.9], gain=Gain(1.0), reverb=Reverb(probability=1.0)))
    reader = BatchReader(Context(manifest, EXTRACTOR, augment), ["features"])
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for workers in (0, 1):
        list(read_ahead(reader, parts(plan_of(manifest)), Config(workers=workers)))
    assert torch.equal(before, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpy_before).all()


def test_fields_that_nothing_reads_and_missing_tables_are_errors(dump, tmp_path):
    with pytest.raises(
        InputError, match="requires 'feature', which no reader makes; did you mean 'features'"
    ):
        tables_of(["feature"])
    assert tables_of(["features", "tokens", "speech"]) == ["wav.scp", "text"]
    with pytest.raises(InputError, match="utt2lang: no such file, and it is needed"):
        read_manifest([dump], ["utt2lang"])
    with pytest.raises(InputError, match=r"utterance s00-000 is in both .*dump and .*again"):
        read_manifest([dump, make_dump(tmp_path / "again", 3)])
    bare = make_data_dir(tmp_path / "bare", 3, prefix="x")
    with pytest.raises(InputError, match=r"utt2num_samples: no row for xs00-000; `speechkit format`"):
        read_manifest([bare])
    with pytest.raises(InputError, match="no data directory given"):
        read_manifest([])
