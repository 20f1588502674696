"""Our encoder with the weights of transformers' models, loaded by name, gives their hidden states."""

import pytest
import torch

from speechkit.encoders import wav2vec2

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 24, 16, 16, 16, 24),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.65,
}
VARIANTS = [
    ("Wav2Vec2", {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}),
    ("Wav2Vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    ("Wav2Vec2", {"feat_extract_norm": "group", "do_stable_layer_norm": True, "conv_bias": True}),
    ("Wav2Vec2", {"num_conv_pos_embeddings": 15, "layer_norm_eps": 1e-3}),
    ("Hubert", {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}),
    ("Hubert", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": False}),
    ("Hubert", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    ("Hubert", {"conv_pos_batch_norm": True}),
    ("Hubert", {"feat_proj_layer_norm": False}),
]
LENGTHS = [9000, 400, 5123, 6399, 6400]


def ours_from(config, **changes):
    """Our configuration of a transformers one."""
    return wav2vec2.Config(
        dim=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        feed_forward=config.intermediate_size,
        extractor=config.feat_extract_norm,
        conv_channels=list(config.conv_dim),
        conv_kernels=list(config.conv_kernel),
        conv_strides=list(config.conv_stride),
        conv_bias=config.conv_bias,
        feature_norm=getattr(config, "feat_proj_layer_norm", True),
        norm="pre" if config.do_stable_layer_norm else "post",
        normalize="none",
        pos_conv_kernel=config.num_conv_pos_embeddings,
        pos_conv_groups=config.num_conv_pos_embedding_groups,
        pos_conv_norm="batch" if getattr(config, "conv_pos_batch_norm", False) else "weight",
        norm_eps=config.layer_norm_eps,
        **changes,
    )


def pair(kind, options, dtype=torch.float64, **changes):
    """transformers' model with random weights and ours with the same, by name; both in evaluation."""
    config = getattr(transformers, f"{kind}Config")(**{**TINY, **options})
    config._attn_implementation = "eager"
    theirs = getattr(transformers, f"{kind}Model")(config).to(dtype).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in [*theirs.parameters(), *theirs.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    ours = wav2vec2.build(ours_from(config, **changes)).to(dtype).eval()
    ours.load_state_dict(theirs.state_dict())
    ours.keep_hidden_states = ours.keep_local = True
    return ours, theirs


def speech(lengths=LENGTHS, dtype=torch.float64, scale=0.1):
    """Samples with random padding."""
    lengths = torch.tensor(lengths)
    return scale * torch.randn(len(lengths), int(lengths.max()), dtype=dtype), lengths


def assert_same(mine, other, frames, tolerance=1e-10):
    """Every hidden state and the output of one utterance."""
    torch.testing.assert_close(mine[0][:frames], other[0][:frames], rtol=0, atol=tolerance)
    assert len(mine[1]) == len(other[1])
    for ours, theirs in zip(mine[1], other[1]):
        torch.testing.assert_close(ours[:frames], theirs[:frames], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
@torch.no_grad()
def test_padded_batch_equals_huggingface_one_utterance_at_a_time(kind, options):
    ours, theirs = pair(kind, options)
    x, lengths = speech()
    mine = ours(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        other = theirs(x[i : i + 1, :length], output_hidden_states=True)
        frames = int(mine.lengths[i])
        assert other.last_hidden_state.size(1) == frames
        states = [state[i] for state in mine.hidden_states], [state[0] for state in other.hidden_states]
        assert_same((mine.frames[i], states[0]), (other.last_hidden_state[0], states[1]), frames)
        if kind == "Wav2Vec2":  # features before the projection, as a quantizer reads them
            torch.testing.assert_close(mine.local[i, :frames], other.extract_features[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert"])
@torch.no_grad()
def test_norm_over_channels_equals_huggingface_in_a_padded_batch(kind):
    ours, theirs = pair(kind, {"feat_extract_norm": "layer", "do_stable_layer_norm": True})
    x, lengths = speech()
    seen = torch.arange(x.size(1)) < lengths[:, None]
    mine, other = ours(x, lengths), theirs(x, attention_mask=seen.long(), output_hidden_states=True)
    for i, frames in enumerate(mine.lengths.tolist()):
        states = [state[i] for state in mine.hidden_states], [state[i] for state in other.hidden_states]
        assert_same((mine.frames[i], states[0]), (other.last_hidden_state[i], states[1]), frames)


@torch.no_grad()
def test_norm_over_time_sees_padding_only_when_asked_to_as_huggingface_does():
    x, lengths = speech()
    seen = torch.arange(x.size(1)) < lengths[:, None]
    padded, theirs = pair("Wav2Vec2", {}, pad_policy="hf")
    exact = pair("Wav2Vec2", {})[0]
    exact.load_state_dict(theirs.state_dict())
    other = theirs(x * seen, attention_mask=seen.long())
    mine, own = padded(x, lengths), exact(x, lengths)
    for i, frames in enumerate(mine.lengths.tolist()):
        reference = other.last_hidden_state[i, :frames]
        torch.testing.assert_close(mine.frames[i, :frames], reference, rtol=0, atol=1e-10)
        difference = (own.frames[i, :frames] - reference).abs().max()
        assert (difference > 1e-3) == (lengths[i] < x.size(1)), i  # they do change wherever there is padding


@torch.no_grad()
def test_masked_frames_and_channels():
    ours, theirs = pair("Wav2Vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True})
    x, lengths = speech([9000])
    frames = ours.output_lengths(lengths)
    mask = torch.rand(1, int(frames)) < 0.4
    other = theirs(x, mask_time_indices=mask, output_hidden_states=True)
    mine = ours(x, lengths, mask=mask)
    assert_same(
        (mine.frames[0], [state[0] for state in mine.hidden_states]),
        (other.last_hidden_state[0], [state[0] for state in other.hidden_states]),
        int(frames),
    )
    torch.testing.assert_close(mine.local, other.extract_features, rtol=0, atol=1e-10)  # unmasked


def test_gradients_equal_those_of_huggingface():
    """Of every parameter, where transformers computes the same function: norm over channels."""
    ours, theirs = pair("Wav2Vec2", {"feat_extract_norm": "layer", "conv_bias": True}, feature_grad_mult=1.0)
    x, lengths = speech([5123])
    mask = torch.arange(int(ours.output_lengths(lengths))).expand(1, -1) % 4 == 0
    ours(x, lengths, mask=mask).frames.sin().sum().backward()
    theirs(x, mask_time_indices=mask).last_hidden_state.sin().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-8, atol=1e-9, msg=name)


@torch.no_grad()
def test_base_in_fp32():
    base = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "conv_dim": (512,) * 7}
    wide = {"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16}
    config = transformers.Wav2Vec2Config(**{**TINY, **base, **wide, "num_hidden_layers": 12})
    theirs = transformers.Wav2Vec2Model(config).eval()
    ours = wav2vec2.build(wav2vec2.Config(preset="base")).eval()
    ours.load_state_dict(theirs.state_dict())
    x, lengths = speech([6400, 4000], torch.float32)
    mine = ours(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        other = theirs(x[i : i + 1, :length]).last_hidden_state[0]
        torch.testing.assert_close(mine.frames[i, : len(other)], other, rtol=0, atol=1e-5)
