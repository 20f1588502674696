"""fairseq's expressions and configurations."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.integrations.fairseq_config import (
    encoder_values,
    label_rate,
    parse_conv_layers,
    pretraining_values,
)


@pytest.mark.parametrize(
    "text",
    [
        "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
        "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "[(512, 10, 5)] + 4 * [(512, 3, 2)] + [(512,2,2), (512,2,2)]",
        " [[512, 10, 5]] + ([(512, 3, 2)] * 2) * 2 + [(512,2,2)] * 2\n",
    ],
)
def test_the_published_convolutions(text):
    expected = eval(text)  # the test's own literals
    assert parse_conv_layers(text) == [tuple(layer) for layer in expected]
    assert len(expected) == 7


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch x')",
        "[(512, 10, 5)] + exit()",
        "[(512, 10, 5) for _ in range(3)]",
        "[(512, 10, 5)] * 10 ** 9",
        "[(512, 10, 5)] * 1000000000",
        "[(1, 2, 3)] * 99 * 99 * 99 * 99",
        "[(512, 10)]",
        "[(512, 10, -5)]",
        "[(512, 10, 5.0)]",
        "[(512, 10, True)]",
        "[]",
        "512",
        "[(512, 10, 5)",
        "",
        "(" * 5000,
        None,
        "[(a, 10, 5)]",
        "[(512, 10, 5)] - [(512, 3, 2)]",
    ],
)
def test_any_other_expression_is_refused(text):
    with pytest.raises(InputError, match="conv_feature_layers: .* is not a list of"):
        parse_conv_layers(text)


WEIGHTS = {"encoder.encoder.layer_norm.weight": torch.ones(3)}


def test_fields_that_old_files_leave_out_have_fairseqs_defaults():
    values, notes = encoder_values({"task": "audio_pretraining"}, False, WEIGHTS, {})
    assert (values["dim"], values["layers"], values["heads"], values["feed_forward"]) == (768, 12, 12, 3072)
    assert values["conv_strides"] == [5, 2, 2, 2, 2, 2, 2] and values["norm"] == "post"
    assert notes == ["normalize=none, which the file does not say"]


def test_what_the_user_says_wins():
    values, notes = encoder_values({"normalize": True}, False, WEIGHTS, {"normalize": "none", "heads": 8})
    assert (values["normalize"], values["heads"], notes) == ("none", 8, [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation_fn": "relu"}, "only Transformer blocks with GELU"),
        ({"layer_type": "conformer"}, "only Transformer blocks with GELU"),
        ({"sample_rate": 8000}, "speech of 8000 Hz; only 16000"),
        ({"extractor_mode": "both"}, "extractor_mode=both is neither"),
        ({"conv_feature_layers": "f()"}, "conv_feature_layers"),
        ("text", "its configuration is not a table"),
    ],
)
def test_other_encoders_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        encoder_values(config, False, WEIGHTS, {})


def test_numbers_about_the_loss_are_taken_and_references_are_not():
    model = {
        "logit_temp": 0.2,
        "mask_prob": "${task.mask}",
        "num_negatives": 50,
        "latent_temp": [2, 0.1, 0.9],
    }
    values = pretraining_values({"model": model, "criterion": {"loss_weights": [0.1, 0]}}, "wav2vec2")
    assert values == {
        "contrastive": {"negatives": 50, "temperature": 0.2},
        "quantizer": {"temperature_start": 2.0, "temperature_end": 0.1, "temperature_decay": 0.9},
        "diversity_weight": 0.1,
        "penalty_weight": 0.0,
    }
    assert pretraining_values({"mask_prob": 0.8, "loss_weights": "[10]"}, "hubert") == {
        "penalty_weight": 10.0,
        "mask": {"probability": 0.8},
    }


def test_the_label_rate_is_a_number_or_unknown():
    assert label_rate({"model": {"label_rate": "${task.label_rate}"}, "task": {"label_rate": 100}}) == 100.0
    assert label_rate({"model": {"label_rate": 50.0}, "task": {"label_rate": -1}}) == 50.0
    assert label_rate({"model": {}, "task": {}}) is None
