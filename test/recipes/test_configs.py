"""Every configuration of every recipe loads; every model that one describes can be built and run."""

from pathlib import Path

import pytest
import torch
from av_models import encoder_config, known
from tiny_linguistic import BINS, FRAMES, TEXTS, make_assets

from speechkit.config import dump, load_config, load_kind, read_yaml
from speechkit.data.batch import Batch, Padded, pad
from speechkit.decoding import DecodeConfig
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.systems import read_systems
from speechkit.text.normalise import Normaliser
from speechkit.train import optim
from speechkit.train.freeze import Freezing
from speechkit.train.run import RunConfig

EGS = Path(__file__).parents[2] / "egs"
TRAIN = sorted(EGS.glob("*/*/conf/train*.yaml"))
DECODE = sorted(EGS.glob("*/*/conf/decode*.yaml"))
SYSTEMS = sorted(EGS.glob("*/*/conf/systems*.yaml"))


class Letters:
    """A tokenizer's size is all that building a model asks for."""

    vocab = ["<blank>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "▁", "<sos/eos>"]
    blank, unk, eos, normaliser = 0, 1, 29, Normaliser()


def name(path):
    return str(path.relative_to(EGS))


def test_there_are_recipes():
    assert len(TRAIN) >= 3 and len(DECODE) >= 4 and SYSTEMS


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_a_training_configuration_is_written_and_read_again(path, tmp_path):
    config = load_config(RunConfig, path)
    again = tmp_path / "again.yaml"
    again.write_text(dump(config), encoding="utf-8")
    assert load_config(RunConfig, again) == config


@pytest.mark.parametrize(
    "path", [path for path in TRAIN if load_config(RunConfig, path).model.name == "ctc"], ids=name
)
def test_a_ctc_system_is_built_in_its_size(path):
    config = load_config(RunConfig, path)
    statistics = {"mean": [0.0] * 80, "std": [1.0] * 80, "frames": 1} if config.model.clip else None
    assets = Assets(Letters(), cmvn=statistics)
    model = load_kind(MODELS, config.model.name).build(config.model, assets).eval()
    (field,) = model.inputs
    shape, lengths = {"features": ((2, 200, 80), [200, 120]), "speech": ((2, 8000), [8000, 5000])}[field]
    lengths = torch.tensor(lengths)
    fields = {field: Padded(torch.randn(shape), lengths)}
    log_probs, frames = model.encode(Batch(["a", "b"], torch.zeros(2).long(), fields=fields))["ctc"]
    assert log_probs.shape[::2] == (2, len(Letters.vocab))
    assert torch.equal(frames, model.output_lengths(lengths)) and log_probs.isfinite().all()


SMALL = ("dim=32", "layers=2", "heads=2", "feed_forward=48")
TINY = {
    "blstm": ("cells=12", "projection=16", "linear_end=false", "layers=1", "strides=[1]"),
    "conformer": SMALL,
    "wav2vec2": (
        *SMALL,
        "preset=base",
        f"conv_channels={[16] * 7}",
        "pos_conv_kernel=8",
        "pos_conv_groups=4",
    ),
}
"""Encoder -> its size here, whatever the configuration says; BERT's is that of `tiny_linguistic`."""

TINY_PARTS = {
    "decoder": {
        "las": ("cells=12", "embedding=8", "attention_dim=8"),
        "transformer": ("dim=16", "layers=1", "heads=2", "feed_forward=24"),
    },
    "prediction": {"lstm": ("cells=12", "embedding=8"), "stateless": ("dim=12",)},
}
"""The same of what stands behind the encoder."""


def tiny(path, options=()):
    """The configuration with small networks."""
    model = load_config(RunConfig, path).model
    encoder = getattr(model, "encoder", None)
    sizes = [f"model.encoder.{size}" for size in TINY[encoder.name]] if encoder else []
    if getattr(encoder, "second_attention", None):
        sizes += ["model.encoder.second_attention=16"]
    for part, kinds in TINY_PARTS.items():
        if hasattr(model, part):
            sizes += [f"model.{part}.{value}" for value in kinds[getattr(model, part).name]]
    sizes += ["model.joint.dim=12"] if hasattr(model, "joint") else []
    return load_config(RunConfig, path, [*options, *sizes])


def make_batches(model, assets):
    """What the model reads: an utterance for each text, or, where it hears nothing, text alone."""
    keys, ids = torch.tensor([11, 12, 13]), ["u1", "u2", "u3"]
    heard = {
        "features": lambda: pad([torch.randn(n, BINS) for n in FRAMES]),
        "speech": lambda: pad([torch.randn(200 * n) for n in FRAMES]),
        "tokens": lambda: pad([torch.tensor(assets.tokenizer.encode(text)) for text in TEXTS]),
        "bert_tokens": lambda: pad([torch.tensor(assets.bert.vocab.encode(text)) for text in TEXTS]),
    }
    needs = [needed for needed in (model.requires, getattr(model, "text_requires", ())) if needed]
    return [Batch(ids, keys, None, {field: heard[field]() for field in needed}) for needed in needs]


def take_two_steps(config, folder):
    """Trains as the loop does; what the freezing rules and the optimiser name must be there."""
    shared = getattr(config.model, "units", "shared") == "shared"
    assets = make_assets(folder, shared, positions=64)
    if getattr(config.model, "fusion", None) is not None:
        assets.av_bert = known(encoder_config(modalities="audio"))
    torch.manual_seed(1)
    model = load_kind(MODELS, config.model.name).build(config.model, assets).train()
    freezing = Freezing(model, config.freeze)
    optimiser = optim.build(config.optim, model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for update in range(2):
        model.set_update(update)
        freezing(update)
        for batch in make_batches(model, assets):
            losses, counts = model.loss(batch, update), model.counts(batch)
            # Terms that only other kinds of batches have are counted too: as nothing, in this one.
            assert {key: count for key, (_, count) in losses.items()}.items() <= counts.items()
            assert not any(counts[key] for key in counts.keys() - losses.keys())
            terms = [
                model.weights[key] * losses[key][0] / losses[key][1] for key in losses if key in model.weights
            ]
            assert terms and all(term.isfinite() for term in terms)
            sum(terms).backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    learnt = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert (
        changed
        and changed & learnt
        and not {key for key in changed if key in dict(model.named_parameters())} - learnt
    )
    return model


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_a_training_configuration_takes_two_steps(path, tmp_path):
    take_two_steps(tiny(path), tmp_path)


VARIANTS = [
    pytest.param(path.parents[1] / system.train, system.options, id=f"{name(path.parents[1])}-{key}")
    for path in SYSTEMS
    if path.name == "systems.yaml"
    for key, system in read_systems(path).systems.items()
    if system.train and key.startswith("wavbert_")
]


@pytest.mark.parametrize(("path", "options"), VARIANTS)
def test_a_variant_of_wavbert_takes_two_steps(path, options, tmp_path):
    take_two_steps(tiny(path, options), tmp_path)


@pytest.mark.parametrize("path", DECODE, ids=name)
def test_a_decoding_configuration_loads(path):
    assert load_config(DecodeConfig, path).search.name


@pytest.mark.parametrize("path", SYSTEMS, ids=name)
def test_a_comparison_names_files_that_exist(path):
    systems = read_systems(path)
    recipe = path.parents[1]
    for system in systems.systems.values():
        if system.train:
            load_config(RunConfig, recipe / system.train, [o.replace("{seed}", "1") for o in system.options])
        for how in system.decodes:
            config = load_config(DecodeConfig, recipe / systems.decodes[how].config)
            assert bool(config.grid) == bool(systems.decodes[how].tune_on), how
            tuned_on = systems.decodes[how].tune_on
            assert tuned_on not in systems.test_sets or Path(tuned_on).name.startswith("dev")


@pytest.mark.parametrize("path", sorted(EGS.glob("*/*/conf/*.yaml")), ids=name)
def test_a_configuration_is_short(path):
    values, _ = read_yaml(path)
    assert values, "an empty file says nothing"
    longest = 100 if path.name == "systems.yaml" else 60
    assert len(path.read_text(encoding="utf-8").splitlines()) <= longest
