"""CTC on pre-trained encoders: masks, frozen parts, inner blocks, adapters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.encoders import fine_tuning
from speechkit.errors import InputError, ProblemsError
from speechkit.layers.span_mask import Config as Spans
from speechkit.models import ctc
from speechkit.models.assets import Assets

TINY = "{name: wav2vec2, preset: tiny, dim: 16, layers: 3, heads: 2, feed_forward: 24, \
conv_channels: [8, 8, 8, 8, 8, 8, 8], pos_conv_kernel: 6, pos_conv_groups: 4, dropout: 0, input_dropout: 0, \
activation_dropout: 0, layer_drop: 0, feature_grad_mult: 0}"
TOKENIZER = SimpleNamespace(vocab=["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"])
LENGTHS = [16000, 9000, 12345]


def make(*overrides, encoder=TINY, cmvn=None):
    torch.manual_seed(1)
    config = load_config(ctc.Config, overrides=[f"encoder={encoder}", *overrides])
    return ctc.build(config, Assets(TOKENIZER, cmvn))


def make_batch(dtype=torch.float32):
    draw = torch.Generator().manual_seed(2)
    speech = pad([0.1 * torch.randn(n, generator=draw, dtype=dtype) for n in LENGTHS])
    tokens = pad([torch.tensor(t) for t in ([2, 3, 3], [4, 2], [2])])
    keys = torch.tensor([11, 12, 13])
    return Batch(["u1", "u2", "u3"], keys, None, {"speech": speech, "tokens": tokens})


def first_input(model, batch):
    """The input of the first block."""
    model.encoder.keep_hidden_states = True
    return model.encode_frames(batch).hidden_states[0]


def test_it_reads_samples():
    model, batch = make().eval(), make_batch()
    assert model.inputs == ("speech",) and model.requires == ("speech", "tokens")
    log_probs, lengths = model.encode(batch)["ctc"]
    assert lengths.tolist() == [49, 27, 38] == model.output_lengths(torch.tensor(LENGTHS)).tolist()
    assert log_probs.shape == (3, 49, 6)


def positionless(model):
    """The same without positions, so that the first block's input is what masking left."""
    model.encoder.encoder.pos_conv_embed.forward = lambda x, packing: torch.zeros_like(x)
    return model


def test_time_masks_put_the_embedding_where_span_mask_says():
    model, batch = positionless(make("masking={time: {probability: 0.5, length: 4}}")).train(), make_batch()
    plain = first_input(model.eval(), batch)
    masked = first_input(model.train(), batch)
    frames = model.output_lengths(torch.tensor(LENGTHS))
    spans = Spans(probability=0.5, length=4)
    where = fine_tuning.span_mask.span_mask(frames, spans, batch.keys, fine_tuning.TIME)
    assert 20 < int(where.sum()) < int(frames.sum()) - 20
    assert torch.equal(masked, torch.where(where[:, :, None], model.encoder.masked_spec_embed, plain))


def test_channel_masks_zero_channels_of_whole_utterances():
    model, batch = positionless(make("masking={channels: {probability: 0.5, length: 3}}")), make_batch()
    plain, masked = first_input(model.eval(), batch), first_input(model.train(), batch)
    changed = (plain != masked).any(1)
    assert changed.any(1).all() and not changed.all()
    assert not (masked * changed[:, None]).any() and len({tuple(row.tolist()) for row in changed}) > 1
    keys = batch.keys
    batch.keys = keys + 1
    assert not torch.equal(first_input(model, batch), masked)  # drawn from the keys, and nothing else
    batch.keys = keys
    torch.manual_seed(99)
    assert torch.equal(first_input(model, batch), masked)


def test_masks_of_an_utterance_are_the_same_in_any_batch():
    masking = "masking={time: {probability: 0.5, length: 4}, channels: {length: 3}}"
    model, batch = make(masking).double().train(), make_batch(torch.float64)
    together, lengths = model.encode(batch)["ctc"]
    for i, samples in enumerate(LENGTHS):
        speech = pad([batch["speech"].values[i, :samples]])
        alone = model.encode(Batch(["u"], batch.keys[i : i + 1], None, {"speech": speech}))["ctc"][0]
        torch.testing.assert_close(together[i, : lengths[i]], alone[0], rtol=0, atol=1e-10)
    assert not torch.allclose(model.eval().encode(batch)["ctc"][0], together)


