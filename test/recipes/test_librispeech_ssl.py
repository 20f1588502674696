"""LibriSpeech without labels: Libri-Light's sets, the published values, and every stage in miniature."""

import json
import re

import miniature_corpora as mini
import pytest
import torch
from factories import make_data_dir
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from recipes.test_configs import Letters

from speechkit.config import load_config, load_kind
from speechkit.errors import InputError
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.systems import read_systems, select
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/librispeech/ssl1"
CONFIGS = sorted((RECIPE / "conf").glob("pretrain_*.yaml")) + sorted(
    (RECIPE / "conf").glob("finetune_*.yaml")
)


def test_fine_tuning_sets_are_nested(tmp_path):
    made = mini.make_librilight_finetuning(tmp_path, seconds=0.5)
    corpus = tmp_path / "librispeech_finetuning"
    prepare = program(RECIPE / "local/data.py").prepare
    prepare(corpus, tmp_path / "data")
    for name, expected in made.items():
        assert texts(tmp_path / f"data/train_{name}/text") == expected
    assert set(made["10min"]) < set(made["1h"]) < set(made["10h"])

    next((corpus / "1h/3/other").rglob("*.flac")).unlink()
    with pytest.raises(InputError, match="not complete"):
        prepare(corpus, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    done = run(RECIPE, "python", "local/data.py", tmp_path, tmp_path / "again")
    assert done.returncode == 1 and "is this librispeech_finetuning?" in done.stderr.splitlines()[-1]


# The published values: fairseq's configuration files, in samples, GPUs and updates.
PRETRAINING = {
    # file: samples a GPU, GPUs, crop, rate, updates, warm-up, parameters of the encoder
    "wav2vec2_base": (1_400_000, 64, 250_000, 5e-4, 400_000, 32_000, 94_371_712),
    "wav2vec2_large_ls960": (1_200_000, 128, 320_000, 3e-4, 600_000, 32_000, None),
    "wav2vec2_large_lv60": (1_200_000, 128, 320_000, 3e-4, 1_000_000, 32_000, 315_438_720),
    "xlsr": (1_200_000, 64, 320_000, 1e-3, 250_000, 25_000, 315_438_720),
    "hubert_base_it1": (1_400_000, 32, 250_000, 5e-4, 250_000, 32_000, 94_371_712),
    "hubert_base": (1_400_000, 32, 250_000, 5e-4, 400_000, 32_000, 94_371_712),
    "hubert_large": (900_000, 128, 250_000, 1.5e-3, 400_000, 32_000, None),
    "hubert_xlarge": (360_000, 256, 250_000, 3e-3, 400_000, 32_000, None),
}


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_has_the_published_values(name):
    samples, gpus, crop, rate, updates, warmup, parameters = PRETRAINING[name]
    config = load_config(RunConfig, RECIPE / f"conf/pretrain_{name}.yaml")
    plan, optim = config.plan, config.optim
    assert (plan.seconds * 16000, plan.micro_batches, plan.crop_seconds * 16000) == (samples, gpus, crop)
    assert plan.min_seconds * 16000 == 32_000 and plan.crop_to_shortest
    assert (optim.lr, optim.betas, optim.eps, optim.weight_decay) == (rate, [0.9, 0.98], 1e-6, 0.01)
    assert config.loop.max_updates == updates
    assert round(config.schedule.warmup * updates) == pytest.approx(warmup, rel=1e-3)
    model = config.model
    if model.name == "hubert":
        first = name == "hubert_base_it1"
        assert model.mask.probability == 0.8 and model.penalty_weight == 10
        assert (model.classes, model.label_rates) == (([100], [100.0]) if first else ([500], [50.0]))
    else:
        assert model.mask.probability == 0.65 and model.contrastive.negatives == 100
        large = name != "wav2vec2_base"
        assert model.quantizer.temperature_end == (0.1 if large else 0.5)
        assert model.penalty_weight == (0 if name in ("wav2vec2_large_lv60", "xlsr") else 10)
    assert config.plan.source_power == (0.5 if name == "xlsr" else 1)
    with torch.device("meta"):
        built = load_kind(MODELS, model.name).build(model, Assets(Letters()))
    size = sum(parameter.numel() for parameter in built.encoder.parameters())
    assert parameters is None or size == parameters
    if name == "hubert_xlarge":
        assert 0.93e9 < size < 0.98e9


@pytest.mark.parametrize(("name", "millions"), [("conformer_base", 73.05), ("conformer_xl", 582.3)])
def test_conformers_over_log_mel_have_the_stated_sizes(name, millions):
    config = load_config(RunConfig, RECIPE / f"conf/pretrain_{name}.yaml")
    with torch.device("meta"):
        model = load_kind(MODELS, config.model.name).build(config.model, Assets(Letters()))
    assert model.requires == ("features",) and model.quantizer is None
    kernels = [(conv.kernel_size, conv.stride) for conv in model.encoder.subsampling.convs]
    assert kernels == [((3, 3), (2, 2))] * 2
    assert not any("BatchNorm" in type(part).__name__ for part in model.modules())
    size = sum(parameter.numel() for parameter in model.encoder.parameters())
    assert size / 1e6 == pytest.approx(millions, abs=0.1)


FINE_TUNING = {
    # file: updates, rate, time mask, channel mask, updates of the head alone
    "base_10min": (13_000, 5e-5, 0.65, 0.25, 10_000),
    "base_1h": (13_000, 5e-5, 0.65, 0.25, 10_000),
    "base_10h": (20_000, 5e-5, 0.65, 0.5, 10_000),
    "base_100h": (80_000, 3e-5, 0.65, 0.5, 0),
    "base_960h": (320_000, 1e-4, 0.5, 0.1, 0),
    "large_10min": (13_000, 1e-4, 0.65, 0.25, 10_000),
    "large_1h": (13_000, 3e-4, 0.75, 0.25, 10_000),
    "large_10h": (20_000, 1e-4, 0.75, 0.25, 10_000),
    "large_100h": (80_000, 3e-5, 0.5, 0.5, 10_000),
    "hubert_10h": (25_000, 2e-5, 0.75, 0.5, 10_000),
}


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_has_the_published_values(name):
    updates, rate, time, channels, frozen = FINE_TUNING[name]
    config = load_config(RunConfig, RECIPE / f"conf/finetune_{name}.yaml")
    assert (config.loop.max_updates, config.optim.lr, config.optim.eps) == (updates, rate, 1e-8)
    masking = config.model.masking
    assert (masking.time.probability, masking.time.length) == (time, 10)
    assert (masking.channels.probability, masking.channels.length) == (channels, 64)
    assert [rule.until for rule in config.freeze] == ([frozen] if frozen else [])
    encoder = config.model.encoder
    assert (encoder.feature_grad_mult, encoder.activation_dropout, encoder.dropout) == (0, 0.1, 0)
    assert encoder.layer_drop == (0.05 if name == "base_10h" else 0.1)
    seconds = config.plan.seconds * config.plan.micro_batches
    assert seconds == 1600  # 2 x 4 x 3.2 M samples, or 4 x 5 x 1.28 M


def test_every_value_names_its_source():
    for path in CONFIGS:
        top = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        assert re.search(r"fairseq examples/\S+\.yaml|section \d|checkpoint \(\w+\)", top), path.name


def test_families_are_chosen_by_pattern():
    systems = read_systems(RECIPE / "conf/systems.yaml")
    family = select(systems, "wav2vec2_base*")
    assert list(family) == ["wav2vec2_base", *(f"wav2vec2_base_{b}" for b in ("10min", "1h", "10h", "100h"))]
    chain = [name for name, system in select(systems, "hubert_*").items() if system.stage == 4]
    assert chain == [
        *("hubert_km_mfcc", "hubert_base_it1", "hubert_km_it1", "hubert_base", "hubert_km_it2"),
        *("hubert_large", "hubert_xlarge"),
    ]
    for name, layer in (("hubert_km_it1", "layer=6"), ("hubert_km_it2", "layer=9")):
        assert layer in systems.systems[name].commands[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Both recipes, the corpora, and two languages."""
    folder = tmp_path_factory.mktemp("librispeech")
    mini.make_librispeech(folder / "corpora")
    mini.make_librilight_finetuning(folder / "corpora")
    for seed, language in enumerate(("en", "sw")):
        for part, count in (("train", 6), ("dev", 2)):
            place = folder / "languages" / language / part
            make_data_dir(place, count, 2, 2.2, seed=seed, prefix=f"{language}{part}")
    copy("librispeech/asr1", folder)
    return folder, copy("librispeech/ssl1", folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wav2vec2_and_xlsr_in_miniature(world):
    folder, recipe = world
    languages = ",".join(str(folder / "languages" / name) for name in ("en", "sw"))
    methods = "wav2vec2_*,xlsr*"
    stages(
        recipe, "--corpus-dir", folder / "corpora", "--languages-dirs", languages, "--methods", methods,
        timeout=800,
    )  # fmt: skip
    exp = recipe / "quick/exp"
    for system, how in (
        ("wav2vec2_base_10min", "greedy"),
        ("wav2vec2_base_10min", "ngram"),
        ("wav2vec2_base_100h", "greedy"),
        ("xlsr_10h", "greedy"),
    ):
        for name in ("dev_clean", "dev_other", "test_clean", "test_other"):
            result = json.loads((exp / f"{system}/seed1/decode_{name}_{how}/result.json").read_text())
            assert result["counts"]["words"] > 0
    trained = (exp / "xlsr/seed1/train.log").read_text()
    assert "12 utterances" in trained, "both languages"
    rows = (exp / "wav2vec2_base/seed1/metrics.jsonl").read_text().splitlines()
    assert {"code_perplexity", "accuracy"} <= json.loads(rows[-1]).keys()
    log = (exp / "wav2vec2_base_10min/seed1/train.log").read_text()
    assert "encoder from quick/exp/wav2vec2_base/seed1/final" in log
    assert "wav2vec2_base_10min" in (recipe / "quick/RESULTS.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_iterations_of_hubert_in_miniature(world):
    folder, recipe = world
    stages(recipe, "--corpus-dir", folder / "corpora", "--methods", "hubert_*", timeout=800)
    dump = folder / "egs/librispeech/asr1/quick/dump"
    rates = {}
    for name in ("mfcc", "it1", "it2"):
        rows = texts(dump / f"train_clean_100/km_{name}.txt")
        samples = texts(dump / "train_clean_100/utt2num_samples")
        assert rows.keys() == samples.keys()
        rates[name] = {round(16000 * len(rows[u].split()) / int(samples[u])) for u in rows}
        assert (dump / f"dev_other/km_{name}.txt").is_file()
    assert rates["mfcc"] <= {98, 99, 100} and rates["it1"] == rates["it2"] <= {49, 50}
    exp = recipe / "quick/exp"
    assert len(texts(exp / "hubert_large_1h/seed1/decode_test_other_greedy/text")) == 10
