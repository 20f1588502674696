"""HuBERT: which frames are predicted, what the loss is made of, and whole runs with crops."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from factories import write_table
from tiny_training import World, rows, weights

from speechkit.data.batch import Batch, Padded, pad
from speechkit.data.crop import Crop, crop_labels
from speechkit.encoders import conformer, wav2vec2
from speechkit.errors import InputError
from speechkit.losses.masked_prediction import cosine_logits
from speechkit.models import hubert
from speechkit.models.assets import Assets

QUIET = {"dropout": 0.0, "attention_dropout": 0.0}
CALM = {**QUIET, "activation_dropout": 0.0, "input_dropout": 0.0, "layer_drop": 0.0}


def samples_model(extractor="layer", seed=0, **changes):
    """A tiny model of samples in float64 without dropout."""
    torch.manual_seed(seed)
    encoder = wav2vec2.Config(preset="tiny", extractor=extractor, **CALM)
    return hubert.build(hubert.Config(encoder=encoder, **changes), Assets()).double()


def features_model(seed=0, **changes):
    """A tiny model of features at 40 ms in float64 without dropout."""
    torch.manual_seed(seed)
    encoder = conformer.Config(dim=16, layers=1, heads=2, feed_forward=16, mask_embedding=True, **QUIET)
    return hubert.build(hubert.Config(encoder=encoder, **changes), Assets()).double()


def samples_batch(sizes=(16000, 9000, 12345), rates=(100,), classes=(100,), names=("kmeans",), seed=0):
    """Random samples, and labels as MFCCs (100 Hz) or frames of samples (50 Hz) have them."""
    torch.manual_seed(seed)
    fields = {"speech": pad([torch.randn(n, dtype=torch.float64) for n in sizes])}
    for name, rate, k in zip(names, rates, classes):
        counts = [1 + (n - 400) // (16000 // rate) for n in sizes]
        fields[name] = pad([torch.randint(0, k, (count,)) for count in counts])
    ids = [f"u{i}" for i in range(len(sizes))]
    return Batch(ids, torch.arange(5, 5 + len(sizes)), None, fields)


def features_batch(frames=(98, 54, 75), classes=100, seed=0):
    torch.manual_seed(seed)
    fields = {"features": pad([torch.randn(n, 80, dtype=torch.float64) for n in frames])}
    fields["kmeans"] = pad([torch.randint(0, classes, (n,)) for n in frames])
    return Batch([f"u{i}" for i in range(len(frames))], torch.arange(5, 5 + len(frames)), None, fields)


def term(losses, name):
    return losses[name][0]


def test_the_penalty_may_count_frames_of_padding():
    plain, model, batch = samples_model().eval(), samples_model(penalty_padding=True).eval(), samples_batch()
    encoder, speech = model.encoder, batch["speech"]
    whole = encoder.convolve_padded(speech.values, speech.lengths).square().mean(-1)
    (value, count), (own, fewer) = (m.loss(batch, 0)["penalty"] for m in (model, plain))
    assert (count, fewer) == (3 * 49, 114) and value.item() == pytest.approx(whole.sum().item(), rel=1e-10)
    kept = whole[torch.arange(49) < encoder.output_lengths(speech.lengths)[:, None]]
    assert own.item() == pytest.approx(kept.sum().item(), rel=1e-10) and own < value


@pytest.mark.parametrize("labels", [98, 60, 1])
def test_masked_and_unmasked_frames_are_a_partition_of_those_with_a_label(labels):
    model, batch = samples_model(), samples_batch()
    batch.fields["kmeans"] = Padded(batch["kmeans"].values, batch["kmeans"].lengths.clamp(max=labels))
    frames = model.frames(batch)
    encoded = model.output_lengths(batch["speech"].lengths)
    assert encoded.tolist() == [49, 27, 38] and frames.encoded == 114
    assert not (frames.masked & frames.unmasked).any()
    for i, length in enumerate(encoded.tolist()):
        there = int(batch["kmeans"].lengths[i])
        wanted = min(length, there // 2) if 2 * length > there else length
        assert (frames.masked | frames.unmasked)[i].nonzero().flatten().tolist() == list(range(wanted))
    counts = model.counts(batch)
    assert counts["masked"] == int(frames.masked.sum()) and (labels == 1 or counts["masked"] > 40)


def test_a_batch_without_a_labelled_frame_costs_nothing():
    model, batch = samples_model(), samples_batch()
    batch.fields["kmeans"] = Padded(batch["kmeans"].values[:, :1], torch.ones(3, dtype=torch.int64))
    losses = model.loss(batch, 0)
    assert model.counts(batch)["masked"] == 0 and term(losses, "masked").item() == 0
    objective = sum(weight * term(losses, name) for name, weight in model.weights.items())
    objective.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "make, batch, field",
    [
        (lambda: samples_model("layer"), samples_batch, "speech"),
        (lambda: samples_model("group"), samples_batch, "speech"),
        (features_model, features_batch, "features"),
    ],
    ids=["layer", "group", "features"],
)
def test_padding_changes_nothing_and_has_no_gradient(make, batch, field):
    model, batch = make(), batch()
    padded = batch[field]
    before = {name: value.item() for name, (value, _) in model.loss(batch, 0).items()}
    inside = torch.arange(padded.values.size(1)) < padded.lengths[:, None]
    inside = inside.view(*inside.shape, *[1] * (padded.values.dim() - 2)).expand_as(padded.values)
    noisy = torch.where(inside, padded.values, 7 * torch.randn_like(padded.values)).requires_grad_()
    labels = batch["kmeans"]
    beyond = torch.arange(labels.values.size(1)) >= labels.lengths[:, None]
    fields = {
        field: Padded(noisy, padded.lengths),
        "kmeans": Padded(labels.values.masked_fill(beyond, 99), labels.lengths),
    }
    losses = model.loss(Batch(batch.ids, batch.keys, None, fields), 0)
    for name, value in before.items():
        assert losses[name][0].item() == pytest.approx(value, rel=1e-12), name
    sum(weight * term(losses, name) for name, weight in model.weights.items()).backward()
    assert (noisy.grad[~inside] == 0).all() and (noisy.grad[inside] != 0).any()


def test_the_loss_is_that_of_each_frame_written_out():
    """Equation by equation from the encoder's output, for frames that are masked."""
    model, batch = samples_model(), samples_batch()
    frames = model.frames(batch)
    output = model.encoder(batch["speech"].values, batch["speech"].lengths, mask=frames.masked)
    total = correct = 0.0
    for i, t in frames.masked.nonzero().tolist():
        projected = model.final_proj(output.frames[i, t])
        cosines = torch.stack([projected @ e / (projected.norm() * e.norm()) for e in model.label_embs])
        p = torch.softmax(cosines / 0.1, 0)
        label = int(batch["kmeans"].values[i, 2 * t])
        total -= math.log(p[label].item())
        correct += int(p.argmax()) == label
    losses = model.loss(batch, 0)
    assert term(losses, "masked").item() == pytest.approx(total, rel=1e-10)
    assert term(losses, "accuracy").item() == correct
    raw = [output.local_raw[i, :n] for i, n in enumerate(output.lengths.tolist())]
    penalty = torch.cat(raw).square().mean().item()
    assert losses["penalty"][0].item() / losses["penalty"][1] == pytest.approx(penalty, rel=1e-10)
    bits = (total / losses["masked"][1] + 10 * penalty) / math.log(2)
    assert losses["bits"][0].item() / losses["bits"][1] == pytest.approx(bits, rel=1e-10)


