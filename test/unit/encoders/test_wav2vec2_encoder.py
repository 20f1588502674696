"""Sizes, freezing, LayerDrop and the memory-saving options of the wav2vec 2.0 encoder."""

import copy

import pytest
import torch

from speechkit.config import dump, from_dict, load_config, to_dict
from speechkit.encoders import wav2vec2
from speechkit.encoders.wav2vec2_presets import PRESETS
from speechkit.errors import InputError

SMALL = {
    "dim": 16,
    "layers": 4,
    "heads": 2,
    "feed_forward": 24,
    "conv_channels": [8] * 7,
    "pos_conv_kernel": 6,
    "pos_conv_groups": 4,
}
NO_DROPOUT = dict.fromkeys(("dropout", "attention_dropout", "input_dropout", "layer_drop"), 0.0)


def small(dtype=torch.float64, **changes):
    torch.manual_seed(1)
    return wav2vec2.build(from_dict(wav2vec2.Config, {**SMALL, **changes})).to(dtype)


def speech(lengths=(4000, 2500), dtype=torch.float64):
    lengths = torch.tensor(lengths)
    return 0.1 * torch.randn(len(lengths), int(lengths.max()), dtype=dtype), lengths


@pytest.mark.parametrize(
    ("preset", "parameters", "extractor"),
    [
        ("base", 94_371_712, 4_200_448),
        ("hubert_base", 94_371_712, 4_200_448),
        ("large_lv60", 315_438_720, 4_210_176),
        ("xlsr53", 315_438_720, 4_210_176),
        # without the extractor's norms but one, or without its biases
        ("large_ls960", 315_438_720 - 4_210_176 + 4_200_448, 4_200_448),
        ("hubert_large", 315_438_720 - 7 * 512, 4_210_176 - 7 * 512),
    ],
)
def test_published_sizes(preset, parameters, extractor):
    with torch.device("meta"):
        encoder = wav2vec2.build(wav2vec2.Config(preset=preset))
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert sum(p.numel() for p in encoder.feature_extractor.parameters()) == extractor


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("hubert_xlarge", 962),
        ("tiny", 1.3),
        ("conformer_tiny", 1.6),
        ("conformer_base", 77.7),
        ("conformer_xl", 584.6),  # about 600 with the relative positions of the publication
    ],
)
def test_other_sizes(preset, millions):
    with torch.device("meta"):
        encoder = wav2vec2.build(wav2vec2.Config(preset=preset))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.5)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_conformer_presets_have_conformer_blocks_without_batch_norm(preset):
    config = wav2vec2.Config(preset=preset)
    assert config.blocks == ("conformer" if preset.startswith("conformer") else "transformer")
    with torch.device("meta"):
        encoder = wav2vec2.build(config)
    kinds = {type(part).__name__ for part in encoder.modules()}
    assert ("ConformerBlock" in kinds) == (config.blocks == "conformer")
    assert ("PositionalConv" in kinds) == (config.blocks == "transformer")
    assert not any("BatchNorm" in kind for kind in kinds)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_fills_what_is_not_given_and_the_dumped_config_is_complete(preset, tmp_path):
    config = from_dict(wav2vec2.Config, {"preset": preset, "layers": 3, "conv_bias": False})
    assert (config.layers, config.conv_bias) == (3, False)  # false is a value, not a gap
    unset = [name for name, value in to_dict(config).items() if value is None]
    assert unset == ["lora", "adapter"]
    file = tmp_path / "config.yaml"
    file.write_text(dump(config))
    assert load_config(wav2vec2.Config, file) == config
    config.conv_strides.append(1)
    assert len(wav2vec2.Config(preset=preset).conv_strides) == 7  # presets are not shared


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "huge"}, "not one of tiny, base"),
        ({"heads": 5}, "divisible by heads=5"),
        ({"pos_conv_groups": 7}, "divisible by pos_conv_groups=7"),
        ({"conv_strides": [5, 2]}, "one number for each convolution"),
        ({"conv_strides": [11, 2, 2, 2, 2, 2, 2]}, "skip"),
        ({"layer_drop": 1.0}, "layer_drop"),
        ({"feature_grad_mult": -1.0}, "feature_grad_mult"),
        ({"blocks": "conformer", "conformer_kernel": 4}, "odd"),
        ({"lora": {"targets": ["nothing_here"]}}, "nothing_here"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(InputError, match=message):
        wav2vec2.build(from_dict(wav2vec2.Config, {**SMALL, **values}))


def extractor_gradients(factor):
    encoder = small(**NO_DROPOUT, feature_grad_mult=factor)
    x, lengths = speech()
    torch.manual_seed(2)
    encoder(x, lengths).frames.sin().sum().backward()
    return [p.grad for p in encoder.feature_extractor.parameters()]


def test_feature_gradients_are_scaled():
    torch.manual_seed(3)
    whole = extractor_gradients(1.0)
    torch.manual_seed(3)
    for tenth, one in zip(extractor_gradients(0.1), whole):
        torch.testing.assert_close(tenth, 0.1 * one, rtol=1e-12, atol=0)
    torch.manual_seed(3)
    for quarter, one in zip(extractor_gradients(0.25), whole):
        assert torch.equal(quarter, 0.25 * one)  # exactly, a power of two


def test_penalty_on_the_features_has_the_scaled_gradient():
    gradients = []
    for factor in (1.0, 0.1):
        encoder = small(feature_grad_mult=factor).eval()
        encoder.keep_local = True
        torch.manual_seed(4)
        output = encoder(*speech())
        output.local_raw.square().sum().backward()
        gradients.append(encoder.feature_extractor.conv_layers[3].conv.weight.grad)
    torch.testing.assert_close(gradients[1], 0.1 * gradients[0], rtol=1e-12, atol=0)


def test_a_frozen_feature_encoder_does_not_change_even_by_weight_decay():
    encoder = small(**NO_DROPOUT, feature_grad_mult=0.0).train()
    before = copy.deepcopy(encoder.state_dict())
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=0.1, weight_decay=0.5)
    x, lengths = speech()
    for _ in range(5):
        optimiser.zero_grad()
        encoder(x, lengths).frames.sin().sum().backward()
        assert all(p.grad is None for p in encoder.feature_extractor.parameters())
        optimiser.step()
    for name, tensor in encoder.state_dict().items():
        frozen = name.startswith("feature_extractor.") or name == "masked_spec_embed"  # nothing was masked
        assert torch.equal(tensor, before[name]) == frozen, name


