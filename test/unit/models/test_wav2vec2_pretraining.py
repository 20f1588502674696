"""wav2vec 2.0 pre-training keeps the Model contract over samples and features, sees collapse, and resumes."""

import math

import pytest
import torch
from factories import waveform
from tiny_training import World, rows, weights

from speechkit.config import load_config
from speechkit.data.batch import Batch, Padded, pad
from speechkit.errors import InputError, ProblemsError
from speechkit.models import wav2vec2_pretraining
from speechkit.models.assets import Assets

BINS = 20
SPEECH = [
    "encoder={preset: tiny, dim: 16, layers: 1, heads: 2, feed_forward: 24, pos_conv_kernel: 8, "
    "pos_conv_groups: 4, conv_channels: [8, 8, 8, 8, 8, 8, 12]}",
]
FEATURES = [
    "encoder={name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, mask_embedding: true}",
    f"input_dim={BINS}",
]
QUIET = ["dropout_features=0", "encoder.dropout=0"]
SMALL = ["quantizer.entries=20", "projection_dim=16", "contrastive.negatives=20"]
INPUTS = {"speech": SPEECH, "features": FEATURES}
EVERYTHING = [
    "contrastive.cross_sample_negatives=5",
    "contrastive.codebook_negatives=6",
    "contrastive.negatives_from_everywhere=true",
]


def make(inputs, *overrides):
    torch.manual_seed(5)
    config = load_config(wav2vec2_pretraining.Config, overrides=[*INPUTS[inputs], *SMALL, *overrides])
    return wav2vec2_pretraining.build(config, Assets())


def make_batch(inputs, dtype=torch.float32):
    seconds = (1.3, 0.9, 0.02, 1.6)
    if inputs == "speech":
        rows = [torch.from_numpy(waveform(s, seed=i)).to(dtype) for i, s in enumerate(seconds)]
    else:
        rows = [torch.randn(int(200 * s), BINS, dtype=dtype) for s in seconds]
    return Batch(list("abcd"), torch.arange(4) + 40, None, {inputs: pad(rows)})


def select(batch, *rows, noise=0.0):
    """Some utterances, with other content in the padding."""
    index, (name, field) = torch.tensor(rows), next(iter(batch.fields.items()))
    values, lengths = field.values[index], field.lengths[index]
    padding = torch.arange(values.size(1)) >= lengths[:, None]
    values = torch.where(padding.view(*padding.shape, *[1] * (values.dim() - 2)), noise, values)
    ids = [batch.ids[i] for i in rows]
    return Batch(ids, batch.keys[index], None, {name: Padded(values[:, : int(lengths.max())], lengths)})


def objective(model, batch, counts=None):
    losses = model.loss(batch, 0)
    counts = counts or {name: count for name, (_, count) in losses.items()}
    return sum(w * losses[name][0] / counts[name] for name, w in model.weights.items())


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("more", [[], EVERYTHING, ["targets=linear"]], ids=["plain", "everything", "linear"])
def test_terms_counts_and_gradients(inputs, more):
    model, batch = make(inputs, *more), make_batch(inputs)
    assert model.requires == model.inputs == (inputs,)
    counts, losses = model.counts(batch), model.loss(batch, 0)
    assert counts == {name: count for name, (_, count) in losses.items()}
    terms = {"contrastive", "bits", "accuracy"}
    terms |= {"penalty"} if inputs == "speech" else set()
    watched = {"code_perplexity", "probability_perplexity", "temperature"}
    assert set(losses) == terms | (set() if "targets=linear" in more else {"diversity", *watched})
    assert set(model.weights) == {"contrastive", "diversity", "penalty"} & set(losses)

    (total, count), (bits, _) = losses["contrastive"], losses["bits"]
    assert count == model.masked(batch).mask.sum() and bits.item() == pytest.approx(
        total.item() / math.log(2)
    )
    chance = math.log2(1 + model.config.contrastive.total)
    assert 0.5 * chance < bits.item() / count < 2 * chance
    objective(model, batch).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing and model.encode(batch) == {}


