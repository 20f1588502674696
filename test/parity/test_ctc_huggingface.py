"""CTC fine-tuning equals transformers' Wav2Vec2ForCTC with the same weights: logits, loss, gradients."""

from types import SimpleNamespace

import pytest
import torch
from parity.test_wav2vec2_huggingface import LENGTHS, TINY, ours_from, speech

from speechkit.data.batch import Batch, Padded
from speechkit.models import ctc
from speechkit.models.assets import Assets

transformers = pytest.importorskip("transformers")

VOCABULARY = 12
TARGETS = [[3, 4, 4, 5], [], [6, 7], [2, 2], [8, 9, 10]]


def models(options):
    config = transformers.Wav2Vec2Config(
        **TINY, **options, vocab_size=VOCABULARY, pad_token_id=0, ctc_loss_reduction="sum", final_dropout=0.0,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
        layerdrop=0.0, apply_spec_augment=False,
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = transformers.Wav2Vec2ForCTC(config).double()
    theirs.freeze_feature_encoder()
    encoder = ours_from(
        config, feature_grad_mult=0.0, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
        input_dropout=0.0, layer_drop=0.0,
    )  # fmt: skip
    tokenizer = SimpleNamespace(vocab=[str(i) for i in range(VOCABULARY)])
    ours = ctc.build(ctc.Config(encoder=encoder), Assets(tokenizer)).double()
    renamed = {"wav2vec2.": "encoder.", "lm_head.": "head."}
    state = {}
    for name, value in theirs.state_dict().items():
        old = next(prefix for prefix in renamed if name.startswith(prefix))
        state[renamed[old] + name[len(old) :]] = value
    ours.load_state_dict(state, strict=True)
    return ours, theirs


def batch():
    x, lengths = speech()
    tokens = torch.full((len(TARGETS), 4), 11)
    for row, target in zip(tokens, TARGETS):
        row[: len(target)] = torch.tensor(target, dtype=torch.long)
    sizes = torch.tensor([len(target) for target in TARGETS])
    fields = {"speech": Padded(x, lengths), "tokens": Padded(tokens, sizes)}
    return Batch([str(i) for i in range(len(TARGETS))], torch.arange(len(TARGETS)), None, fields)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_logits_and_loss_equal_huggingface_one_utterance_at_a_time(norm):
    ours, theirs = models({"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"})
    data = batch()
    total, count = ours.eval().loss(data, 0)["ctc"]
    log_probs, frames = ours.encode(data)["ctc"]
    theirs.eval()
    expected = 0
    for i, target in enumerate(TARGETS):
        x = data["speech"].values[i : i + 1, : LENGTHS[i]]
        logits = theirs(x).logits
        assert logits.shape[1] == int(frames[i])
        torch.testing.assert_close(log_probs[i, : frames[i]], logits[0].log_softmax(-1), rtol=0, atol=1e-6)
        if target:  # transformers cannot take an empty one
            expected = expected + theirs(x, labels=torch.tensor([target])).loss
        else:
            expected = expected - logits[0].log_softmax(-1)[:, 0].sum()
    assert count == len(TARGETS)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_gradients_equal_huggingface_on_a_padded_batch():
    """The layer-norm variant, whose padding transformers masks too; its feature encoder is frozen."""
    ours, theirs = models({"feat_extract_norm": "layer", "do_stable_layer_norm": True})
    data = batch()
    ours.train().loss(data, 0)["ctc"][0].backward()
    x, lengths = data["speech"].values, data["speech"].lengths
    attention = (torch.arange(x.size(1)) < lengths[:, None]).long()
    # its own loss takes the log-softmax in fp32: torch's, of its logits, shows more digits
    log_probs = theirs.train()(x, attention_mask=attention).logits.log_softmax(-1).transpose(0, 1)
    frames, tokens = theirs._get_feat_extract_output_lengths(lengths), data["tokens"]
    torch.nn.functional.ctc_loss(log_probs, tokens.values, frames, tokens.lengths, reduction="sum").backward()
    gradients = {name.removeprefix("wav2vec2."): p.grad for name, p in theirs.named_parameters()}
    checked = 0
    for name, parameter in ours.named_parameters():
        other = gradients[name.removeprefix("encoder.").replace("head.", "lm_head.")]
        assert (parameter.grad is None) == (other is None), name
        if other is not None:
            torch.testing.assert_close(parameter.grad, other, rtol=1e-8, atol=1e-10, msg=name)
            checked += 1
    assert checked > 40 and ours.encoder.feature_extractor.conv_layers[0].conv.weight.grad is None
