"""AV-BERT's pre-training: what is predicted, what the loss is made of, crops, dropped modalities."""

import math

import numpy as np
import pytest
import torch
from av_models import BINS, CMVN, PIXELS, encoder_config, make_batch, make_model

from speechkit.data.batch import Batch, Padded
from speechkit.errors import InputError
from speechkit.layers.av_mask import Stage
from speechkit.models import av_bert
from speechkit.models.assets import Assets

HALF = {"first_probability": 0.3, "last_probability": 0.5, "max_width": 3, "max_coverage": 0.6}


def replaced(batch, **fields):
    return Batch(batch.ids, batch.keys, None, {**batch.fields, **fields})


def without(batch, *names):
    return Batch(batch.ids, batch.keys, None, {k: v for k, v in batch.fields.items() if k not in names})


def sums(model, batch):
    return {name: value.item() for name, (value, _) in model.loss(batch, 0).items()}


@pytest.mark.parametrize("encoder", [{}, {"concat": "av"}, {"inst_scope": "joint"}])
@pytest.mark.parametrize("vocab", ["split", "joint"])
def test_the_loss_is_the_cross_entropy_of_masked_tokens(vocab, encoder):
    model, batch = make_model(mask=HALF, vocab=vocab, encoder=encoder), make_batch()
    clips, losses = model.draw(batch), model.loss(batch, 0)
    states = model.encoder(*model.patches(batch, clips))
    for name, offset in (("audio", 20 if vocab == "joint" else 0), ("video", 0)):
        tokens, labels = getattr(clips, name), batch[f"kmeans_{name}"].values
        parts = getattr(states, name).split(tokens.lengths.tolist())
        nats, right, count = 0.0, 0, 0
        for i, part in enumerate(parts):
            for place in tokens.hidden[i].nonzero().flatten().tolist():
                scores = model.logits(name, part[place]).log_softmax(-1)
                truth = int(labels[i, place]) + offset
                nats, count = nats - scores[truth].item(), count + 1
                right += int(scores.argmax()) == truth
        assert losses[name][0].item() == pytest.approx(nats, rel=1e-9) and losses[name][1] == count > 3
        assert losses[f"accuracy_{name}"][0].item() == right
        assert losses[f"coverage_{name}"][0].item() == count
        assert losses[f"coverage_{name}"][1] == int(batch[f"kmeans_{name}"].lengths.sum())
    assert losses["both"][0].item() == pytest.approx(losses["audio"][0].item() + losses["video"][0].item())


def test_weights_of_the_modalities():
    assert make_model().weights == {"audio": 1.0, "video": 1.0}
    assert make_model(modality_weight="tokens").weights == {"both": 1.0}
    alone = make_model(encoder={"modalities": "audio"}, modality_weight="tokens")
    assert alone.weights == {"audio": 1.0} and alone.pixels is None and set(alone.heads) == {"audio"}
    assert alone.requires == ("features", "kmeans_audio")


def test_targets_of_visible_tokens_do_not_matter():
    model, batch = make_model(mask=HALF), make_batch()
    before, clips = sums(model, batch), model.draw(batch)
    for name, classes in (("audio", 12), ("video", 20)):
        labels, hidden = batch[f"kmeans_{name}"], getattr(clips, name).hidden
        moved = (labels.values + 1) % classes
        visible = Padded(torch.where(hidden, labels.values, moved), labels.lengths)
        assert sums(model, replaced(batch, **{f"kmeans_{name}": visible})) == before
        masked = Padded(torch.where(hidden, moved, labels.values), labels.lengths)
        assert sums(model, replaced(batch, **{f"kmeans_{name}": masked}))[name] != before[name]


def test_the_head_of_video_never_sees_audio():
    model, batch = make_model(mask=HALF), make_batch()
    losses = model.loss(batch, 0)
    losses["audio"][0].backward(retain_graph=True)
    assert model.heads["video"].weight.grad is None and model.heads["audio"].weight.grad.any()
    assert model.encoder.video.patch.weight.grad.any()  # audio is told from video
    model.zero_grad()
    losses["video"][0].backward()
    assert model.heads["audio"].weight.grad is None and model.heads["video"].weight.grad.any()


