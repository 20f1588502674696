"""Crops: where they lie, and that speech, features and labels are cut alike."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from factories import write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import make_dump

from speechkit.data.archive import ArkWriter
from speechkit.data.augment import Augment, Gain, speed_samples
from speechkit.data.augment import Config as AugmentConfig
from speechkit.data.crop import STEP, Crop, crop_labels, crop_sizes, crop_starts
from speechkit.data.dataset import BatchReader, Context
from speechkit.data.manifest import read_manifest
from speechkit.data.plan import BatchPlan, Config, hash_ids
from speechkit.errors import InputError
from speechkit.frontends import fbank, mfcc

RATE = 16000
lengths = st.lists(st.integers(400, 40_000), min_size=1, max_size=30)


def plan_of(samples, seed=1, speeds=(1.0,), **config):
    ids = hash_ids([f"u{i}" for i in range(len(samples))])
    return BatchPlan(ids, np.array(samples) / RATE, Config(**config), seed, speeds=speeds, rate=RATE)


def parts_of(plan, epoch=0):
    begin = sum(plan.updates(e) for e in range(epoch))
    return [part for u in range(begin, begin + plan.updates(epoch)) for part in plan.row(u)]


@settings(max_examples=150, deadline=None)
@given(
    lengths,
    st.none() | st.floats(0.1, 3),
    st.booleans(),
    st.floats(0.5, 10),
    st.integers(1, 3),
    st.sampled_from([(1.0,), (0.9, 1.0, 1.1)]),
)
def test_every_crop_lies_within_its_utterance_and_every_batch_within_the_budget(
    samples, limit, to_shortest, seconds, micro_batches, speeds
):
    micro_batches = min(micro_batches, len(samples))
    plan = plan_of(
        samples,
        speeds=speeds,
        seconds=seconds,
        crop_seconds=limit,
        crop_to_shortest=to_shortest,
        micro_batches=micro_batches,
    )
    used = []
    for part in parts_of(plan):
        used += part.utterances.tolist()
        if limit is None and not to_shortest:
            assert part.crops is None
            continue
        whole = speed_samples(np.array(samples)[part.utterances], part.speeds)
        start, size = part.crops.T
        assert (size > 0).all() and (start >= 0).all() and (start % 640 == 0).all()
        assert (start + size <= whole).all()
        expected = whole if limit is None else np.minimum(whole, round(limit * RATE))
        expected = np.full(len(whole), expected.min()) if to_shortest else expected
        assert size.tolist() == expected.tolist()
        assert part.length == pytest.approx(size.sum() / RATE)
        assert part.padded == pytest.approx(len(size) * size.max() / RATE)
        assert len(size) == 1 or part.padded <= seconds + 1e-3
        if to_shortest:  # at most two buckets together, so little is cut away
            kept = whole if limit is None else np.minimum(whole, round(limit * RATE))
            assert kept.max() <= 1.22 * kept.min() + 2
    assert set(used) == set(range(len(samples)))


@settings(max_examples=200, deadline=None)
@given(st.integers(400, 100_000), st.integers(400, 60_000), st.integers(0, 2**63 - 1))
def test_labels_that_count_frames_stay_aligned(samples, limit, key):
    """labels[t] = t at 100 Hz: frame t of 20 ms of a crop at s has the label 2 * (s / 320 + t)."""
    size = min(samples, limit)
    start = int(crop_starts(np.array([key]), np.array([samples]), np.array([size]))[0])
    labels = np.arange(1 + (samples - 400) // 160)
    cut = crop_labels(labels, Crop(start, size), 100, RATE)
    assert len(cut) == min(round(size / 160), len(labels) - start // 160)
    frames = (size - 400) // 320 + 1
    assert 2 * frames - 1 <= len(cut)  # no frame of samples is without a label
    assert [cut[2 * t] for t in range(frames)] == [2 * (start // 320 + t) for t in range(frames)]
    for rate, hop in ((50, 320), (25, 640)):
        cut = crop_labels(np.arange(samples // hop + 1), Crop(start, size), rate, RATE)
        assert cut.tolist() == list(range(start // hop, start // hop + len(cut)))


def test_starts_are_drawn_evenly_and_anew_in_each_epoch():
    samples, size = np.full(20_000, 640 * 10 + 5), np.full(20_000, 640 * 2)
    starts = crop_starts(np.arange(20_000), samples, size)
    assert set(starts.tolist()) == {STEP * i for i in range(9)}
    counts = np.bincount(starts // STEP)
    assert (abs(counts - 20_000 / 9) < 5 * np.sqrt(20_000 / 9)).all()
    plan = plan_of([160_000] * 200, seconds=100, crop_seconds=1)
    found = {
        e: {int(u): int(c[0]) for part in parts_of(plan, e) for u, c in zip(part.utterances, part.crops)}
        for e in range(2)
    }
    assert sum(found[0][u] == found[1][u] for u in found[0]) < 10


def test_free_crops_begin_at_any_sample_and_take_the_nearest_label():
    samples, size = np.full(20_000, 1000), np.full(20_000, 990)
    starts = crop_starts(np.arange(20_000), samples, size, step=1)
    assert set(starts.tolist()) == set(range(11))
    assert (abs(np.bincount(starts) - 20_000 / 11) < 5 * np.sqrt(20_000 / 11)).all()
    plan = plan_of([160_000] * 200, seconds=100, crop_seconds=1, crop_align="free")
    begun = np.concatenate([part.crops[:, 0] for part in parts_of(plan)])
    assert (begun % STEP != 0).mean() > 0.9 and (begun + 16_000 <= 160_000).all()
    labels = np.arange(200)
    for start, first in ((0, 0), (79, 0), (81, 1), (239, 1), (241, 2)):  # 160 samples a label
        cut = crop_labels(labels, Crop(start, 16_000), 100, RATE)
        assert cut.tolist() == list(range(first, first + 100))


def test_crop_sizes_of_a_micro_batch_used_twice():
    samples = np.array([5, 4, 9])
    spans = np.array([[0, 2], [2, 3], [0, 2]])
    assert crop_sizes(samples, spans, None, True).tolist() == [4, 4, 9]
    assert crop_sizes(samples, spans, 8, False).tolist() == [5, 4, 8]


def test_the_hash_of_a_plan_follows_its_crops():
    samples = [20_000 + 1000 * i for i in range(20)]
    plans = [plan_of(samples, **c) for c in ({}, {"crop_seconds": 1.0}, {"crop_seconds": 1.2})]
    plans.append(plan_of(samples, crop_to_shortest=True))
    hashes = [plan.hash(0) for plan in plans]
    assert len(set(hashes)) == 4 and hashes[1] == plan_of(samples, crop_seconds=1.0).hash(0)
    order = np.random.default_rng(0).permutation(20)
    ids = hash_ids([f"u{i}" for i in range(20)])
    shuffled = BatchPlan(ids[order], np.array(samples)[order] / RATE, plans[1].config, 1, rate=RATE)
    assert shuffled.hash(0) == hashes[1]


def test_evaluation_is_not_cropped():
    config = Config(seconds=10, crop_seconds=0.5, crop_to_shortest=True)
    plan = BatchPlan(hash_ids(["a", "b"]), np.array([1.0, 2.0]), config, shuffle=False)
    assert all(part.crops is None for part in parts_of(plan))


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """A data directory with labels that count 10 ms frames."""
    folder = make_dump(
        tmp_path_factory.mktemp("data") / "dump", 8, seconds=[1.2 + 0.21 * i for i in range(8)]
    )
    counts = {
        row.split()[0]: int(row.split()[1]) for row in (folder / "utt2num_samples").read_text().splitlines()
    }
    labels = {u: " ".join(map(str, range(1 + (n - 400) // 160))) for u, n in counts.items()}
    write_table(folder / "km.txt", labels)
    return folder


def read(manifest, extractor, augment=None, **config):
    """Utterance -> (crop, its fields), over an epoch with crops of 0.8 s."""
    plan = BatchPlan(
        manifest.hashes, manifest.seconds, Config(seconds=3, crop_seconds=0.8, **config), 3, rate=RATE
    )
    context = Context(manifest, extractor, augment, augment is None, label_rates={"kmeans": 100})
    reader, found = BatchReader(context, ["speech", "features", "kmeans"]), {}
    for part in parts_of(plan):
        loaded = reader(part)
        assert not loaded.bad
        for i, utterance in enumerate(loaded.batch.ids):
            fields = {n: f.values[i, : int(f.lengths[i])].numpy() for n, f in loaded.batch.fields.items()}
            found[utterance] = (Crop(*part.crops[i].tolist()), fields)
    return found


def test_speech_features_and_labels_are_the_same_span(dump):
    manifest = read_manifest([dump], ["wav.scp", "km.txt"])
    extractor = fbank.build(fbank.Config())
    context = Context(manifest, extractor)
    whole = BatchReader(context, ["speech", "features", "kmeans"])
    everything = BatchPlan(manifest.hashes, manifest.seconds, Config(seconds=100), shuffle=False).row(0)[0]
    batch = whole(everything).batch
    found = read(manifest, extractor)
    assert len({crop.start for crop, _ in found.values()}) > 3
    for i, utterance in enumerate(batch.ids):
        crop, fields = found[utterance]
        speech = batch["speech"].values[i].numpy()
        np.testing.assert_array_equal(fields["speech"], speech[crop.start : crop.start + crop.size])
        frames = 1 + (crop.size - 400) // 160
        first = crop.start // 160
        features = batch["features"].values[i, first : first + frames].numpy()
        np.testing.assert_array_equal(fields["features"], features)
        np.testing.assert_array_equal(fields["features"], extractor(fields["speech"]))
        assert fields["kmeans"][:frames].tolist() == list(range(first, first + frames))


@pytest.mark.parametrize(
    "extractor",
    [
        fbank.build(fbank.Config()),
        fbank.build(fbank.Config(snip_edges=False)),
        fbank.build(fbank.Config(normalise="utterance")),
        mfcc.build(mfcc.Config(frame_shift=20)),
    ],
    ids=["plain", "centred", "normalised", "20 ms"],
)
def test_dumped_and_computed_features_of_a_crop_are_the_same(dump, tmp_path, extractor):
    computed = read(read_manifest([dump], ["wav.scp", "km.txt"]), extractor)
    folder = tmp_path / "dumped"
    shutil.copytree(dump, folder)
    wav = dict(row.split() for row in (dump / "wav.scp").read_text().splitlines())
    from speechkit.data.audio import read_audio

    with ArkWriter(tmp_path, "feats") as ark:
        for utterance in sorted(wav):
            ark.write(utterance, extractor(read_audio(wav[utterance])))
    shutil.copy(tmp_path / "feats.scp", folder / "feats.scp")
    dumped = read(read_manifest([folder], ["wav.scp", "km.txt"], ["feats.scp"]), extractor)
    for utterance, (crop, fields) in computed.items():
        assert dumped[utterance][0] == crop
        np.testing.assert_array_equal(dumped[utterance][1]["features"], fields["features"])


def test_augmentation_comes_before_the_crop(dump):
    manifest = read_manifest([dump], ["wav.scp", "km.txt"])
    augment = Augment(AugmentConfig(gain=Gain(1.0)))
    plain, louder = (read(manifest, fbank.build(fbank.Config()), a) for a in (None, augment))
    for utterance, (crop, fields) in plain.items():
        assert louder[utterance][0] == crop
        ratio = np.linalg.norm(louder[utterance][1]["speech"]) / np.linalg.norm(fields["speech"])
        np.testing.assert_allclose(louder[utterance][1]["speech"], ratio * fields["speech"], atol=1e-5)
        assert ratio != 1


def test_a_file_shorter_than_planned_is_set_aside(dump, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(dump, folder)
    ids = sorted(row.split()[0] for row in (folder / "utt2num_samples").read_text().splitlines())
    write_table(folder / "utt2num_samples", {u: "160000" for u in ids})
    manifest = read_manifest([folder], ["wav.scp"])
    plan = BatchPlan(manifest.hashes, manifest.seconds, Config(seconds=100, crop_seconds=9), 1, rate=RATE)
    loaded = BatchReader(Context(manifest), ["speech"])(plan.row(0)[0])
    assert {reason for _, reason, _ in loaded.bad} == {"shorter than utt2num_samples"}


def test_crops_between_frames_are_refused():
    from speechkit.data.crop import check_extractor

    check_extractor(fbank.build(fbank.Config()))
    with pytest.raises(InputError, match="multiples of 640 samples, these features advance by 240 samples"):
        check_extractor(fbank.build(fbank.Config(frame_shift=15)))
