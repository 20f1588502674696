"""Our BLSTMs with ESPnet's weights give ESPnet's outputs: `blstmp`, and behind VGG blocks `vggblstmp`."""

import pytest
import torch

from speechkit.config import from_dict
from speechkit.encoders import blstm

pytestmark = pytest.mark.peers
pytest.importorskip("espnet2.asr.encoder.rnn_encoder", reason="ESPnet is not installed")

CELLS, PROJECTION, LAYERS = 6, 10, 3


def copy_layers(ours, theirs):
    """ESPnet's `RNNP`: the backward LSTM of a layer is `_reverse` in the same module."""
    for number, mine in enumerate(ours.layers):
        lstm = getattr(theirs, f"birnn{number}")
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(mine.ahead, name).copy_(getattr(lstm, name))
            getattr(mine.back, name).copy_(getattr(lstm, f"{name}_reverse"))
        mine.projection.load_state_dict(getattr(theirs, f"bt{number}").state_dict())


def both(theirs, bins, **options):
    """ESPnet's encoder and ours with its weights, in fp64 and evaluation."""
    sizes = {"cells": CELLS, "projection": PROJECTION, "layers": LAYERS, "linear_end": True, **options}
    ours = blstm.build(from_dict(blstm.Config, sizes), bins)
    with torch.no_grad():
        if len(theirs.enc) == 2:
            for mine, name in zip(ours.subsampling.convs, ("conv1_1", "conv1_2", "conv2_1", "conv2_2")):
                mine.load_state_dict(getattr(theirs.enc[0], name).state_dict())
        copy_layers(ours, theirs.enc[-1])
    return ours.double().eval(), theirs.double().eval()


@torch.no_grad()
def test_pyramid_with_projections():
    from espnet2.asr.encoder.rnn_encoder import RNNEncoder

    theirs = RNNEncoder(20, num_layers=LAYERS, hidden_size=CELLS, output_size=PROJECTION, subsample=(2, 2, 1))
    none = {"kind": "none", "factor": 1}
    ours, theirs = both(theirs, 20, strides=[2, 2, 1], subsampling=none)
    lengths = torch.tensor([41, 30, 23, 5])  # falling, as ESPnet wants them
    x = torch.randn(4, 41, 20).double()
    expected, sizes, _ = theirs(x.clone(), lengths)
    found = ours(x, lengths)
    assert found.lengths.tolist() == sizes.tolist()
    torch.testing.assert_close(found.frames, expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("bins", [20, 83])
def test_vgg(bins):
    """Utterances alone: in a padded batch ESPnet's convolutions see what they made of the padding."""
    from espnet2.asr.encoder.vgg_rnn_encoder import VGGRNNEncoder

    theirs = VGGRNNEncoder(bins, num_layers=LAYERS, hidden_size=CELLS, output_size=PROJECTION)
    ours, theirs = both(theirs, bins, subsampling={"kind": "vgg"})
    for frames in (1, 6, 19, 32):
        x, lengths = torch.randn(2, frames, bins).double(), torch.tensor([frames, frames])
        expected, sizes, _ = theirs(x.clone(), lengths)
        found = ours(x, lengths)
        assert found.lengths.tolist() == list(sizes)
        torch.testing.assert_close(found.frames, expected, rtol=0, atol=1e-10)