def test_counts_are_known_beforehand_and_masks_follow_the_update():
    model, batch, seen = make_model(mask={**HALF, "max_coverage": 1.0}), make_batch(), []
    for update in (0, 5, 10, 40):
        model.set_update(update)
        counts = model.counts(batch)
        assert counts == {name: count for name, (_, count) in model.loss(batch, update).items()}
        seen.append(counts["audio"])
    assert seen[0] < seen[1] < seen[3] and model.stage == Stage(3, 0.5)
    resumed = make_model(mask={**HALF, "max_coverage": 1.0})
    resumed.set_update(40)
    assert torch.equal(model.draw(batch).video.hidden, resumed.draw(batch).video.hidden)


def test_masks_of_validation_do_not_follow_it():
    model, batch = make_model(mask={**HALF, "valid_width": 2, "valid_probability": 0.4}).eval(), make_batch()
    before = sums(model, batch)
    model.set_update(1000)
    assert sums(model, batch) == before
    assert make_model(mask={**HALF, "valid_width": 2}).eval().draw(batch).audio.hidden.any()


def test_padding_and_neighbours_change_nothing():
    model, batch = make_model(mask=HALF), make_batch()
    before, clips = sums(model, batch), []
    spoilt = {}
    for name in ("features", "video", "kmeans_audio", "kmeans_video"):
        values, lengths = batch[name].values.clone(), batch[name].lengths
        for row, length in zip(values, lengths):
            row[length:] = float("nan") if name == "features" else 3
        spoilt[name] = Padded(values, lengths)
    after = sums(model, replaced(batch, **spoilt))
    assert after == pytest.approx(before, rel=1e-10)
    for i in range(3):
        fields = {
            name: (p.values[i : i + 1, : p.lengths[i]], p.lengths[i : i + 1])
            for name, p in batch.fields.items()
        }
        alone = Batch([batch.ids[i]], batch.keys[i : i + 1], None, {k: Padded(*v) for k, v in fields.items()})
        clips.append(sums(model, alone))
    assert {name: sum(clip[name] for clip in clips) for name in before} == pytest.approx(before, rel=1e-9)


def test_clips_without_video_are_learnt_from_by_audio_alone():
    model, batch = make_model(mask=HALF), without(make_batch(), "video", "kmeans_video")
    losses = model.loss(batch, 0)
    assert set(losses) == set(make_model().loss(make_batch(), 0))
    assert losses["video"] == (0, 0) and losses["audio"][1] > 0
    sum(losses[name][0] for name in model.weights).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == ("video" in name), name
    none = make_batch(pictures=(0, 0, 0))  # the field is there, and nothing in it
    assert sums(model, none)["audio"] == pytest.approx(losses["audio"][0].item(), rel=1e-12)


def test_the_model_of_audio_reads_no_video_even_where_there_is_some():
    model, batch = make_model(mask=HALF, encoder={"modalities": "audio"}), make_batch()
    assert sums(model, batch) == sums(model, without(batch, "video", "kmeans_video"))


def test_random_stretches_of_video_keep_their_positions_and_labels():
    batch = make_batch(pictures=(15, 12, 6))
    model = make_model(mask=HALF, max_video_tokens=13)
    clips = model.draw(batch)
    assert clips.stretch.kept.tolist() == [2, 2, 2] and clips.stretch.slices.tolist() == [5, 4, 2]
    _, video = model.patches(batch, clips)
    whole = make_model(mask=HALF)
    _, full = whole.patches(batch, whole.draw(batch))
    for i, start in enumerate(clips.stretch.starts.tolist()):
        assert torch.equal(video.patches[i, :12], full.patches[i, 6 * start : 6 * start + 12])
        labels = model._labels("video", clips.video, batch, _packing(clips.video.lengths)).split(12)[i]
        assert torch.equal(labels, batch["kmeans_video"].values[i, 6 * start : 6 * start + 12])
    starts = set()
    for key in range(60):
        batch.keys = torch.tensor([key, 5, 6])
        starts.add(int(model.draw(batch).stretch.starts[0]))
    assert starts == {0, 1, 2, 3} and clips.video.first.tolist() == [6 * s for s in clips.stretch.starts]
    loss = model.loss(batch, 0)
    assert loss["video"][1] <= 36 and loss["video"][0].isfinite()


def _packing(lengths):
    from speechkit.layers.masks import Packing

    return Packing(lengths)


