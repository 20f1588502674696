"""Pre-training losses and gradients equal those of transformers' `Wav2Vec2ForPreTraining`.

Same weights, loaded by name, same masks, distractors and Gumbel noise; dropout off. transformers samples in
fp32, so that agreement ends near 1e-7.
"""

import pytest
import torch
from parity.test_wav2vec2_huggingface import TINY, ours_from

from speechkit.data.batch import Batch, Padded
from speechkit.layers import gumbel_quantizer
from speechkit.losses.contrastive import Config as Contrastive
from speechkit.losses.contrastive import draw_distractors
from speechkit.models import wav2vec2_pretraining
from speechkit.models.assets import Assets

transformers = pytest.importorskip("transformers")

OFF = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "feat_quantizer_dropout",
)
SIZES = {
    "num_codevectors_per_group": 20,
    "codevector_dim": 12,
    "proj_codevector_dim": 16,
    "num_negatives": 30,
}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
NOISE = 17


def pair(options, dtype):
    """transformers' system and ours with its weights, by name; both training."""
    values = {**TINY, **SIZES, **dict.fromkeys(OFF, 0.0), "layerdrop": 0.0, **options}
    config = transformers.Wav2Vec2Config(**values)
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    theirs = transformers.Wav2Vec2ForPreTraining(config).to(dtype).train()
    torch.nn.init.uniform_(theirs.quantizer.codevectors)
    off = dict.fromkeys(("dropout", "attention_dropout", "input_dropout", "layer_drop"), 0.0)
    ours = wav2vec2_pretraining.build(
        wav2vec2_pretraining.Config(
            encoder=ours_from(config, feature_grad_mult=1.0, **off),
            quantizer=gumbel_quantizer.Config(entries=20, dim=12),
            contrastive=Contrastive(negatives=30),
            projection_dim=16,
            dropout_features=0.0,
            penalty_weight=0.0,
        ),
        Assets(),
    )
    weights = {name.replace("wav2vec2.", "encoder."): value for name, value in theirs.state_dict().items()}
    ours.to(dtype).train().load_state_dict(weights)
    return ours, theirs


def make_batch(lengths, dtype):
    lengths = torch.tensor(lengths)
    torch.manual_seed(2)
    samples = 0.1 * torch.randn(len(lengths), int(lengths.max()), dtype=dtype)
    samples[torch.arange(samples.size(1)) >= lengths[:, None]] = 0
    keys = torch.arange(len(lengths)) * 31
    return Batch([str(k) for k in keys.tolist()], keys, None, {"speech": Padded(samples, lengths)})


def distractors_for_huggingface(masked, keys, config):
    """`(B, T, K)` indices into the flattened batch, 0 at frames that are not masked."""
    draw = draw_distractors(masked.mask, masked.lengths, keys, config)
    size, width = masked.mask.shape
    found = torch.zeros(size, width, config.negatives, dtype=torch.int64)
    parts = draw.others.split(draw.rows.tolist())
    for b in range(size):
        frames = masked.mask[b].nonzero().squeeze(1)
        found[b, frames] = b * width + frames[parts[b]]
    return found


def run(ours, theirs, batch, monkeypatch):
    """Both losses, with the noise of one seed in both."""
    masked, config = ours.masked(batch), theirs.config
    draws, original = {}, torch.nn.functional.gumbel_softmax

    def theirs_sampled(logits, **options):
        torch.manual_seed(NOISE)
        draws["noise"] = -torch.empty_like(logits).exponential_().log()
        torch.manual_seed(NOISE)
        return original(logits, **options)

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", theirs_sampled)
    speech = batch["speech"]
    attention = (torch.arange(speech.values.size(1)) < speech.lengths[:, None]).long()
    theirs.quantizer.temperature = ours.config.quantizer.temperature(1000)
    output = theirs(
        speech.values,
        attention_mask=attention if config.feat_extract_norm == "layer" else None,
        mask_time_indices=masked.mask,
        sampled_negative_indices=distractors_for_huggingface(masked, batch.keys, ours.config.contrastive),
    )
    noise = draws["noise"].view(-1, 2, 20)[masked.mask.flatten()]
    monkeypatch.setattr(ours.quantizer, "noise", lambda logits: noise.to(logits.dtype), raising=True)
    return ours.loss(batch, 1000), output


@pytest.mark.parametrize(
    "options, lengths",
    [(GROUP, [9000, 9000, 9000]), (LAYER, [9000, 7000, 8234]), (LAYER, [16000])],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_equal_huggingface(options, lengths, dtype, monkeypatch):
    ours, theirs = pair(options, dtype)
    losses, output = run(ours, theirs, make_batch(lengths, dtype), monkeypatch)
    (contrastive, count), (diversity, _) = losses["contrastive"], losses["diversity"]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-6
    found = [contrastive.item(), diversity.item(), losses["probability_perplexity"][0].item()]
    expected = [output.contrastive_loss, output.diversity_loss, output.codevector_perplexity]
    assert found == pytest.approx([value.item() for value in expected], rel=tolerance)
    assert count == losses["diversity"][1] and found[0] / count > 1

    (contrastive + 0.1 * diversity).backward()
    output.loss.backward()
    expected = {name.replace("wav2vec2.", "encoder."): p.grad for name, p in theirs.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, parameter in ours.named_parameters():
        scale = max(float(expected[name].abs().max()), 1e-6 * largest)  # that of a key's bias is 0
        difference = float((parameter.grad - expected[name]).abs().max())
        assert difference < (1e-3 if dtype == torch.float32 else 1e-5) * scale, name