def test_layer_drop_leaves_out_blocks_independently_and_only_in_training():
    encoder = small(**{**NO_DROPOUT, "layer_drop": 0.3})
    encoder.keep_hidden_states = True
    x, lengths = speech((800,))
    rounds, skipped = 400, []
    encoder.train()
    with torch.no_grad():
        for _ in range(rounds):
            states = encoder(x, lengths).hidden_states
            assert len(states) == 5
            skipped.append([torch.equal(a, b) for a, b in zip(states, states[1:])])
        rates = torch.tensor(skipped).double()
        assert rates.mean(0).sub(0.3).abs().max() < 4.5 * (0.3 * 0.7 / rounds) ** 0.5
        both = rates.t() @ rates / rounds
        pairs = both[~torch.eye(4, dtype=torch.bool)]
        assert pairs.sub(0.09).abs().max() < 4.5 * (0.09 * 0.91 / rounds) ** 0.5
        torch.manual_seed(7)
        first = encoder(x, lengths).frames
        torch.manual_seed(7)
        assert torch.equal(first, encoder(x, lengths).frames)
        states = encoder.eval()(x, lengths).hidden_states
    assert not any(torch.equal(a, b) for a, b in zip(states, states[1:]))


@pytest.mark.parametrize("changes", [{}, {"norm": "pre"}, {"blocks": "conformer", "attention_dropout": 0.0}])
def test_checkpointing_gives_the_same_gradients(changes):
    results = []
    for checkpointing in (False, True):
        encoder = small(**{"layer_drop": 0.3, "dropout": 0.2, **changes}, checkpointing=checkpointing).train()
        torch.manual_seed(6)
        x, lengths = speech()
        out = encoder(x, lengths).frames
        out.sin().sum().backward()
        results.append([out, *(p.grad for p in encoder.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    for plain, saved in zip(*results):
        assert torch.equal(plain, saved)


@pytest.mark.parametrize("preset", ["base", "large_lv60"])
def test_utterances_without_a_frame_do_not_harm_a_batch(preset):
    encoder = small(preset=preset).eval()
    encoder.keep_hidden_states = encoder.keep_local = True
    x, lengths = speech((399, 4000, 0, 2500))
    output = encoder(x, lengths)
    assert output.lengths.tolist() == [0, 12, 0, 7]
    alone = encoder(x[1:2], lengths[1:2])
    torch.testing.assert_close(output.frames[1], alone.frames[0], rtol=0, atol=1e-12)
    assert not output.frames[0].any() and not output.local[2].any()
    nothing = encoder(x[:1, :399], lengths[:1])
    assert nothing.frames.shape == (1, 0, 16) and nothing.local.shape == (1, 0, 8)
    assert len(nothing.hidden_states) == 5


@pytest.mark.parametrize("preset", ["base", "large_lv60"])
def test_legacy_padding_masks_count_parts_of_the_batch(preset):
    """The mask of samples is cut to a multiple of the frames; one is padding when all of its part is."""
    encoder = small(preset=preset, normalize="none", pad_mask="legacy").eval()
    plain = small(preset=preset, normalize="none").eval()
    plain.load_state_dict(encoder.state_dict())
    encoder.keep_local = True
    more = 0
    for seed in range(12):
        torch.manual_seed(seed)
        lengths = torch.randint(0, 12_000, (6,))
        lengths[seed % 6] = widest = int(torch.randint(12_000, 16_000, ()))
        frames = int(plain.output_lengths(torch.tensor([widest])))
        padding = torch.arange(widest) >= lengths[:, None]
        parts = padding[:, : widest - widest % frames].view(6, frames, -1).all(-1)
        expected = (~parts).sum(1)
        assert torch.equal(encoder.output_lengths(lengths), expected)
        surplus = expected - plain.output_lengths(lengths)
        assert 0 <= surplus.min() and surplus.max() <= 2
        more += int(surplus.sum())
    assert more > 10
    assert torch.equal(encoder.output_lengths(lengths[:0]), lengths[:0])
    x = 0.1 * torch.randn(6, widest, dtype=torch.float64)
    output = encoder(x, lengths)
    assert torch.equal(output.lengths, expected)
    whole = encoder.convolve_padded(x, lengths)
    own = plain.convolve(x, lengths)[0]
    kept = torch.arange(frames) < plain.output_lengths(lengths)[:, None]
    torch.testing.assert_close(whole[kept], own, rtol=0, atol=1e-10)
    kept = torch.arange(frames) < expected[:, None]
    local = encoder.feature_projection.layer_norm(whole[kept])
    torch.testing.assert_close(output.local[kept], local, rtol=0, atol=1e-10)


def test_bf16_autocast_trains_and_keeps_the_residuals_in_fp32():
    encoder = small(torch.float32, **NO_DROPOUT, feature_grad_mult=1.0).train()
    encoder.keep_hidden_states = True
    x, lengths = speech(dtype=torch.float32)
    gradients = []
    for enabled in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = encoder(x, lengths)
        assert all(state.dtype == torch.float32 for state in output.hidden_states)
        output.frames.float().sin().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.encoder.parameters()]))
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() < 0.1 * gradients[0].norm()


@pytest.mark.parametrize("adapters", [{"lora": {"rank": 2}}, {"adapter": {"dim": 4}}])
def test_adapters_begin_as_the_unchanged_encoder_and_alone_learn(adapters):
    plain, adapted = small().eval(), small(**adapters).eval()
    missing = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    x, lengths = speech()
    torch.testing.assert_close(adapted(x, lengths).frames, plain(x, lengths).frames)
    learning = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert learning and all("lora_" in n or "adapter" in n or "layer_norm" in n for n in learning)


def test_a_context_is_refused():
    x, lengths = speech()
    with pytest.raises(ValueError, match="reads no context"):
        small()(x, lengths, context=x[..., None], context_lengths=lengths)
