"""What every encoder must keep, in every option that changes how it computes."""

import pytest
import torch

from speechkit.config import load_kind
from speechkit.encoders import ENCODERS

BINS = 20
SMALL = {
    "conformer": {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "kernel": 5},
    "transformer": {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24},
    "blstm": {"cells": 8, "projection": 12, "layers": 2},
    "linear": {"dim": 16},
    "wav2vec2": {
        "dim": 16,
        "layers": 2,
        "heads": 2,
        "feed_forward": 24,
        "conv_channels": [8] * 7,
        "pos_conv_kernel": 6,
        "pos_conv_groups": 4,
        "layer_drop": 0.0,
        "feature_grad_mult": 1.0,
    },
}
OPTIONS = [
    ("conformer", {}),
    ("conformer", {"positions": "relative"}),
    ("conformer", {"positions": "sinusoidal"}),
    ("conformer", {"positions": "none"}),
    ("conformer", {"conv_norm": "batch"}),
    ("conformer", {"conv_norm": "group"}),
    ("conformer", {"kernel": 31}),
    ("conformer", {"shared_dropout": True, "checkpointing": True}),
    ("conformer", {"subsampling": {"kind": "stack"}}),
    ("conformer", {"subsampling": {"factor": 1}}),
    ("conformer", {"subsampling": {"factor": 2, "channels": None}}),
    ("conformer", {"subsampling": {"factor": 6}}),
    ("conformer", {"subsampling": {"factor": 8}}),
    ("conformer", {"subsampling": {"kind": "conv1d", "factor": 6}}),
    ("conformer", {"subsampling": {"kind": "conv1d"}, "second_attention": 12}),
    ("transformer", {}),
    ("transformer", {"norm": "post", "positions": "sinusoidal"}),
    ("transformer", {"positions": "relative"}),
    ("transformer", {"subsampling": {"kind": "stack", "factor": 6}}),
    ("blstm", {}),
    ("blstm", {"projection": None, "subsampling": {"kind": "stack"}}),
    ("blstm", {"strides": [2, 3], "subsampling": {"factor": 2}}),
    ("blstm", {"strides": [1, 2], "subsampling": {"kind": "stack", "factor": 1}}),
    ("blstm", {"strides": [2, 2], "linear_end": True, "subsampling": {"kind": "none", "factor": 1}}),
    ("blstm", {"linear_end": True, "subsampling": {"kind": "vgg"}}),
    ("transformer", {"subsampling": {"kind": "vgg"}}),
    ("transformer", {"subsampling": {"kind": "none", "factor": 1}}),
    ("linear", {}),
    ("wav2vec2", {}),
    ("wav2vec2", {"preset": "large_lv60", "dropout": 0.1, "normalize": "hf"}),
    ("wav2vec2", {"preset": "hubert_large", "norm": "post", "dropout": 0.1, "checkpointing": True}),
    ("wav2vec2", {"pos_conv_norm": "batch", "norm": "pre", "normalize": "fairseq"}),
    ("wav2vec2", {"pos_conv_kernel": 5, "conv_bias": True, "feature_grad_mult": 0.1}),
    ("wav2vec2", {"blocks": "conformer", "conformer_kernel": 5, "attention_dropout": 0.0}),
]
SAMPLES = 80  # of speech, in the place of a frame of features
LENGTHS = [61, 90, 33, 61, 61, 120, 47]


def make(name, options=(), dtype=torch.float32):
    from speechkit.config import from_dict

    module = load_kind(ENCODERS, name)
    config = from_dict(module.Config, {"name": name, **SMALL[name], **dict(options)})
    encoder = module.build(config, BINS).to(dtype)
    torch.manual_seed(5)
    with torch.no_grad():  # biases, norms and running statistics away from their neutral first values
        for tensor in [*encoder.parameters(), *encoder.buffers()]:
            if tensor.is_floating_point():
                scale = 0.002 if tensor.dim() == 4 else 0.1  # many a sum of images saturates LSTMs
                tensor.add_(scale * torch.rand_like(tensor))
    return encoder


def batch(encoder, lengths=LENGTHS, dtype=torch.float32, padding=None):
    """Features or samples with random padding, or padding of one value."""
    lengths = torch.tensor(lengths)
    if encoder.takes == "speech":
        lengths = SAMPLES * lengths
        x = 0.1 * torch.randn(len(lengths), int(lengths.max()) + 3, dtype=dtype)
    else:
        x = torch.randn(len(lengths), int(lengths.max()) + 3, BINS, dtype=dtype)
    if padding is not None:
        for row, length in zip(x, lengths):
            row[length:] = padding
    return x, lengths


