"""UniSpeech: eq. 6 and 7 over samples and features, in training and evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from unit.models.test_wav2vec2_pretraining import FEATURES, INPUTS, SPEECH, make_batch, objective

from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.errors import InputError, ProblemsError
from speechkit.models import unispeech, wav2vec2_pretraining
from speechkit.models.assets import Assets
from speechkit.models.unispeech_codes import with_positives
from speechkit.train.update import take

TOKENIZER = SimpleNamespace(vocab=["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"])
SMALL = ["quantizer.entries=20", "projection_dim=16", "contrastive.negatives=20", "mask.length=4"]
CALM = ["dropout=0", "dropout_features=0"]
STILL = {
    "speech": [SPEECH[0][:-1] + ", dropout: 0, input_dropout: 0, activation_dropout: 0, layer_drop: 0}"],
    "features": [FEATURES[0][:-1] + ", dropout: 0}", FEATURES[1]],
}
TARGETS = ([2, 3, 3, 4], [4, 2], [2], [3, 4, 2, 2])


def make(inputs, *overrides, module=unispeech):
    """A tiny model in float64 without dropout."""
    torch.manual_seed(5)
    config = load_config(module.Config, overrides=[*STILL[inputs], *SMALL, *overrides])
    return module.build(config, Assets(TOKENIZER)).double()


def make_labelled(inputs, labels=True):
    """Utterances long enough for their tokens, or the same without any."""
    torch.manual_seed(11)
    batch = take(make_batch(inputs, torch.float64), [0, 1, 3])
    tokens = pad([torch.tensor(TARGETS[i]) for i in (0, 1, 3)])
    return Batch(batch.ids, batch.keys, None, batch.fields | ({"tokens": tokens} if labels else {}))


def quiet(model):
    """Without Gumbel noise."""
    model.quantizer.noise = torch.zeros_like
    return model


def gradients(model, value):
    model.zero_grad()
    value.backward(retain_graph=True)
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


# T1: widths


@pytest.mark.parametrize("inputs", INPUTS)
def test_codewords_and_outputs_have_one_width(inputs):
    model, batch = make(inputs, "projection_dim=10", "quantizer.dim=6"), make_labelled(inputs)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if not name.startswith("encoder.")}
    assert shapes == {
        "quantizer.codevectors": (1, 40, 3),
        "quantizer.weight_proj.weight": (40, model.encoder.local_dim),
        "quantizer.weight_proj.bias": (40,),
        "project_q.weight": (10, 6),
        "project_q.bias": (10,),
        "project_hid.weight": (16, 10),
        "project_hid.bias": (16,),
        "head.weight": (6, 16),
        "head.bias": (6,),
    }
    masked = model.masked(batch)
    output = model.encoder(batch[inputs].values, batch[inputs].lengths, mask=masked.mask)
    coded = model.code(output, masked.valid)
    assert coded.targets.shape == (int(masked.lengths.sum()), output.frames.size(2))
    assert (
        model.requires == (inputs, "tokens") and model.optional == ("tokens",) and model.inputs == (inputs,)
    )


# Terms


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(
    "more", [[], ["quantizer_calls=2", "q_layernorm=true"], ["contrastive.negatives_from_everywhere=false"]]
)
def test_terms_counts_and_gradients(inputs, labels, more):
    model, batch = make(inputs, *more).train(), make_labelled(inputs, labels)
    counts, losses = model.counts(batch), model.loss(batch, 0)
    masked = model.masked(batch)
    assert {name: count for name, (_, count) in losses.items()}.items() <= counts.items()
    kind = "" if labels else "_unlabelled"
    watched = {f"{name}{kind}" for name in unispeech.WATCHED}
    ctc = {"ctc", "ctc_per_token"} if labels else set()
    assert set(losses) == {"contrastive", "diversity", "temperature", *watched, *ctc}
    assert all(value.isfinite() for value, _ in losses.values())
    assert counts["contrastive"] == counts["ctc"] == counts[f"bits{kind}"] == int(masked.mask.sum()) > 0
    other = "_unlabelled" if labels else ""
    assert not any(counts[f"{name}{other}"] for name in unispeech.WATCHED)
    assert counts["ctc_per_token"] == (10 if labels else 0)
    assert sorted(counts) == sorted(model.counts(make_labelled(inputs, not labels)))
    sum(w * losses[n][0] for n, w in model.weights.items() if n in losses).backward()
    own = dict(model.named_parameters())
    idle = set() if labels else {"head.weight", "head.bias", "q_norm.weight", "q_norm.bias"} & set(own)
    assert {name for name, p in own.items() if p.grad is None} == idle
    assert all(p.grad.isfinite().all() for p in own.values() if p.grad is not None)


@pytest.mark.parametrize("norm, count", [("masked", None), ("tokens", 10), ("utterances", 3)])
def test_what_ctc_is_divided_by(norm, count):
    model, batch = make("features", f"ctc_norm={norm}"), make_labelled("features")
    assert model.counts(batch)["ctc"] == (count or model.masked(batch).count)
    unlabelled = model.counts(make_labelled("features", False))["ctc"]
    assert unlabelled == (model.masked(batch).count if norm == "masked" else 0)


# T3: where CTC's gradient goes


@pytest.mark.parametrize("inputs", INPUTS)
def test_replacement_decides_what_ctc_teaches(inputs):
    batch, book = make_labelled(inputs), ("quantizer.", "project_q", "project_hid")
    for rate in (0, 1):
        model = make(inputs, f"replace={rate}", "target_gradient=1", *CALM).train()
        loss = model.loss(batch, 0)["ctc"][0]
        found = gradients(model, loss)
        codes = [value.abs().max() for name, value in found.items() if name.startswith(book)]
        blocks = [v.abs().max() for name, v in found.items() if ".layers." in name or ".blocks." in name]
        assert len(blocks) > 8 and len(codes) == 7
        assert all(value == 0 if rate == 0 else value > 0 for value in codes)
        assert all(value == 0 for value in blocks) == (rate == 1)
        if rate == 0:
            masked = model.masked(batch)
            field, tokens = batch[inputs], batch["tokens"]
            frames = model.encoder(field.values, field.lengths, mask=masked.mask).frames
            log_probs = model.head(frames).log_softmax(-1).transpose(0, 1)
            expected = torch.nn.functional.ctc_loss(
                log_probs, tokens.values, masked.lengths, tokens.lengths, reduction="sum"
            )
            torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


# T4: which frames are replaced


@pytest.mark.parametrize("rate, span", [(0.5, 1), (0.3, 1), (0.5, 4)])
def test_rate_of_replacement(rate, span):
    model = make("features", f"replace={rate}", f"replace_span={span}").train()
    lengths = torch.full((400,), 60)
    lengths[::2] = 40
    mask = torch.zeros(400, 60, dtype=torch.bool)
    masked = unispeech.Masked(mask, lengths, 0, 0)
    fields = {"tokens": pad([torch.ones(1)] * 400)}
    batch = Batch([str(i) for i in range(400)], torch.arange(400) * 7919, None, fields)
    drawn = model.replaced(batch, masked)
    assert not drawn[~masked.valid].any()
    spread = 3 * (rate * (1 - rate) * span) ** 0.5
    count = int(lengths.sum())
    assert abs(int(drawn.sum()) / count - rate) < spread / count**0.5
    by_time = drawn[:, :40].double().mean(0)
    assert (by_time - rate).abs().max() < 4 / 3 * spread / (400 * span) ** 0.5
    if span > 1:
        assert (drawn[:, :40].view(400, 10, span).sum(2) % span == 0).all()
    assert torch.equal(drawn, model.replaced(batch, masked))
    batch.keys = batch.keys + 1
    assert not torch.equal(drawn, model.replaced(batch, masked))
    assert model.eval().replaced(batch, masked) is None
    del batch.fields["tokens"]
    assert model.train().replaced(batch, masked) is None


@pytest.mark.parametrize("inputs", INPUTS)
def test_evaluation_hears_everything_and_replaces_only_when_told(inputs):
    batch = make_labelled(inputs)
    model, always = make(inputs).eval(), make(inputs, "replace_eval=true").eval()
    log_probs, lengths = model.encode(batch)["ctc"]
    field, tokens = batch[inputs], batch["tokens"]
    assert torch.equal(lengths, model.output_lengths(field.lengths))
    frames = model.encoder(field.values, field.lengths).frames
    torch.testing.assert_close(log_probs, model.head(frames).log_softmax(-1), rtol=0, atol=1e-12)
    expected = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), tokens.values, lengths, tokens.lengths, reduction="sum"
    )
    torch.testing.assert_close(model.loss(batch, 0)["ctc"][0], expected)
    assert torch.equal(model.loss(batch, 0)["ctc"][0], model.loss(batch, 9)["ctc"][0])
    other = always.loss(batch, 0)
    assert not torch.isclose(other["ctc"][0], expected)
    assert torch.equal(other["contrastive"][0], model.loss(batch, 0)["contrastive"][0])


# T5: eq. 6


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("norm", ["masked", "tokens"])
def test_the_loss_of_many_utterances_is_the_sum_of_their_losses(inputs, norm):
    model = quiet(make(inputs, f"ctc_norm={norm}", *CALM)).train()
    whole, bare = make_labelled(inputs), take(make_labelled(inputs, False), [2, 0])
    terms = ("ctc", "contrastive")
    found = {name: model.loss(whole, 3)[name] for name in terms}
    alone = [model.loss(take(whole, [i]), 3) for i in range(3)]
    for name in terms:
        assert found[name][0].item() == pytest.approx(sum(p[name][0].item() for p in alone), rel=1e-9)
        assert found[name][1] == sum(part[name][1] for part in alone)
    without = model.loss(bare, 3)["contrastive"]
    parts = [alone[2]["contrastive"], alone[0]["contrastive"]]
    assert without[0].item() == pytest.approx(2 * sum(value.item() for value, _ in parts), rel=1e-9)
    assert without[1] == sum(count for _, count in parts)  # 1 of unlabelled speech, 1 - alpha of labelled


def as_wav2vec2(model, inputs, *overrides):
    """wav2vec 2.0 whose targets have both projections, and whose outputs have none."""
    other = ["mask.probability=0.5", "contrastive.negatives_from_everywhere=true", "penalty_weight=0"]
    peer = make(inputs, *other, *overrides, module=wav2vec2_pretraining)
    state = model.state_dict()
    up, bias = state.pop("project_hid.weight"), state.pop("project_hid.bias")
    state["project_q.bias"] = up @ state["project_q.bias"] + bias
    state["project_q.weight"] = up @ state["project_q.weight"]
    state |= {"project_hid.weight": torch.eye(16), "project_hid.bias": torch.zeros(16)}
    peer.load_state_dict({name: value for name, value in state.items() if not name.startswith("head.")})
    return quiet(peer)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("labels", [True, False])
def test_without_alpha_it_is_wav2vec2(inputs, labels):
    more = [*CALM[1:], "target_gradient=1", "contrastive.codebook_negatives=3"]
    model = quiet(make(inputs, "alpha=0", *more)).train()
    assert model.head is None and model.requires == (inputs,) and model.optional == ()
    batch, peer = make_labelled(inputs, labels), as_wav2vec2(model, inputs, *more).train()
    mine, theirs = model.loss(batch, 7), peer.loss(batch, 7)
    assert set(mine) == set(theirs) - {"penalty"} and model.encode(batch) == {}
    for name, (value, count) in mine.items():
        torch.testing.assert_close(value, theirs[name][0], rtol=1e-9, atol=0, check_dtype=False)
        assert count == theirs[name][1]
    objective(model, batch).backward()
    objective(peer, batch).backward()
    expected = {name: p.grad for name, p in peer.named_parameters() if name.startswith("encoder.")}
    for name, parameter in model.named_parameters():
        if name in expected and expected[name] is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-7, atol=1e-12)


def test_alpha_one_is_ctc_alone_on_labelled_speech():
    model, batch = make("features", "alpha=1", "replace=0").train(), make_labelled("features")
    model.quantizer.forward = None  # is not called
    losses = model.loss(batch, 0)
    assert set(losses) == {"ctc", "ctc_per_token"} and model.weights["ctc"] == 1
    counts = model.counts(batch)
    assert counts["bits"] == counts["code_perplexity"] == 0
    assert [kind.share for kind in model.kinds(make_labelled("features", False))] == [1]


# T9, and what is not computed


def test_unlabelled_speech_never_reaches_ctc(monkeypatch):
    model, batch = make("features").train(), make_labelled("features", False)
    monkeypatch.setattr(unispeech, "ctc_loss", None)
    monkeypatch.setattr(model.head, "forward", None)
    monkeypatch.setattr(model, "replace", None)
    assert model.loss(batch, 0)["contrastive"][0] > 0
    with pytest.raises(TypeError):
        model.loss(make_labelled("features"), 0)


@pytest.mark.parametrize(
    "more, labels, sizes",
    [
        ([], True, ["all"]),
        ([], False, ["all"]),
        (["replace=0"], True, ["all"]),
        (["contrastive.negatives_from_everywhere=false"], False, ["masked"]),
        (["contrastive.negatives_from_everywhere=false", "replace=0"], True, ["masked"]),
        (["contrastive.negatives_from_everywhere=false"], True, ["both"]),
        (["contrastive.negatives_from_everywhere=false", "quantizer_calls=2"], True, ["masked", "replaced"]),
        (["contrastive.negatives_from_everywhere=false", "quantizer_calls=2"], False, ["masked"]),
        (["quantizer_calls=2"], True, ["masked", "all"]),
        (["alpha=1"], True, ["replaced"]),
    ],
)
def test_one_pass_of_the_encoder_and_the_codewords_that_are_needed(more, labels, sizes):
    model, batch, seen, passes = make("features", *more).train(), make_labelled("features", labels), [], []
    model.quantizer.register_forward_hook(lambda module, arguments, _: seen.append(len(arguments[0])))
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    masked = model.masked(batch)
    replaced = model.replaced(batch, masked)
    replaced = torch.zeros_like(masked.mask) if replaced is None else replaced
    known = {"all": masked.valid, "masked": masked.mask, "replaced": replaced, "both": replaced | masked.mask}
    model.loss(batch, 0)
    assert seen == [int(known[size].sum()) for size in sizes] and len(passes) == 1


def test_two_calls_tell_true_targets_of_other_noise_from_distractors():
    """With the same noise twice the loss is that of one call; with other noise it is not."""
    batch = make_labelled("features")
    once, twice = (make("features", f"quantizer_calls={n}", "replace=0", *CALM) for n in (1, 2))
    same = [quiet(model).train().loss(batch, 0)["contrastive"][0] for model in (once, twice)]
    torch.testing.assert_close(*same, rtol=1e-12, atol=0)
    twice.quantizer.noise = torch.randn_like
    assert not torch.isclose(twice.loss(batch, 0)["contrastive"][0], same[0])


@pytest.mark.parametrize("cross", [0, 5])
def test_true_targets_join_the_candidates(cross):
    config = unispeech.Config().contrastive
    config.negatives, config.cross_sample_negatives = 6, cross
    mask = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    lengths = torch.tensor([6, 5, 4])
    draw = unispeech.parts.contrastive.draw_distractors(mask, lengths, torch.arange(3), config)
    moved, order = with_positives(draw)
    pool = torch.cat([-torch.arange(1, 6), torch.arange(15)]).index_select(0, order)  # true ones are < 0
    first = (moved.sizes.cumsum(0) - moved.sizes).repeat_interleave(moved.rows)
    assert pool[first + moved.own].tolist() == [-1, -2, -3, -4, -5]
    before = (draw.sizes.cumsum(0) - draw.sizes).repeat_interleave(draw.rows)
    assert torch.equal(pool[first[:, None] + moved.others], before[:, None] + draw.others)


# What is told, and what cannot be


def test_advice_names_the_speech_that_it_is_about():
    model = make("features")
    good = {"bits": 2.0, "accuracy": 0.5, "code_perplexity": 20.0, "probability_perplexity": 20.0}
    bad = {"bits": 0.05, "accuracy": 0.99, "code_perplexity": 1.9, "probability_perplexity": 1.9}
    row = {"update": 5000, **good, **{f"{name}_unlabelled": value for name, value in bad.items()}}
    assert model.advise(row).startswith("unlabelled speech: collapsed")
    assert model.advise({**row, "update": 3}) is None
    nothing = dict.fromkeys((f"{name}_unlabelled" for name in good), 0.0)
    assert model.advise({"update": 5000, **good, **nothing}) is None
    assert model.advise({"update": 5000, **bad, **nothing}).startswith("collapsed")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["alpha=1.5"], "alpha=1.5"),
        (["replace=-1"], "replace=-1"),
        (["quantizer_calls=3"], "quantizer_calls"),
        (["targets=linear"], "UniSpeech replaces frames by codewords"),
        (["encoder.mask_embedding=false"], "mask_embedding=true"),
        (["penalty_weight=1"], "is for encoders of samples"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises((InputError, ProblemsError)) as error:
        make("features", *overrides)
    assert message in str(error.value)


def test_it_needs_a_tokenizer_unless_it_never_recognises():
    config = load_config(unispeech.Config, overrides=[*FEATURES, *SMALL])
    with pytest.raises(InputError, match="needs a tokenizer of phones; give --tokenizer, or model.alpha=0"):
        unispeech.build(config, Assets())
    config.alpha = 0.0
    assert unispeech.build(config, Assets()).requires == ("features",)


def test_terms_are_fp32_under_autocast():
    model, batch = make("speech").float().train(), make_labelled("speech")
    batch.fields["speech"].values = batch["speech"].values.float()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(batch, 0)
    assert all(value.isfinite() for value, _ in losses.values())
    assert all(losses[name][0].dtype == torch.float32 for name in model.weights)