def test_masked_and_unmasked_losses_add_up():
    batch = samples_batch()
    models = [samples_model(masked_weight=m, unmasked_weight=u) for m, u in ((1, 0), (0, 1), (1, 1))]
    objectives, counts = [], []
    for model in models:
        losses = model.loss(batch, 0)
        parts = [w * term(losses, name) for name, w in model.weights.items() if name != "penalty"]
        objectives.append(sum(parts).item())
        counts.append(losses["bits"][1])
    assert objectives[0] + objectives[1] == pytest.approx(objectives[2], rel=1e-12)
    assert counts[0] + counts[1] == counts[2]
    assert models[2].counts(batch)["masked"] == models[2].counts(batch)["unmasked"] == counts[2]


def test_two_label_sets_with_projections_of_their_own_are_two_single_ones():
    names = ("kmeans", "kmeans_again")
    batch = samples_batch(rates=(100, 100), classes=(30, 30), names=names)
    batch.fields["kmeans_again"] = batch["kmeans"]
    both = samples_model(labels=list(names), classes=[30, 30], label_rates=[100, 100], penalty_weight=0)
    width = both.config.projection_dim
    losses = both.loss(batch, 0)
    for k, (name, suffix) in enumerate(zip(names, ("_kmeans", "_again"))):
        alone = samples_model(labels=[name], classes=[30], label_rates=[100], penalty_weight=0)
        alone.encoder.load_state_dict(both.encoder.state_dict())
        part = slice(k * width, (k + 1) * width)
        alone.final_proj.load_state_dict(
            {n: value[part] for n, value in both.final_proj.state_dict().items()}
        )
        alone.label_embs.data = both.label_embs.data[30 * k : 30 * (k + 1)]
        single = alone.loss(batch, 0)
        assert single["masked"][1] == losses[f"masked{suffix}"][1]  # frames count once
        assert term(single, "masked").item() == pytest.approx(
            term(losses, f"masked{suffix}").item(), rel=1e-12
        )
    assert term(losses, "masked_kmeans").item() != term(losses, "masked_again").item()
    summed = sum(term(losses, f"masked{suffix}").item() for suffix in both.suffixes)
    assert term(losses, "bits").item() == pytest.approx(summed / math.log(2), rel=1e-12)


