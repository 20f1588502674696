"""Pictures of AV-BERT: mosaics of clusters, what a recogniser reads, curves of pre-training."""

import json

import numpy as np
import pytest
from av_models import PATCH, PIXELS, make_batch, make_model
from factories import waveform

from speechkit.data.batch import Batch, Padded
from speechkit.errors import InputError
from speechkit.metrics.plots_av import draw_context, draw_mosaics, mosaic
from speechkit.metrics.plots_pretraining import draw_pretraining
from speechkit.models.av_pictures import mosaics, tell


def first(batch):
    rows = {k: Padded(p.values[:1, : p.lengths[0]], p.lengths[:1]) for k, p in batch.fields.items()}
    return Batch(batch.ids[:1], batch.keys[:1], None, rows)


def test_a_mosaic_is_put_together_from_its_centres():
    centres = np.arange(4)[:, None, None, None] / 4 + np.zeros((4, 2, 2, 3))
    clusters = np.array([[[0, 1, 2], [3, 0, 1]]])
    image = mosaic(clusters, centres)
    assert image.shape == (1, 4, 6, 3)
    assert (
        image[0, :, :, 0].tolist()
        == [[0, 0, 0.25, 0.25, 0.5, 0.5]] * 2 + [[0.75, 0.75, 0, 0, 0.25, 0.25]] * 2
    )
    hidden = clusters == 3
    assert (mosaic(clusters, centres, hidden)[0, 2:, :2] == 0.5).all()


def test_a_clip_before_and_after_masking(tmp_path):
    model, batch = make_model(mask={"valid_probability": 0.4}).eval(), first(make_batch())
    centres = np.random.default_rng(0).normal(size=(20, 3 * PATCH**2 * 3))
    found, told = mosaics(model, batch, centres, PIXELS), tell(model, batch, "video")
    assert list(found) == ["clip", "clusters", "masked", "told"]
    assert {images.shape for images in found.values()} == {(5, 2 * PATCH, 3 * PATCH, 3)}
    assert np.array_equal(found["clip"], batch["video"].values[0, 1::3].numpy() / 255)
    changed = (found["masked"] != found["clusters"]).any(-1)
    hidden = told.hidden.numpy().reshape(5, 2, 3)
    assert np.array_equal(changed[:, ::PATCH, ::PATCH], hidden) and 3 < hidden.sum() < 27
    assert np.array_equal(told.truth, batch["kmeans_video"].values[0])
    same = (found["told"] == found["clusters"]).all(-1)[:, ::PATCH, ::PATCH]
    assert same[~hidden].all() and not same[hidden].all()
    draw_mosaics(found, "u0", tmp_path / "clip.png")
    assert (tmp_path / "clip.png").stat().st_size > 5000
    with pytest.raises(InputError, match="not of this model's patches"):
        mosaics(model, batch, centres[:, :9], PIXELS)
    with pytest.raises(InputError, match="u0: no video"):
        tell(make_model(encoder={"modalities": "audio"}).eval(), batch, "video")


def test_what_frames_read(tmp_path):
    maps = {f"block {i}": np.random.default_rng(i).dirichlet(np.ones(33), 16) for i in (1, 4)}
    draw_context(waveform(1.0), maps, 16.7, 0.03, "an utterance", tmp_path / "context.png")
    assert (tmp_path / "context.png").stat().st_size > 10000


def test_curves_have_the_reference_line(tmp_path):
    names = ("loss_audio", "entropy_audio", "accuracy_audio", "accuracy_video", "coverage_video", "loss")
    rows = [
        {"kind": kind, "update": n, **{name: 1.0 + n for name in names}}
        for n in (1, 2)
        for kind in ("train", "dev")
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_pretraining(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10000