def some_frames(encoder, lengths):
    """A mask for encoders that always have the vector to put there, so that it gets a gradient."""
    if not hasattr(encoder, "masked_spec_embed"):
        return None
    frames = encoder.output_lengths(lengths)
    return torch.arange(int(frames.max())).expand(len(frames), -1) % 5 == 1


@pytest.fixture(params=OPTIONS, ids=lambda p: "-".join([p[0], *(f"{k}={v}" for k, v in p[1].items())]))
def choice(request):
    return request.param


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_padded_batch_equals_each_utterance_alone(choice, dtype, tolerance):
    encoder = make(*choice, dtype=dtype).eval()
    x, lengths = batch(encoder, dtype=dtype)
    together = encoder(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = encoder(x[i : i + 1, :length], lengths[i : i + 1])
        frames = int(alone.lengths)
        assert frames == int(together.lengths[i]) > 0
        torch.testing.assert_close(together.frames[i, :frames], alone.frames[0], rtol=0, atol=tolerance)
        assert not together.frames[i, frames:].any()


def test_content_of_padding_is_not_seen_even_nan_even_backwards(choice):
    encoder = make(*choice, dtype=torch.float64).train()
    for part in encoder.modules():
        part.rate = 0.0  # dropout off, everything else as in training
    x, lengths = batch(encoder, dtype=torch.float64, padding=0.0)
    spoilt = x.clone()
    for row, length in zip(spoilt, lengths):
        row[length:] = float("nan")
    gradients = []
    for values in (x, spoilt):
        encoder.zero_grad()
        encoder(values, lengths, mask=some_frames(encoder, lengths)).frames.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    assert gradients[0].isfinite().all()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)


def test_order_of_a_batch_does_not_matter(choice):
    encoder = make(*choice, dtype=torch.float64).eval()
    x, lengths = batch(encoder, dtype=torch.float64)
    order = torch.tensor([3, 6, 0, 5, 2, 1, 4])
    plain, moved = encoder(x, lengths), encoder(x[order], lengths[order])
    assert torch.equal(plain.lengths[order], moved.lengths)
    torch.testing.assert_close(plain.frames[order], moved.frames, rtol=0, atol=1e-10)


def test_output_lengths_are_those_of_forward(choice):
    encoder = make(*choice).eval()
    counts = torch.arange(0, 40) * (SAMPLES if encoder.takes == "speech" else 1)
    said = encoder.output_lengths(counts)
    x, _ = batch(encoder, [40])
    for count, frames in zip(counts.tolist(), said.tolist()):
        alone = encoder(x[:, :count], torch.tensor([count]))
        assert alone.lengths.tolist() == [frames]
        assert alone.frames.shape == (1, frames, encoder.output_dim)
    everything = encoder(x.expand(40, *x.shape[1:]), counts)
    assert torch.equal(everything.lengths, said)


def test_gradients_reach_every_parameter(choice):
    encoder = make(*choice).train()
    x, lengths = batch(encoder)
    encoder(x, lengths, mask=some_frames(encoder, lengths)).frames.sin().sum().backward()
    for name, parameter in encoder.named_parameters():
        if name == "feature_extractor.conv_layers.0.conv.bias" and choice[1].get("preset") is None:
            continue  # the norm of each channel over time takes a bias away again
        assert parameter.grad is not None and parameter.grad.any(), name


def test_evaluation_is_deterministic_and_training_is_not(choice):
    encoder = make(*choice)
    x, lengths = batch(encoder)
    encoder.eval()
    assert torch.equal(encoder(x, lengths).frames, encoder(x, lengths).frames)
    encoder.train()
    assert not torch.equal(encoder(x, lengths).frames, encoder(x, lengths).frames)


def test_state_dict_round_trip(choice):
    first = make(*choice).eval()
    module = load_kind(ENCODERS, choice[0])
    second = make(*choice).eval()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.load_state_dict(first.state_dict(), strict=True)
    x, lengths = batch(first)
    assert torch.equal(first(x, lengths).frames, second(x, lengths).frames)
    assert module.Config.__doc__


def test_bf16_autocast_is_close_to_fp32(choice):
    encoder = make(*choice).eval()
    x, lengths = batch(encoder)
    exact = encoder(x, lengths).frames
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(x, lengths).frames.float()
    assert rough.isfinite().all()
    error = (rough - exact).norm() / exact.norm()
    assert 0 < error < 0.05