def test_sets_of_different_rates_share_the_frames_that_have_all_labels():
    names = ("kmeans", "kmeans_deep")
    batch = samples_batch(rates=(100, 50), classes=(30, 500), names=names)
    batch.fields["kmeans_deep"].lengths[0] = 40
    model = samples_model(
        labels=list(names), classes=[30, 500], label_rates=[100, 50], untied=False, head="cosine"
    )
    assert model.final_proj.out_features == 256 and model.label_embs.shape == (530, 256)
    frames = model.frames(batch)
    assert (frames.masked | frames.unmasked).sum(1).tolist() == [40, 27, 37]  # 2 * 38 > 75 labels
    model.loss(batch, 0)["masked_deep"][0].backward()
    assert (model.label_embs.grad[:30] == 0).all() and (model.label_embs.grad[30:] != 0).any()


def test_the_linear_head_is_one_layer_with_cross_entropy():
    model, batch = samples_model(head="linear", classes=[40]), samples_batch(classes=(40,))
    assert [n for n, _ in model.named_parameters() if "encoder" not in n] == [
        "final_proj.weight",
        "final_proj.bias",
    ]
    frames = model.frames(batch)
    output = model.encoder(batch["speech"].values, batch["speech"].lengths, mask=frames.masked)
    logits = model.final_proj(output.frames[frames.masked])
    labels = torch.cat(
        [batch["kmeans"].values[i, 2 * row.nonzero()[:, 0]] for i, row in enumerate(frames.masked)]
    )
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert term(model.loss(batch, 0), "masked").item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("shift", [0, 3])
def test_frames_of_features_get_every_fourth_label(shift, monkeypatch):
    """Labels that count 10 ms frames."""
    model, batch = features_model(classes=[200], label_shifts=[shift]), features_batch()
    assert model.frame_rate == 25 and model.requires == ("features", "kmeans")
    counted = torch.arange(98)[None].expand(3, -1)
    batch.fields["kmeans"] = Padded(counted, batch["features"].lengths)
    seen = []
    loss = hubert.prediction.prediction_loss
    monkeypatch.setattr(model, "logits", lambda hidden: [torch.zeros(len(hidden), 200)])
    monkeypatch.setattr(hubert.prediction, "prediction_loss", lambda x, y: seen.append(y) or loss(x, y))
    model.loss(batch, 0)
    frames = model.frames(batch)
    assert seen[0].tolist() == [4 * t + shift for _, t in frames.masked.nonzero().tolist()]
    encoded = model.output_lengths(batch["features"].lengths)
    assert (frames.masked | frames.unmasked).sum(1).tolist() == encoded.tolist() == [23, 12, 18]


