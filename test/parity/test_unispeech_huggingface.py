"""UniSpeech equals what transformers' `UniSpeechForPreTraining` has of it.

Its forward pass has outputs, codewords, replaced frames and phone logits, and no loss: that is put together
here from its modules. It samples in fp32, so that agreement of losses ends near 1e-7.
"""

from types import SimpleNamespace

import pytest
import torch
from parity.test_wav2vec2_huggingface import TINY, ours_from
from parity.test_wav2vec2_pretraining_loss import GROUP, LAYER, NOISE, OFF, SIZES, make_batch
from torch.nn import functional

from speechkit.data.batch import pad
from speechkit.layers import gumbel_quantizer
from speechkit.losses.contrastive import draw_distractors
from speechkit.models import unispeech
from speechkit.models.assets import Assets
from speechkit.models.unispeech_config import Distractors

transformers = pytest.importorskip("transformers")

CASES = [(GROUP, [9000, 9000, 9000]), (LAYER, [9000, 7000, 8234])]
PHONES = SimpleNamespace(vocab=["<blank>", "<unk>", "a", "b", "c", "d", "<sos/eos>"])
TOKENS = [[2, 3, 3, 4], [5, 2], [4, 4, 2]]


def pair(options, **changes):
    """transformers' system and ours with its weights, by name, in float64 and without dropout."""
    values = {**TINY, **SIZES, **dict.fromkeys((*OFF, "final_dropout", "layerdrop"), 0.0), **options}
    config = transformers.UniSpeechConfig(**values, num_ctc_classes=len(PHONES.vocab))
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    theirs = transformers.UniSpeechForPreTraining(config).double()
    torch.nn.init.uniform_(theirs.quantizer.codevectors)
    off = dict.fromkeys(("dropout", "attention_dropout", "input_dropout", "layer_drop"), 0.0)
    ours = unispeech.build(
        unispeech.Config(
            encoder=ours_from(config, feature_grad_mult=1.0, **off),
            quantizer=gumbel_quantizer.Config(entries=20, dim=12),
            contrastive=Distractors(negatives=30),
            projection_dim=16,
            dropout_features=0.0,
            dropout=0.0,
            **changes,
        ),
        Assets(PHONES),
    ).double()
    ours.load_state_dict({our_name(name): value for name, value in theirs.state_dict().items()})
    return ours, theirs


def our_name(name):
    return name.replace("unispeech.", "encoder.").replace("ctc_proj", "head")


def labelled(lengths):
    batch = make_batch(lengths, torch.float64)
    batch.fields["tokens"] = pad([torch.tensor(row) for row in TOKENS])
    return batch


def visible(theirs, speech):
    """Its attention mask; those with a group norm are used without."""
    mask = (torch.arange(speech.values.size(1)) < speech.lengths[:, None]).long()
    return mask if theirs.config.feat_extract_norm == "layer" else None


@pytest.mark.parametrize("options, lengths", CASES)
def test_outputs_codewords_and_logits(options, lengths, monkeypatch):
    """Evaluation, with the same replaced frames in both."""
    ours, theirs = (model.eval() for model in pair(options, replace_eval=True))
    batch = labelled(lengths)
    speech, masked = batch["speech"], ours.masked(batch)
    replaced = ours.replaced(batch, masked)
    kept, seen = masked.valid, {}
    monkeypatch.setattr(torch, "bernoulli", lambda probabilities: replaced.T.to(probabilities))
    theirs.ctc_proj.register_forward_hook(lambda module, inputs, output: seen.update(logits=output))
    with torch.no_grad():
        expected = theirs(speech.values, attention_mask=visible(theirs, speech))
        output = ours.encoder(speech.values, speech.lengths)
        coded = ours.code(output, kept)
        logits = ours.head(ours.replace(output.frames, replaced, coded))
    assert 0.3 < replaced[kept].double().mean() < 0.7
    for mine, other in (
        (output.frames[kept], expected.projected_states[kept]),
        (coded.targets, expected.projected_quantized_states[kept]),
        (logits[kept], seen["logits"][kept]),
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


def their_terms(theirs, batch, masked, replaced, config, temperature):
    """The noise that was drawn, and sums of the CTC and the contrastive losses."""
    speech, tokens = batch["speech"], batch["tokens"]
    theirs.quantizer.temperature = temperature
    output = theirs.unispeech(
        speech.values, attention_mask=visible(theirs, speech), mask_time_indices=masked.mask
    )
    frames, local = output.last_hidden_state, output.extract_features
    torch.manual_seed(NOISE)
    noise = -torch.empty(local[..., 0].numel() * 2, 20).exponential_().log()
    torch.manual_seed(NOISE)
    codewords, _ = theirs.quantizer(local)
    targets = theirs.project_hid(theirs.project_q(codewords))
    mixed = theirs.ctc_proj(torch.where(replaced[..., None], targets, frames)).log_softmax(-1)
    ctc = functional.ctc_loss(
        mixed.transpose(0, 1), tokens.values, masked.lengths, tokens.lengths, reduction="sum"
    )
    draw = draw_distractors(masked.mask, masked.lengths, batch.keys, config)
    contrastive = 0
    for b, others in enumerate(draw.others.split(draw.rows.tolist())):
        predicted = masked.mask[b].nonzero().squeeze(1)
        logits = theirs.compute_contrastive_logits(
            targets[b, predicted][None], targets[b, others.T], frames[b, predicted], config.temperature
        )
        difference = codewords[b, others.T] - codewords[b, predicted]  # straight-through: rounded
        equal = difference.abs().amax(-1) < 1e-4
        logits = torch.cat([logits[:1], logits[1:].masked_fill(equal, -torch.inf)])
        contrastive = contrastive + (logits.logsumexp(0) - logits[0]).sum()
    return noise.view(-1, 2, 20)[masked.valid.flatten()], ctc, contrastive


@pytest.mark.parametrize("options, lengths", CASES)
def test_losses_and_gradients(options, lengths, monkeypatch):
    """Training, with the same masks, replaced frames, distractors and noise in both."""
    ours, theirs = (model.train() for model in pair(options, diversity_weight=0.0))
    batch, config = labelled(lengths), ours.config
    masked = ours.masked(batch)
    replaced, temperature = ours.replaced(batch, masked), config.quantizer.temperature(1000)
    noise, ctc, contrastive = their_terms(theirs, batch, masked, replaced, config.contrastive, temperature)
    monkeypatch.setattr(ours.quantizer, "noise", lambda logits: noise.to(logits.dtype))
    losses = ours.loss(batch, 1000)
    assert losses["ctc"][0].item() == pytest.approx(ctc.item(), rel=1e-5)
    assert losses["contrastive"][0].item() == pytest.approx(0.5 * contrastive.item(), rel=1e-5)

    sum(weight * losses[name][0] for name, weight in ours.weights.items()).backward()
    (0.5 * ctc + 0.5 * contrastive).backward()
    expected = {our_name(name): p.grad for name, p in theirs.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, parameter in ours.named_parameters():
        scale = max(float(expected[name].abs().max()), 1e-6 * largest)  # that of a key's bias is 0
        assert float((parameter.grad - expected[name]).abs().max()) < 1e-4 * scale, name
