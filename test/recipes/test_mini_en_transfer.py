"""Attention decoders and transducers of the main recipe, with and without knowledge transfer."""

import json

import pytest
import torch
from bert_folders import write_bert
from recipes.large_recipe import ROOT, copy, run

from speechkit.bin.__main__ import main
from speechkit.config import differences, load_config, load_kind, to_dict
from speechkit.data.batch import Batch, pad
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.systems import read_systems
from speechkit.text.tokenizer import load_tokenizer
from speechkit.train import optim
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/mini_en/asr1"
SYSTEMS = read_systems(RECIPE / "conf/systems_transfer.yaml").systems
TAUGHT = [name for name in SYSTEMS if name.startswith(("las", "transducer"))]
TEXTS = ["the cats", "dog a dog", "the dog"]
TINY = [f"model.encoder.{size}" for size in ("dim=16", "layers=1", "heads=2", "feed_forward=24")]


def config_of(name, store="store", options=()):
    """The training configuration of a system."""
    system = SYSTEMS[name]
    words = [
        option.replace("./exp/bert_embeddings/seed{seed}/store", str(store)) for option in system.options
    ]
    return load_config(RunConfig, RECIPE / system.train, [*words, *options])


def test_all_systems_of_the_other_file_are_there():
    other, both = (read_systems(RECIPE / f"conf/systems{more}.yaml") for more in ("", "_transfer"))
    assert both.orderings == other.orderings and both.more_orderings
    assert both.expected()[: len(other.orderings)] == other.expected()
    assert {f"{name}/{how}" for name in TAUGHT for how in SYSTEMS[name].decodes} >= {
        row
        for ordering in both.expected()[len(other.orderings) :]
        for row in (ordering.first, ordering.second)
    }
    assert {name: SYSTEMS[name] for name in other.systems} == other.systems
    assert len(TAUGHT) == len(SYSTEMS) - len(other.systems) - 1


@pytest.mark.parametrize("kind", ["las", "transducer"])
def test_only_the_units_and_sigma_differ(kind):
    own, plain = SYSTEMS[f"{kind}_own"], SYSTEMS[kind]
    assert own.tokenizer == "data/tokens/bpe" and plain.tokenizer == "data/tokens/bert"
    assert config_of(f"{kind}_own") == config_of(kind) and config_of(kind).model.transfer is None
    sigmas = {}
    for name in (name for name in TAUGHT if name.startswith(f"{kind}_") and name != f"{kind}_own"):
        system = SYSTEMS[name]
        assert (system.tokenizer, system.init_encoder, system.decodes, system.seeds) == (
            plain.tokenizer,
            plain.init_encoder,
            plain.decodes,
            plain.seeds,
        )
        lines = differences(to_dict(config_of(kind)), to_dict(config_of(name)))
        assert all(line.startswith("model.transfer") for line in lines)
        transfer = config_of(name).model.transfer
        if transfer.regression == "synchronous":
            assert name == f"{kind}_{transfer.sigma:g}"
            sigmas[transfer.sigma] = name
        else:
            (twin,) = (twin for sigma, twin in sigmas.items() if sigma == transfer.sigma)
            (line,) = differences(to_dict(config_of(twin)), to_dict(config_of(name)))
            assert line.startswith("model.transfer.regression")
    assert len(sigmas) >= 3


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """A tiny BERT's tokenizer and the embeddings that it gives the texts."""
    folder = tmp_path_factory.mktemp("lesson")
    bert = write_bert(folder / "bert")
    (folder / "text").write_text("".join(f"u{k} {text}\n" for k, text in enumerate(TEXTS)))
    text = ["--text", str(folder / "text")]
    kind = ["--kind", "wordpiece", "--vocab", str(bert), "--specials", "both"]
    assert main(["tokenizer", *text, *kind, "--out", str(folder / "tokens")]) == 0
    words = ["--bert", str(bert), "--tokenizer", str(folder / "tokens"), *text]
    assert main(["bert-embed", *words, "--out", str(folder / "store")]) == 0
    return folder


@pytest.mark.parametrize("name", TAUGHT)
def test_a_system_takes_two_steps(name, lesson):
    config = config_of(name, lesson / "store", TINY)
    tokenizer = load_tokenizer(lesson / "tokens")
    torch.manual_seed(1)
    model = load_kind(MODELS, config.model.name).build(config.model, Assets(tokenizer)).train()
    optimiser = optim.build(config.optim, model)
    tokens = pad([torch.tensor(tokenizer.encode(text)) for text in TEXTS])
    fields = {"features": pad([torch.randn(n, 80) for n in (60, 90, 47)]), "tokens": tokens}
    batch = Batch(["u1", "u2", "u3"], torch.tensor([1, 2, 3]), fields=fields)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for update in range(2):
        losses = model.loss(batch, update)
        assert ("embedding" in losses) == (config.model.transfer is not None)
        sum(weight * losses[key][0] / losses[key][1] for key, weight in model.weights.items()).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert all(value.isfinite().all() for value in model.parameters())
    still = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
    assert not still or all(".norm" in key or "bias" in key for key in still)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_synthesis_to_a_table(tmp_path):
    recipe = copy("mini_en/asr1", tmp_path)
    command = ["./run.sh", "--quick", "true", "--jobs", "1", "--comparison", "transfer"]
    done = run(recipe, *command, timeout=800)
    assert done.returncode == 0, done.stderr[-4000:]
    work = recipe / "quick"
    table = (work / "RESULTS.md").read_text()
    systems = read_systems(recipe / "conf/systems_quick.yaml").systems
    names = [name for name in systems if name.startswith(("las", "transducer"))]
    assert len(names) >= 3
    for name in names:
        (how,) = systems[name].decodes
        assert f"| {name} | {how} | pieces | 1 |" in table
        said = (work / f"exp/{name}/seed1/decode_test_{how}/text").read_text()
        assert len(said.splitlines()) == 40 and "[SEP]" not in said
        trained, final = (work / f"exp/{name}/seed1" / place / "config.yaml" for place in ("", "final"))
        assert ("sigma" in trained.read_text()) == (not name.endswith("own"))
        assert "sigma" not in final.read_text()
    assert json.loads((work / "exp/bert_embeddings/seed1/store/store.json").read_text())["sentences"] == 190
    assert (work / "images/embedding_distances.png").is_file()
    for name in names:
        words = ["--model", f"quick/exp/{name}/seed1", "--data", "quick/dump/dev", "--out", f"{name}.png"]
        drawn = run(recipe, "speechkit", "picture", "alignment", *words, timeout=200)
        assert drawn.returncode == 0, drawn.stderr
    again = run(recipe, *command, timeout=300)
    assert again.returncode == 0 and (work / "RESULTS.md").read_text() == table