def test_a_frozen_encoder_has_no_graph_and_keeps_its_dropout():
    encoder = TINY.replace("dropout: 0,", "dropout: 0.3,", 1)
    model, batch = make("masking={time: {}}", encoder=encoder).train(), make_batch()
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    frames = model.encode_frames(batch).frames
    assert frames.grad_fn is None and not frames.requires_grad
    assert not torch.equal(frames, model.encode_frames(batch).frames)
    model.loss(batch, 0)["ctc"][0].backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "head.weight",
        "head.bias",
    }
    next(model.encoder.encoder.layers[2].parameters()).requires_grad_(True)
    assert model.encode_frames(batch).frames.grad_fn is not None


@pytest.mark.parametrize("layer", [1, 3])
def test_the_head_can_read_an_inner_block(layer):
    model, batch = make(f"layer={layer}").eval(), make_batch()
    with torch.no_grad():
        states = model.encode_frames(batch).hidden_states
        log_probs, _ = model.encode(batch)["ctc"]
    torch.testing.assert_close(log_probs, model.head(states[layer]).log_softmax(-1))
    model.train().loss(batch, 0)["ctc"][0].backward()
    for i, block in enumerate(model.encoder.encoder.layers):
        assert all(p.requires_grad == (i < layer) == (p.grad is not None) for p in block.parameters())


def test_adapters_of_the_encoder_learn_with_the_head_alone():
    encoder = TINY[:-1] + ", lora: {rank: 2}, adapter: {dim: 3}}"
    adapted, plain, batch = make(encoder=encoder), make(), make_batch()
    weights = adapted.state_dict()
    weights.update(plain.state_dict())
    adapted.load_state_dict(weights)
    expected = plain.eval().encode(batch)["ctc"][0]
    torch.testing.assert_close(adapted.eval().encode(batch)["ctc"][0], expected, rtol=0, atol=1e-6)
    adapted.train().loss(batch, 0)["ctc"][0].backward()
    learning = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert learning == {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora" in n or "adapter" in n or "layer_norm" in n or n.startswith("head") for n in learning)
    assert len([n for n in learning if "lora_b" in n]) == 6 and "head.bias" in learning


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["specaugment={}"], "model.specaugment: is for features, and the wav2vec2 encoder takes speech"),
        (["input_dim=80"], "model.input_dim: is for features"),
        (["encoder={name: conformer}", "masking={time: {}}"], "conformer encoder was built without a mask"),
    ],
)
def test_options_without_use_are_refused(overrides, said):
    with pytest.raises(InputError, match=said):
        make(*overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["layer=4"], "layer=4: the wav2vec2 encoder has 3 blocks"),
        (["layer=0"], "layer=0"),
        (["encoder={name: linear}", "layer=1"], "the linear encoder has 0 blocks"),
        (["encoder={name: blstm, strides: [2, 1, 1]}", "layer=1"], "several strides"),
        (["masking={channels: {probability: -1}}"], "probability=-1"),
        (["masking={frames: {}}"], "unknown key"),
    ],
)
def test_bad_options_are_named(overrides, said):
    with pytest.raises(ProblemsError, match=said):
        make(*overrides)


def test_channel_masks_have_no_fewest_number():
    """Of time masks there are at least 2, of channel masks perhaps none, as published."""
    masking = load_config(ctc.Config, overrides=["masking={time: {}, channels: {}}"]).masking
    assert (masking.time.min_spans, masking.time.length) == (2, 10)
    assert (masking.channels.min_spans, masking.channels.length) == (0, 64)


def test_statistics_are_for_features():
    with_statistics = make(cmvn={"mean": [0.0] * 80, "std": [1.0] * 80, "frames": 9})
    assert with_statistics.input_dim is None and set(with_statistics.state_dict()) == set(make().state_dict())
    linear = make("encoder={name: linear}", cmvn={"mean": [0.0] * 24, "std": [1.0] * 24, "frames": 9})
    assert linear.input_dim == 24 and linear.head.in_features == 24 and linear.inputs == ("features",)
