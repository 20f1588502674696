"""The sizes M and L of recognisers that read an AV-BERT: parameters as published, baselines as large."""

from pathlib import Path

import pytest
import torch
from av_models import known

from speechkit.config import load_config
from speechkit.decoders import prediction_lstm
from speechkit.decoders.joint import Joint
from speechkit.encoders import conformer
from speechkit.encoders.av_bert_config import Config as EncoderConfig
from speechkit.models.assets import Assets
from speechkit.models.deep_fusion import with_context
from speechkit.train.run import RunConfig

CONF = Path(__file__).parents[3] / "egs/librispeech/asr1/conf"
PIECES = 1000


def count(name, *options):
    """Millions of parameters, without the front end and AV-BERT."""
    config = load_config(RunConfig, CONF / f"{name}.yaml", options).model
    settings = with_context(config.encoder, config.fusion, Assets(av_bert=known(EncoderConfig())))
    with torch.device("meta"):
        parts = [
            conformer.build(settings, 64),
            prediction_lstm.build(config.prediction, PIECES),
            Joint(config.joint, config.encoder.dim, config.prediction.cells, PIECES),
        ]
    front_end = sum(p.numel() for p in parts[0].subsampling.parameters())
    return (sum(p.numel() for part in parts for p in part.parameters()) - front_end) / 1e6


@pytest.mark.parametrize(
    ("size", "dim", "fused", "second"), [("m", 384, 76.0, 80.7), ("l", 512, 114.4, 123.8)]
)
def test_parameters_are_those_of_the_table(size, dim, fused, second):
    found = count(f"train_av_fusion_{size}")
    assert round(found, 1) == fused
    full = count(f"train_av_baseline_{size}", f"model.encoder.second_attention={dim}")
    assert round(full, 1) == second
    baseline = count(f"train_av_baseline_{size}")
    assert abs(baseline / found - 1) < 0.02
    narrower = count(f"train_av_baseline_{size}", "model.encoder.second_attention=null")
    assert found - narrower > 5 and baseline - narrower > 5