@pytest.mark.parametrize("start, size", [(0, 16000), (640, 15000), (6400, 9601), (1280, 400)])
def test_labels_follow_a_crop_to_every_frame(start, size):
    """labels[t] = t at 100 Hz: frame t of a crop at s is told 2 * (s / 320 + t)."""
    model = samples_model(classes=[1000])
    labels = crop_labels(np.arange(1 + (20000 - 400) // 160), Crop(start, size), 100, 16000)
    fields = {"speech": pad([torch.randn(size, dtype=torch.float64)])}
    fields["kmeans"] = pad([torch.from_numpy(labels)])
    batch = Batch(["u"], torch.tensor([3]), None, fields)
    frames = model.frames(batch)
    count = 1 + (size - 400) // 320
    assert int((frames.masked | frames.unmasked).sum()) == count  # no frame loses its label
    told = hubert.prediction.frame_labels(batch["kmeans"].values, count, 2.0)[0]
    assert told.tolist() == [2 * (start // 320 + t) for t in range(count)]


def test_unmasked_frames_are_predicted_now_and_then_to_be_watched():
    model, batch = samples_model(log_interval=10), samples_batch()
    frames = model.frames(batch)
    calls = []
    logits = model.logits
    model.logits = lambda hidden: calls.append((len(hidden), torch.is_grad_enabled())) or logits(hidden)
    for update in (10, 11):
        model.set_update(update)
        losses = model.loss(batch, update)
        due = int(frames.unmasked.sum()) if update == 10 else 0
        assert losses["accuracy_unmasked"][1] == model.counts(batch)["accuracy_unmasked"] == due
        assert "unmasked" not in losses
    masked, unmasked = int(frames.masked.sum()), int(frames.unmasked.sum())
    assert calls == [(masked, True), (unmasked, False), (masked, True)]
    model.eval()
    assert model.counts(batch)["accuracy_unmasked"] == unmasked  # dev sets are always watched


def test_an_utterance_has_the_same_mask_in_any_batch():
    model, batch = samples_model(), samples_batch()
    together = model.frames(batch).masked
    for i in range(3):
        fields = {n: Padded(f.values[i : i + 1], f.lengths[i : i + 1]) for n, f in batch.fields.items()}
        alone = model.frames(Batch([f"u{i}"], batch.keys[i : i + 1], None, fields)).masked
        assert torch.equal(alone[0], together[i, : alone.size(1)])


def test_perplexities_are_of_the_predicted_and_the_true_classes():
    model, batch = samples_model(classes=[8]), samples_batch(classes=(8,))
    batch["kmeans"].values[:] = 3
    losses = model.loss(batch, 0)
    assert term(losses, "label_perplexity").item() == pytest.approx(1)
    model.logits = lambda hidden: [torch.nn.functional.one_hot(torch.arange(len(hidden)) % 2, 8).double()]
    assert term(model.loss(batch, 0), "perplexity").item() == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    "accuracy, used, true, said",
    [
        (0.4, 40, 60, None),
        (0.99, 40, 60, "the task has become trivial"),
        (0.2, 1.1, 60, "the predictions collapsed"),
        (0.9, 1, 1.2, "the labels are nearly all the same"),
    ],
)
def test_advice(accuracy, used, true, said):
    model = samples_model()
    row = {"update": 1000, "accuracy": accuracy, "perplexity": used, "label_perplexity": true}
    advice = model.advise(row)
    assert advice is None if said is None else said in advice and advice.startswith("kmeans: ")
    assert model.advise({**row, "update": 10}) is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"labels": ["kmeans", "kmeans_b"]}, "need one entry for each set"),
        ({"labels": ["phones"]}, "'phones' is not kmeans or kmeans_<name>"),
        ({"labels": ["kmeans"] * 2, "classes": [3, 3], "label_rates": [50, 50]}, "named twice"),
        (
            {"labels": ["kmeans", "kmeans_kmeans"], "classes": [3, 3], "label_rates": [50, 50]},
            "kmeans and kmeans_kmeans have the same names",
        ),
        ({"classes": [1]}, "classes"),
        ({"masked_weight": 0}, "nothing would be learnt"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        hubert.Config(**changes)


def test_encoders_that_cannot_be_trained_this_way():
    with pytest.raises(InputError, match="mask_embedding"):
        hubert.build(hubert.Config(encoder=conformer.Config()), Assets())
    encoder = conformer.Config(mask_embedding=True)
    with pytest.raises(InputError, match=r"penalty_weight=10.*no features before a norm"):
        hubert.build(hubert.Config(encoder=encoder, penalty_weight=10), Assets())


def test_class_vectors_are_compared_by_angle_only():
    x, e = torch.randn(4, 8, dtype=torch.float64), torch.rand(5, 8, dtype=torch.float64)
    torch.testing.assert_close(cosine_logits(3 * x, 0.1 * e, 0.1), cosine_logits(x, e, 0.1))


# Whole runs

FEATURES = {
    "model__name": "hubert",
    "model__encoder__name": "conformer",
    "model__encoder__mask_embedding": "true",
    "model__encoder__dim": 16,
    "model__encoder__layers": 1,
    "model__encoder__heads": 2,
    "model__encoder__feed_forward": 16,
    "model__encoder__subsampling__channels": 4,
    "model__mask__length": 3,
    "model__classes": "[12]",
    "model__log_interval": 3,
    "validation__every": 6,
}
SAMPLES = {
    "model__name": "hubert",
    "model__encoder__preset": "tiny",
    "model__encoder__layers": 1,
    "model__encoder__conv_channels": "[8, 8, 8, 8, 8, 8, 8]",
    "model__classes": "[12]",
    "loop__max_updates": 6,
    "validation__every": 3,
}
CROPS = {"plan__crop_seconds": 0.7, "plan__crop_to_shortest": "true", "augment__gain__probability": 0.5}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Speech with labels of 100 Hz: the loudness of each 10 ms, in 12 steps."""
    import soundfile

    world = World(tmp_path_factory.mktemp("world"))
    for folder in (world.train, world.dev):
        rows_ = {}
        for row in (folder / "wav.scp").read_text().splitlines():
            utterance, path = row.split(maxsplit=1)
            x, _ = soundfile.read(path, dtype="float32")
            frames = np.lib.stride_tricks.sliding_window_view(x, 400)[::160]
            level = np.log(np.square(frames).mean(1) + 1e-4)
            classes = np.digitize(level, np.linspace(-6, -3, 11))
            rows_[utterance] = " ".join(map(str, classes.tolist()))
        write_table(folder / "km.txt", rows_)
    return world


@pytest.mark.parametrize("model", [FEATURES, SAMPLES], ids=["features", "samples"])
def test_a_run_with_crops_resumes_to_the_last_bit(world, model, capfd):
    name = "features" if model is FEATURES else "samples"
    options = {**model, **CROPS}
    assert world.run(f"{name}_at_once", **options) == 0
    assert world.run(f"{name}_cut", **{**options, "checkpoints__every": 2, "plan__seconds": 2.5}) == 0
    last = int(options.get("loop__max_updates", 12))
    exp = world.folder / f"{name}_cut"
    for folder in [*exp.glob("step_*"), exp / "final"]:
        if folder.name == "final" or int(folder.name[5:]) > last // 2:
            shutil.rmtree(folder)
    assert world.run(f"{name}_cut", **{**options, "checkpoints__every": 2}) == 0
    assert f"resuming from {exp / f'step_{last // 2}'}" in capfd.readouterr().err
    a, b = (weights(world.folder / f"{name}_{how}" / f"step_{last}") for how in ("at_once", "cut"))
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    whole, cut = (rows(world.folder / f"{name}_{how}", "train") for how in ("at_once", "cut"))
    assert whole == cut and all(row["padding"] == pytest.approx(0) for row in whole)
    watched = {"loss_masked", "accuracy", "perplexity", "label_perplexity", "bits"}
    assert watched <= whole[0].keys()
    assert ["accuracy_unmasked" in row for row in rows(world.folder / "features_cut", "train")][:4] == [
        True,
        False,
        False,
        True,
    ]


def test_a_run_learns_what_can_be_learnt(world):
    options = {**FEATURES, "loop__max_updates": 60, "loop__log_every": 20, "validation__every": 60}
    easy = {"model__unmasked_weight": 1, "model__head": "linear", "plan__seconds": 10}
    assert world.run("learns", **{**options, **easy, "features__normalise": "utterance"}) == 0
    first, *_, last = rows(world.folder / "learns", "train")
    assert last["loss"] < 0.8 * first["loss"]
    (dev,) = rows(world.folder / "learns", "dev")
    assert dev["accuracy_unmasked"] > 0.4 and dev["loss"] < 0.8 * np.log(12)