@pytest.mark.parametrize("extractor", ["group", "layer"])
@pytest.mark.parametrize("policy", ["masked", "hf"])
def test_the_penalty_may_count_the_frames_of_padding(extractor, policy):
    """As published: the mean square over all frames that the convolutions make of the padded batch."""
    options = [f"encoder.extractor={extractor}", f"encoder.pad_policy={policy}", "encoder.normalize=none"]
    batch = make_batch("speech", torch.float64)
    inputs, found = batch["speech"], {}
    for padding in ("true", "false"):
        model = make("speech", *options, f"penalty_padding={padding}").double().eval()
        found[padding] = model.loss(batch, 0)["penalty"]
        assert model.counts(batch)["penalty"] == found[padding][1]
    convolutions = model.encoder.feature_extractor

    def squares(x, lengths):
        frames = x[..., None]
        for layer in convolutions.conv_layers:
            lengths = lengths if lengths is None else layer.output_lengths(lengths)
            frames = layer(frames, lengths)
        return frames.square().mean(-1)

    whole = squares(inputs.values, None if policy == "hf" else inputs.lengths)
    assert found["true"][1] == whole.numel() == 4 * 79
    assert found["true"][0].item() == pytest.approx(whole.sum().item(), rel=1e-9)
    lengths = model.encoder.output_lengths(inputs.lengths)
    own = whole[torch.arange(79) < lengths[:, None]]
    assert found["false"][1] == len(own) < whole.numel()
    assert found["false"][0].item() == pytest.approx(own.sum().item(), rel=1e-9)
    alone = select(batch, 3)  # without padding there is no difference
    shares = [
        make("speech", f"penalty_padding={p}").double().eval().loss(alone, 0) for p in ("true", "false")
    ]
    assert shares[0]["penalty"][1] == shares[1]["penalty"][1]
    assert torch.equal(shares[0]["penalty"][0], shares[1]["penalty"][0])


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("everywhere", ["false", "true"])
def test_terms_of_an_utterance_depend_on_nothing_else(inputs, everywhere):
    model = make(inputs, f"contrastive.negatives_from_everywhere={everywhere}").double().eval()
    batch = make_batch(inputs, torch.float64)
    whole = model.loss(batch, 0)
    parts = [model.loss(select(batch, *r, noise=7.0), 0) for r in ((3, 0), (1,), (2,))]
    for name in {"contrastive", "bits", "accuracy", "penalty"} & set(whole):
        value = sum(part[name][0].item() for part in parts)
        assert whole[name][0].item() == pytest.approx(value, rel=1e-9), name
        assert whole[name][1] == sum(part[name][1] for part in parts)