def test_hidden_states_only_when_asked(choice):
    encoder = make(*choice).eval()
    x, lengths = batch(encoder)
    assert encoder(x, lengths).hidden_states is None
    encoder.keep_hidden_states = True
    output = encoder(x, lengths)
    assert len(output.hidden_states) == 1 + SMALL[choice[0]].get("layers", 0)
    assert output.hidden_states[0].shape[0] == len(lengths)
    if choice[0] == "blstm":
        assert torch.equal(output.hidden_states[-1], output.frames)


@pytest.mark.parametrize("name", ["conformer", "transformer"])
def test_context_is_read_without_its_padding(name):
    encoder = make(name, {"context_dim": 6}, torch.float64).eval()
    x, lengths = batch(encoder, dtype=torch.float64)
    sizes = torch.tensor([3, 1, 5, 0, 4, 5, 2])
    context = torch.randn(7, 6, 6, dtype=torch.float64)
    together = encoder(x, lengths, context=context, context_lengths=sizes)
    for i, (length, size) in enumerate(zip(lengths.tolist(), sizes.tolist())):
        alone = encoder(
            x[i : i + 1, :length], lengths[i : i + 1],
            context=context[i : i + 1, :size], context_lengths=sizes[i : i + 1],
        )  # fmt: skip
        torch.testing.assert_close(
            together.frames[i, : alone.frames.size(1)], alone.frames[0], rtol=0, atol=1e-10
        )
    without = encoder(x, lengths)
    assert not torch.allclose(without.frames, together.frames)
    with pytest.raises(ValueError, match="context_dim"):
        make(name)(x.float(), lengths, context=context.float(), context_lengths=sizes)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_masked_frames_do_not_show_their_content(name):
    embedding = {"extractor": "layer"} if name == "wav2vec2" else {"mask_embedding": True}
    encoder = make(name, embedding, torch.float64).eval()
    x, lengths = batch(encoder, dtype=torch.float64)
    frames = encoder.output_lengths(lengths)
    hide = torch.arange(int(frames.max())).expand(len(frames), -1) >= 3
    other, start = x.clone(), 16 * (SAMPLES if encoder.takes == "speech" else 1)
    other[:, start:] = torch.randn_like(other[:, start:])  # frames 3 and later see inputs from 3 strides on
    hidden = encoder(x, lengths, mask=hide).frames
    shown = encoder(x, lengths).frames
    assert not torch.allclose(hidden, shown)
    torch.testing.assert_close(hidden, encoder(other, lengths, mask=hide).frames, rtol=0, atol=1e-12)
    if name != "wav2vec2":  # which always has one
        with pytest.raises(ValueError, match="mask_embedding"):
            make(name)(x.float(), lengths, mask=hide)


def test_masked_channels_are_zero_before_the_first_block(choice):
    encoder = make(*choice, dtype=torch.float64).eval()
    encoder.keep_hidden_states = encoder.keep_local = True
    x, lengths = batch(encoder, dtype=torch.float64)
    channels = torch.rand(len(lengths), getattr(encoder, "masked_dim", encoder.output_dim)) < 0.3
    plain, masked = encoder(x, lengths), encoder(x, lengths, channel_mask=channels)
    assert torch.equal(plain.local, masked.local)  # what a quantizer reads is not masked
    assert plain.local.size(2) == encoder.local_dim
    assert not torch.allclose(plain.frames, masked.frames)
    first = masked.hidden_states[0]
    adds_positions = choice[1].get("positions") == "sinusoidal" or hasattr(encoder, "encoder")
    if not adds_positions:  # after masking
        assert not first[channels[:, None].expand(first.shape)].any()


def test_stride_is_the_step_between_frames(choice):
    encoder = make(*choice)
    assert encoder.takes == ("speech" if choice[0] == "wav2vec2" else "features")
    frames = encoder.output_lengths(torch.tensor([1000, 1000 + 24 * encoder.stride]))
    assert int(frames[1] - frames[0]) == 24


def test_local_features_are_kept_only_when_asked_for(choice):
    encoder = make(*choice).eval()
    x, lengths = batch(encoder)
    assert encoder(x, lengths).local is None
    encoder.keep_local = True
    output = encoder(x, lengths)
    assert output.local.size(0) == len(x)
    assert (output.local_raw is None) == (encoder.takes == "features")
    short = encoder(x[:, :0], torch.zeros_like(lengths))  # not one frame in the batch
    assert short.local.shape == (len(x), 0, encoder.local_dim)
