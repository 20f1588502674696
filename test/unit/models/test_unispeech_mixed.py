"""UniSpeech: labelled and unlabelled utterances in one micro-batch, and CTC in a pass of its own."""

import pytest
import torch
from unit.models import test_unispeech as plain
from unit.models.test_unispeech import CALM, gradients, make, make_labelled, quiet
from unit.models.test_wav2vec2_pretraining import INPUTS, objective

from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.errors import ProblemsError
from speechkit.models import unispeech
from speechkit.train.update import take


def make_mixed(inputs):
    """Three utterances, of which the second one has no text."""
    batch = make_labelled(inputs)
    tokens = pad([torch.tensor(plain.TARGETS[0]), torch.tensor([], dtype=torch.int64), torch.tensor([3, 4])])
    return Batch(batch.ids, batch.keys, None, batch.fields | {"tokens": tokens})


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("more", [[], ["quantizer_calls=2"], ["replace=0"], ["ctc_unmasked_pass=true"]])
def test_a_mixed_batch_has_the_terms_of_two(inputs, more):
    """Those of its labelled and of its unlabelled utterances: values, counts and gradients."""
    penalty = ["penalty_weight=0.1"] if inputs == "speech" else []
    model = quiet(make(inputs, "mix=mixed", *CALM, *penalty, *more)).train()
    whole = make_mixed(inputs)
    parts = [take(whole, [0, 2]), take(whole, [1])]
    found, apart = model.loss(whole, 3), [model.loss(part, 3) for part in parts]
    assert set(found) == set(apart[0]) | set(apart[1]) and "ctc" not in apart[1]
    means = {"temperature"} | {name for name in found if "perplexity" in name}
    for name, (value, _) in found.items():
        values = [terms[name][0] for terms in apart if name in terms]
        expected = values[0] if name in means else sum(values)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=name)
    counts = [model.counts(part) for part in parts]
    same = {name: sum(c[name] for c in counts) for name in counts[0] if name != "temperature"}
    assert {**model.counts(whole), "temperature": 2} == {**same, "temperature": 2}
    assert {name: count for name, (_, count) in found.items()}.items() <= model.counts(whole).items()
    together = gradients(model, sum(w * found[n][0] for n, w in model.weights.items()))
    split = gradients(model, sum(w * t[n][0] for t in apart for n, w in model.weights.items() if n in t))
    assert sum(bool(value.abs().max() > 0) for value in together.values()) > 20
    for name, value in together.items():
        torch.testing.assert_close(value, split[name], rtol=1e-7, atol=1e-10, msg=name)


def test_unlabelled_utterances_reach_neither_ctc_nor_replacement(monkeypatch):
    model, batch, seen = make("features", "mix=mixed").train(), make_mixed("features"), []
    replaced = model.replaced(batch, model.masked(batch))
    assert replaced[[0, 2]].any(1).all() and not replaced[1].any()
    ctc = unispeech.ctc_loss
    monkeypatch.setattr(unispeech, "ctc_loss", lambda *args: (seen.append(args), ctc(*args))[1])
    model.loss(batch, 0)
    ((log_probs, lengths, tokens, counts),) = seen
    assert counts.tolist() == [4, 2] and len(log_probs) == len(lengths) == len(tokens) == 2


def test_a_mixed_batch_without_contrastive_terms_of_the_labelled():
    """alpha = 1: what is told of contrastive learning is of the unlabelled utterance alone."""
    model, batch = quiet(make("features", "mix=mixed", "alpha=1", "replace=0", *CALM)).train(), None
    batch = make_mixed("features")
    found, alone = model.loss(batch, 0), model.loss(take(batch, [1]), 0)
    torch.testing.assert_close(found["contrastive"][0], alone["contrastive"][0], rtol=1e-9, atol=0)
    assert "bits" not in found and "bits_unlabelled" in found
    assert objective(model, batch).isfinite()


def test_mix_is_one_of_two():
    with pytest.raises(ProblemsError, match="mix"):
        load_config(unispeech.Config, overrides=["mix=both"])


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("rate", [0, 0.5])
def test_ctc_may_hear_what_is_hidden_from_the_others(inputs, rate):
    """`ctc_unmasked_pass`: a second pass for CTC, and the other terms as they were."""
    options = [f"replace={rate}", *CALM]
    once, twice = (quiet(make(inputs, *options, *more)).train() for more in ([], ["ctc_unmasked_pass=true"]))
    batch, passes = make_labelled(inputs), []
    twice.encoder.register_forward_hook(lambda _, inputs, output: passes.append(output.frames))
    before, after = once.loss(batch, 5), twice.loss(batch, 5)
    assert len(passes) == 2 and not torch.equal(*passes)
    assert all(torch.equal(after[name][0], before[name][0]) for name in after if "ctc" not in name)
    assert not torch.isclose(after["ctc"][0], before["ctc"][0])

    field, tokens = batch[inputs], batch["tokens"]
    heard, masked = twice.encoder(field.values, field.lengths), twice.masked(batch)
    frames = heard.frames
    if rate:
        frames = twice.replace(frames, twice.replaced(batch, masked), twice.code(heard, masked.valid))
    expected = torch.nn.functional.ctc_loss(
        twice.head(frames).log_softmax(-1).transpose(0, 1),
        tokens.values,
        heard.lengths,
        tokens.lengths,
        reduction="sum",
    )
    torch.testing.assert_close(after["ctc"][0], expected, rtol=1e-9, atol=0)


def test_an_unmasked_pass_is_the_only_one_where_nothing_is_compared():
    model = make("features", "alpha=1", "ctc_unmasked_pass=true").train()
    masks = []
    model.encoder.register_forward_pre_hook(
        lambda _, args, named: masks.append(named["mask"]), with_kwargs=True
    )
    model.loss(make_labelled("features"), 0)
    assert masks == [None]