def test_dropped_modalities():
    model = make_model(mask=HALF, modality_dropout=0.5, audio_dropout=0.3)
    batch = make_batch(frames=(30,) * 400, pictures=(6,) * 399 + (0,))
    clips = model.draw(batch)
    deaf, blind = clips.audio.lengths == 0, clips.video.lengths == 0
    assert not (deaf & blind).any() and not deaf[-1]
    assert deaf.double().mean() == pytest.approx(0.15, abs=0.05)
    assert blind.double().mean() == pytest.approx(0.35, abs=0.06)
    assert all(value.isfinite() for value, _ in model.loss(batch, 0).values())
    assert not (model.eval().draw(batch).audio.lengths == 0).any()


def test_tokens_without_a_label_are_masked_and_not_predicted():
    model, batch = make_model(mask=HALF), make_batch()
    short = Padded(batch["kmeans_audio"].values[:, :7], batch["kmeans_audio"].lengths.clamp(max=7))
    clips = model.draw(replaced(batch, kmeans_audio=short))
    assert clips.audio.hidden[:, 7:].any() and not clips.audio.predicted[:, 7:].any()
    nothing = Padded(torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    losses = model.loss(replaced(batch, kmeans_audio=nothing, kmeans_video=nothing), 0)
    assert losses["audio"][1] == losses["video"][1] == 0
    sum(losses[name][0] for name in model.weights).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_perplexities_and_the_reference_line():
    model, batch = make_model(mask=HALF).eval(), make_batch()
    found = model.derive({"audio": 1.0, "video": 2.0, "both": 1.5, "accuracy_audio": 0.1})
    expected = {"perplexity_audio": math.e, "perplexity_video": math.e**2, "perplexity": math.e**1.5}
    assert found == pytest.approx(expected)
    assert not any(name.startswith("entropy") for name in model.counts(batch))
    model.know_labels({"kmeans_audio": np.array([0, 1, 1, 3], np.int16)})
    losses = model.loss(batch, 0)
    assert (
        losses["entropy_audio"][0].item() == pytest.approx(1.5 * math.log(2))
        and "entropy_video" not in losses
    )
    assert losses["entropy_audio"][1] == 1 and "entropy_audio" not in model.weights


def test_features_are_whitened_and_clipped_and_pixels_scaled():
    model, batch = make_model(), make_batch()
    audio, video = model.patches(batch, model.draw(batch))
    white = ((batch["features"].values - 0.5) / 1.5).clamp(-1.2, 1.2)
    torch.testing.assert_close(audio.patches[0, 3], white[0, 9:12].flatten(), rtol=0, atol=1e-6)
    assert audio.patches.abs().max() <= 1.2
    mean, std = (torch.tensor(PIXELS[key]).double() for key in ("mean", "std"))
    expected = (batch["video"].values[0, :3, :4, :4] / 255 - mean) / std
    torch.testing.assert_close(video.patches[0, 0], expected.flatten(), rtol=0, atol=1e-5)


def test_a_label_too_large_names_the_utterance():
    model, batch = make_model(mask=HALF), make_batch()
    batch["kmeans_audio"].values[1, 2] = 12
    with pytest.raises(InputError, match="utterance u1: label 12 of kmeans_audio"):
        model.loss(batch, 0)


def test_statistics_are_needed():
    audio = av_bert.Config(encoder=encoder_config(modalities="audio"))
    with pytest.raises(InputError, match="--cmvn"):
        av_bert.build(audio, Assets())
    with pytest.raises(InputError, match="video_stats.json"):
        av_bert.build(av_bert.Config(encoder=encoder_config()), Assets(cmvn=CMVN))
    with pytest.raises(InputError, match=f"{BINS} dimensions"):
        av_bert.build(av_bert.Config(encoder=audio.encoder, input_dim=80), Assets(cmvn=CMVN))
    assert av_bert.build(audio, Assets(cmvn=CMVN)).output_lengths(torch.tensor([1000, 998, 2])).tolist() == [
        333,
        332,
        0,
    ]


def test_assets_keep_the_statistics(tmp_path):
    Assets(cmvn=CMVN, video=PIXELS, av_bert={"encoder": {"dim": 8}}).save(tmp_path)
    found = Assets.load(tmp_path)
    assert found.cmvn == CMVN and found.video == PIXELS and found.av_bert == {"encoder": {"dim": 8}}
