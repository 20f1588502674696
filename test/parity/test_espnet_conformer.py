"""Our encoders with ESPnet's weights give ESPnet's outputs (tools/install_espnet.sh installs it)."""

import pytest
import torch

from speechkit.config import from_dict
from speechkit.encoders import conformer, transformer

pytestmark = pytest.mark.peers
pytest.importorskip("espnet2.asr.encoder.conformer_encoder", reason="ESPnet is not installed")

BINS, DIM, HEADS, UNITS, LAYERS, KERNEL = 80, 32, 4, 48, 3, 7


def copy(target, source):
    """Copies the tensors of one module into another of the same shapes (a 1 x 1 convolution is linear)."""
    theirs = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name != "num_batches_tracked":
            tensor.copy_(theirs[name].reshape(tensor.shape))


def copy_attention(ours, theirs):
    parts = theirs.linear_q, theirs.linear_k, theirs.linear_v
    ours.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
    ours.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
    copy(ours.out, theirs.linear_out)
    if hasattr(ours, "position"):
        copy(ours.position, theirs.linear_pos)
        ours.content_bias.copy_(theirs.pos_bias_u)
        ours.position_bias.copy_(theirs.pos_bias_v)


def copy_feed_forward(ours, theirs):
    copy(ours.inner, theirs.w_1)
    copy(ours.outer, theirs.w_2)


def copy_front(ours, theirs):
    convs = [layer for layer in theirs.embed.conv if isinstance(layer, torch.nn.Conv2d)]
    for mine, other in zip(ours.subsampling.convs, convs, strict=True):
        copy(mine, other)
    linear = next(layer for layer in theirs.embed.out.modules() if isinstance(layer, torch.nn.Linear))
    copy(ours.subsampling.out, linear)
    copy(ours.norm, theirs.after_norm)


def randomise(module):
    """Random weights everywhere, biases and running statistics included."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))
    return module.eval()


def assert_same(ours, theirs):
    """Utterances alone: in a padded batch ESPnet's convolution module reads the padding.

    In fp64 what remains is ESPnet's table of positions, computed in fp32; in fp32 it is rounding, which
    the weights made here amplify.
    """
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
        ours, theirs = ours.to(dtype), theirs.to(dtype)
        for frames in (23, 64, 131, 300):
            x, lengths = torch.randn(2, frames, BINS, dtype=dtype), torch.tensor([frames, frames])
            with torch.no_grad():
                expected, sizes, _ = theirs(x, lengths)
                got = ours(x, lengths)
            assert torch.equal(got.lengths, sizes)
            torch.testing.assert_close(got.frames, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("factor", "layer"), [(4, "conv2d"), (1, "conv2d1"), (2, "conv2d2"), (6, "conv2d6"), (8, "conv2d8")]
)
def test_conformer_with_relative_positions(factor, layer):
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    theirs = randomise(
        ConformerEncoder(
            BINS, DIM, HEADS, UNITS, LAYERS, input_layer=layer, macaron_style=True, rel_pos_type="latest",
            pos_enc_layer_type="rel_pos", selfattention_layer_type="rel_selfattn", cnn_module_kernel=KERNEL,
        )
    )  # fmt: skip
    config = from_dict(
        conformer.Config,
        {
            "dim": DIM, "heads": HEADS, "feed_forward": UNITS, "layers": LAYERS, "kernel": KERNEL,
            "conv_norm": "batch", "positions": "relative", "norm_eps": 1e-12,
            "subsampling": {"factor": factor, "channels": None},
        },
    )  # fmt: skip
    ours = conformer.build(config, BINS).eval()
    with torch.no_grad():
        copy_front(ours, theirs)
        for mine, other in zip(ours.blocks, theirs.encoders, strict=True):
            copy_feed_forward(mine.first, other.feed_forward_macaron)
            copy_feed_forward(mine.second, other.feed_forward)
            copy_attention(mine.attention, other.self_attn)
            copy(mine.convolution.expand, other.conv_module.pointwise_conv1)
            copy(mine.convolution.depthwise, other.conv_module.depthwise_conv)
            copy(mine.convolution.norm.norm, other.conv_module.norm)
            copy(mine.convolution.project, other.conv_module.pointwise_conv2)
            copy(mine.norm_first, other.norm_ff_macaron)
            copy(mine.norm_attention, other.norm_mha)
            copy(mine.norm_convolution, other.norm_conv)
            copy(mine.norm_second, other.norm_ff)
            copy(mine.norm_out, other.norm_final)
    assert_same(ours, theirs)


def test_transformer():
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

    theirs = randomise(TransformerEncoder(BINS, DIM, HEADS, UNITS, LAYERS, input_layer="conv2d"))
    config = from_dict(
        transformer.Config,
        {
            "dim": DIM, "heads": HEADS, "feed_forward": UNITS, "layers": LAYERS, "norm_eps": 1e-12,
            "positions": "sinusoidal", "subsampling": {"factor": 4, "channels": None},
        },
    )  # fmt: skip
    ours = transformer.build(config, BINS).eval()
    with torch.no_grad():
        copy_front(ours, theirs)
        for mine, other in zip(ours.blocks, theirs.encoders, strict=True):
            copy_attention(mine.attention, other.self_attn)
            copy_feed_forward(mine.feed_forward, other.feed_forward)
            copy(mine.norm_attention, other.norm1)
            copy(mine.norm_feed_forward, other.norm2)
    assert_same(ours, theirs)