@pytest.mark.parametrize("inputs", INPUTS)
def test_gradient_of_small_batches_adds_up(inputs):
    model = make(inputs, *QUIET, "targets=linear").double().train()
    if inputs == "speech":
        model.encoder.encoder.layer_drop, model.encoder.input_dropout.rate = 0.0, 0.0
    batch = make_batch(inputs, torch.float64)
    counts = model.counts(batch)

    def gradient(*parts):
        model.zero_grad()
        for part in parts:
            objective(model, part, counts).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    parts = [select(batch, 2, 0), select(batch, 3), select(batch, 1)]
    torch.testing.assert_close(gradient(batch), gradient(*parts), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("inputs", INPUTS)
def test_targets_are_made_of_unmasked_frames(inputs):
    model, batch, seen = make(inputs).eval(), make_batch(inputs), []
    model.quantizer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    model.loss(batch, 0)
    local = model.encoder(batch[inputs].values, batch[inputs].lengths).local
    expected = local[model.masked(batch).mask]
    if inputs == "features":
        masked = model.masked(batch)
        rows = [(x[:n], m[:n]) for x, m, n in zip(local, masked.mask, masked.lengths) if n]
        spread = [(x.var(0, correction=0) + 1e-5).sqrt() for x, _ in rows]
        expected = torch.cat([((x - x.mean(0)) / s)[m] for (x, m), s in zip(rows, spread)])
    torch.testing.assert_close(seen[0], expected)
    assert len(seen) == 1


@pytest.mark.parametrize("factor", [0.0, 0.25])
def test_gradient_of_targets_into_the_encoder_is_scaled(factor):
    def gradients(value):
        """Of what makes the local features, through targets alone."""
        model, batch = make("features", *QUIET, f"target_gradient={value}"), make_batch("features")
        model.quantizer.noise = torch.zeros_like
        output = model.encoder(batch["features"].values, batch["features"].lengths)
        model._targets(output, model.masked(batch), 1.0)[0].square().sum().backward()
        found = [p.grad for p in model.encoder.subsampling.parameters()]
        return [torch.zeros(1) if g is None else g for g in found]

    whole = gradients(1.0)
    assert all(g.abs().max() > 0 for g in whole)
    for part, full in zip(gradients(factor), whole):
        torch.testing.assert_close(part, (factor * full).expand_as(part) if factor else torch.zeros(1))


def test_masks_follow_keys_and_dev_losses_repeat():
    model, batch = make("speech").eval(), make_batch("speech")
    assert torch.equal(model.loss(batch, 0)["contrastive"][0], model.loss(batch, 9)["contrastive"][0])
    other = Batch(batch.ids, batch.keys + 1, None, batch.fields)
    assert not torch.equal(model.masked(batch).mask, model.masked(other).mask)


def test_temperature_is_that_of_the_update():
    model, batch = make("features", "quantizer.temperature_updates=100"), make_batch("features")
    seen = [model.loss(batch, update)["temperature"] for update in (0, 50, 100)]
    assert [count for _, count in seen] == [1, 1, 1]
    assert [value.item() for value, _ in seen] == pytest.approx([2.0, 1.0, 0.5])


def test_utterance_with_a_single_masked_frame_is_not_predicted():
    model = make("features", "mask.length=1", "mask.probability=0", "mask.min_spans=1")
    batch = make_batch("features")
    assert model.counts(batch)["contrastive"] == 0
    losses = model.loss(batch, 0)
    objective(model, batch, {name: max(1, count) for name, (_, count) in losses.items()}).backward()
    assert losses["contrastive"][0] == losses["diversity"][0] == losses["temperature"][1] == 0


@pytest.mark.parametrize("inputs", INPUTS)
def test_batch_of_utterances_without_a_frame(inputs):
    model, batch = make(inputs), select(make_batch(inputs), 2)
    losses = model.loss(batch, 0)
    assert all(value == 0 and count == 0 for value, count in losses.values())


def test_terms_are_fp32_under_autocast():
    model, batch = make("speech"), make_batch("speech")
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(batch, 0)
    assert all(value.isfinite() for value, _ in losses.values())
    assert all(losses[name][0].dtype == torch.float32 for name in model.weights)


# Collapse


@pytest.mark.parametrize("more", [[], ["targets=linear"]], ids=["gumbel", "linear"])
def test_constant_audio_has_no_accuracy_and_sets_off_the_alarm(more):
    model = make("speech", "quantizer.entries=320", "encoder.normalize=none", *more).eval()
    batch = make_batch("speech")
    batch["speech"].values.fill_(0.1)
    values = {name: value.item() / count for name, (value, count) in model.loss(batch, 0).items() if count}
    assert values["accuracy"] == 0 and values["bits"] == 0
    assert model.advise({"update": 10, **values}) is None
    assert ("lower optim.lr" if not more else "trivial") in model.advise({"update": 1000, **values})


@pytest.mark.parametrize(
    "row, words",
    [
        ({"bits": 4.4, "accuracy": 0.03, "code_perplexity": 20}, "no better than chance"),
        ({"bits": 0.05, "accuracy": 0.99, "code_perplexity": 1.9}, "collapsed"),
        ({"bits": 2.0, "accuracy": 0.5, "code_perplexity": 1.9}, "diversity_weight"),
        ({"bits": 0.05, "accuracy": 0.9, "code_perplexity": 20}, "trivial"),
        ({"bits": 0.0, "accuracy": 0.0, "code_perplexity": 0}, "no frame was masked"),
        ({"bits": 2.0, "accuracy": 0.5, "code_perplexity": 20}, None),
    ],
)
def test_advice(row, words):
    advice = make("features").advise({"update": 5000, **row})
    assert advice is None if words is None else words in advice


# Configurations that cannot be


@pytest.mark.parametrize(
    "inputs, overrides, message",
    [
        ("features", ["encoder.mask_embedding=false"], "mask_embedding=true"),
        ("features", ["penalty_weight=10"], "penalty_weight=10.0: is for encoders of samples"),
        (
            "features",
            ["targets=linear", "contrastive.codebook_negatives=3"],
            "linear targets have no codebook",
        ),
        ("features", ["quantizer.groups=3"], "multiple of quantizer.groups=3"),
        ("speech", ["mask.probability=20"], "mask: probability=20"),
        ("speech", ["contrastive.negatives=0"], "at least one distractor"),
    ],
)
def test_what_cannot_be_is_refused(inputs, overrides, message):
    with pytest.raises((InputError, ProblemsError)) as error:
        make(inputs, *overrides)
    assert message in str(error.value)


def test_statistics_of_another_dimension_are_refused():
    config = load_config(wav2vec2_pretraining.Config, overrides=FEATURES)
    statistics = {"mean": [0.0] * 7, "std": [1.0] * 7, "frames": 9}
    with pytest.raises(InputError, match="input_dim=20, but the CMVN statistics have 7"):
        wav2vec2_pretraining.build(config, Assets(None, statistics))


# Training


def options(inputs):
    """Overrides of `speechkit train` for a tiny model."""
    model = {
        "speech": {"encoder": SPEECH[0].partition("=")[2]},
        "features": {"encoder": FEATURES[0].partition("=")[2]},
    }[inputs]
    small = dict(line.split("=") for line in SMALL)
    values = {"name": "wav2vec2", **model, **small, "alarm_after": 2, "quantizer.temperature_updates": 10}
    named = {f"model__{key}": value for key, value in values.items()}
    return {**named, "schedule__name": "constant", "optim__lr": 1e-3, "plan__micro_batches": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"), utterances=12, dev=3)


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_resumed_run_ends_in_the_same_bits(world, inputs, capfd):
    whole, halves = f"{inputs}_whole", f"{inputs}_halves"
    assert world.run(whole, **options(inputs)) == 0
    assert world.run(halves, **options(inputs), loop__max_updates=8) == 0
    assert "code" in capfd.readouterr().err
    assert world.run(halves, **options(inputs)) == 0
    a, b = (weights(world.folder / exp / "step_12") for exp in (whole, halves))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    found = [[r for r in rows(world.folder / exp) if r["kind"] != "final"] for exp in (whole, halves)]
    assert found[0] == found[1]
    trained = [row for row in found[0] if row["kind"] == "train"]
    temperatures = [row["temperature"] for row in trained]
    assert temperatures == pytest.approx([max(2 * 0.25 ** (n / 10), 0.5) for n in range(12)])
    assert {"bits", "accuracy", "code_perplexity", "loss_contrastive", "loss_diversity"} <= trained[0].keys()


def test_learns_to_tell_frames_apart():
    torch.manual_seed(2)
    # Eight sounds in turns: which one is masked can be told from what is around.
    model = make("features", *QUIET, "quantizer.temperature_end=0.5", "contrastive.negatives=10").train()
    sounds = torch.randn(8, BINS) * 2
    order = torch.arange(160).div(4, rounding_mode="floor") % 8
    features = pad([sounds[order.roll(int(s))] + 0.1 * torch.randn(160, BINS) for s in range(6)])
    batch = Batch(list("abcdef"), torch.arange(6), None, {"features": features})
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        batch.keys += 1000
        optimiser.zero_grad()
        objective(model, batch).backward()
        optimiser.step()
    losses = model.eval().loss(batch, 150)
    accuracy = losses["accuracy"][0].item() / losses["accuracy"][1]
    assert accuracy > 0.5 and losses["code_perplexity"][0].item() > 4
