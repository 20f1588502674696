"""UniSpeech on Common Voice: its layout in miniature, the published values, and every stage."""

from dataclasses import replace

import pytest
import torch
from factories import make_wave
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from recipes.test_configs import Letters, make_batches, tiny
from tiny_linguistic import make_assets

from speechkit.config import load_config, load_kind, read_yaml
from speechkit.errors import InputError
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.systems import read_systems
from speechkit.train import optim
from speechkit.train.freeze import Freezing
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/commonvoice/unispeech1"
CONFIGS = sorted(p for p in (RECIPE / "conf").glob("*tune*.yaml")) + sorted(
    (RECIPE / "conf").glob("pretrain_*.yaml")
)
SENTENCES = {
    "en": ("The lamp is on the table.", "Seven birds sat on a wall.", "We walk home in the rain."),
    "es": ("La casa tiene dos puertas.", "Mi perro duerme en la cocina.", "Hoy llueve en la playa."),
    "ky": ("Китеп столдун үстүндө.", "Бүгүн күн жылуу болот.", "Биз тоого барабыз."),
    "nl": ("De kat slaapt op de stoel.", "Wij eten vandaag brood.", "Het raam staat open."),
}
HEAD = "client_id path sentence up_votes down_votes age gender accent".split()


def make_commonvoice(folder, languages=tuple(SENTENCES), seconds=2.1):
    """<folder>/cv/<language>/{clips/*.mp3,{validated,dev,test}.tsv} and <folder>/lists/<language>/*.txt.

    Ten people validated each language, two clips each; 0 and 1 are dev, 2 and 3 test, 4 to 6 train in the
    lists. A clip of person 1 and one of 3 are in no list.
    """
    seed = 0
    for language in languages:
        place, lists = folder / "cv" / language, folder / "lists" / language
        rows = {}
        for number in range(20):
            name = f"common_voice_{language}_{1000 + number}"
            seed += 1
            make_wave(place / "clips" / f"{name}.mp3", seconds + 0.05 * number, rate=48000, seed=seed)
            sentence = SENTENCES[language][number % 3]
            speaker = f"{language}{number // 2}".ljust(128, "0")
            rows[name] = [speaker, f"{name}.mp3", sentence, "2", "0", "", "", ""]
        names = list(rows)
        parts = {"dev": names[:3], "test": names[4:7], "train": names[8:14]}
        for table, members in {"validated": names, **parts}.items():
            lines = "".join("\t".join(row) + "\n" for row in [HEAD, *(rows[name] for name in members)])
            (place / f"{table}.tsv").write_text(lines, encoding="utf-8")
        lists.mkdir(parents=True)
        for part, members in parts.items():
            (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in members))
    return folder


def prepare(folder, out, *options):
    """local/data.py on the corpus in the folder."""
    languages = ("--sources", "en", "--targets", "ky")
    return run(RECIPE, "python", "local/data.py", folder / "cv", folder / "lists", out, *languages, *options)


def clips(folder):
    """Numbers of the clips of a data directory."""
    return sorted(int(row.split()[0][-4:]) - 1000 for row in (folder / "wav.scp").read_text().splitlines())


def test_sets_of_sources_and_targets(tmp_path):
    make_commonvoice(tmp_path, ("en", "ky"), seconds=0.3)
    (tmp_path / "cv/en/clips/common_voice_en_1019.mp3").unlink()
    done = prepare(tmp_path, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    data = tmp_path / "data"
    assert clips(data / "en_labelled") == list(range(8, 19)), "no speaker of dev.tsv and test.tsv"
    assert (data / "en_labelled/lost.txt").read_text() == "common_voice_en_1019\n"
    assert clips(data / "en_labelled_dev") == [0, 1, 2]
    assert [clips(data / f"ky_{part}") for part in ("train", "dev", "test")] == [
        list(range(8, 14)), [0, 1, 2], [4, 5, 6]
    ]  # fmt: skip
    assert clips(data / "ky_unlabelled") == list(range(8, 20))
    assert not (data / "ky_unlabelled/text").exists() and (data / "ky_unlabelled/utt2lang").is_file()
    assert texts(data / "ky_test/text")["ky20000000000000-common_voice_ky_1004"] == SENTENCES["ky"][1]

    done = prepare(tmp_path, tmp_path / "all", "--held-out", "clips")
    assert done.returncode == 0, done.stderr
    assert clips(tmp_path / "all/ky_unlabelled") == [3, 7, *range(8, 20)]


def test_folders_may_name_a_region(tmp_path):
    """Common Voice's Swedish is in sv-SE."""
    make_commonvoice(tmp_path, ("en", "ky"), seconds=0.3)
    for place in ("cv", "lists"):
        (tmp_path / place / "ky").rename(tmp_path / place / "ky-KG")
    done = prepare(tmp_path, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert set(texts(tmp_path / "data/ky_test/utt2lang").values()) == {"ky"}
    assert (tmp_path / "data/ky_unlabelled/wav.scp").is_file()
    (tmp_path / "cv/ky-XX").mkdir()
    done = prepare(tmp_path, tmp_path / "again")
    assert done.returncode == 1 and "which of ky-KG, ky-XX is ky?" in done.stderr
    assert not (tmp_path / "again/ky_test").exists()


def test_a_corpus_that_is_not_as_it_should_be(tmp_path):
    module = program(RECIPE / "local/data.py")
    make_commonvoice(tmp_path, ("ky",), seconds=0.3)
    folder, lists = tmp_path / "cv/ky", tmp_path / "lists/ky"
    clips = module.read_clips(folder, "validated")
    (lists / "dev.txt").write_text("common_voice_ky_9\n")
    with pytest.raises(InputError, match=r"dev.txt: not in validated.tsv: 1 of 1, first common_voice_ky_9"):
        module.read_split(lists / "dev.txt", clips)
    (lists / "dev.txt").write_text("common_voice_ky_1004.mp3\n")
    with pytest.raises(InputError, match=r"dev.txt and test.txt share common_voice_ky_1004"):
        module.target_sets(folder, lists, True)
    (folder / "clips/common_voice_ky_1004.mp3").unlink()
    with pytest.raises(InputError, match=r"ky_1004.mp3: no such file, and dev"):
        module.collect(folder, {"common_voice_ky_1004": clips["common_voice_ky_1004"]}, complete=True)
    good = (folder / "dev.tsv").read_text()
    for bad, said in (
        (good.replace("client_id", "who"), r"dev.tsv:1: no column client_id"),
        (good.replace("common_voice_ky_1001", "../secret"), r"dev.tsv:3: needs a speaker"),
        (good.replace("_1001", "_1000"), r"dev.tsv:3: common_voice_ky_1000 comes a second time"),
    ):
        (folder / "dev.tsv").write_text(bad)
        with pytest.raises(InputError, match=said):
            module.read_clips(folder, "dev")


@pytest.mark.parametrize("size", ["base", "large"])
def test_pretraining_has_the_published_values(size):
    samples, rate, dim = {"base": (1_400_000, 5e-4, 256), "large": (1_200_000, 1e-3, 768)}[size]
    for name in ("unispeech", "xlsr", "ctc"):
        config = load_config(RunConfig, RECIPE / f"conf/pretrain_{name}_{size}.yaml")
        assert (config.plan.seconds * 16000, config.plan.micro_batches) == (samples, 64)
        assert (config.optim.lr, config.loop.max_updates, config.schedule.warmup) == (rate, 250_000, 0.1)
        assert (config.plan.source_power, config.plan.source_batches) == (0.5, "single")
        assert config.plan.crops == (name == "xlsr"), "labelled speech is never cropped"
    config = load_config(RunConfig, RECIPE / f"conf/pretrain_unispeech_{size}.yaml")
    model = config.model
    assert (model.alpha, model.replace, model.mask.probability, model.mask.length) == (0.5, 0.5, 0.5, 10)
    assert (model.quantizer.groups, model.quantizer.entries, model.projection_dim) == (2, 320, dim)
    assert (model.contrastive.negatives, model.contrastive.temperature) == (100, 0.1)
    assert config.plan.max_seconds * 16000 == 320_000
    with torch.device("meta"):
        built = load_kind(MODELS, model.name).build(model, Assets(Letters()))
    parameters = sum(parameter.numel() for parameter in built.encoder.parameters())
    assert parameters == {"base": 94_371_712, "large": 315_438_720}[size]
    again = load_config(RunConfig, RECIPE / f"conf/pretrain_unispeech_{size}_continued.yaml")
    assert (again.model.alpha, again.model.mask.probability, again.optim.lr) == (0, 0.65, 2e-4)
    assert (again.model.encoder.layer_drop, again.model.encoder.feature_grad_mult) == (0.05, 0.1)
    assert (again.loop.max_updates, again.model.projection_dim) == (100_000, dim)


def test_fine_tuning_has_the_published_values():
    config = load_config(RunConfig, RECIPE / "conf/finetune.yaml")
    rate = load_kind({"tri_stage": "speechkit.train.schedules.tri_stage"}, "tri_stage").build(
        config.schedule, config.loop.max_updates
    )
    assert [rate(update) for update in (2000, 9999)] == [1, 1]
    assert rate(15000) == pytest.approx((1 + 0.05) / 2) and config.optim.lr == 2e-5
    assert [(rule.pattern, rule.until) for rule in config.freeze] == [("encoder.*", 2000)]
    assert config.model.encoder.feature_grad_mult == 0
    masking = config.model.masking
    assert (masking.time.probability, masking.channels.probability, masking.channels.length) == (
        0.75,
        0.25,
        64,
    )
    assert config.plan.seconds * config.plan.micro_batches * 16000 == 4e6


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_takes_two_steps(path, tmp_path):
    config = tiny(path)
    torch.manual_seed(1)
    assets = make_assets(tmp_path, True, positions=64)
    model = load_kind(MODELS, config.model.name).build(config.model, assets).train()
    freezing, optimiser = Freezing(model, config.freeze), optim.build(config.optim, model)
    batches = make_batches(model, assets)
    if "tokens" in getattr(model, "optional", ()):  # speech without text too
        batches.append(replace(batches[0], fields={"speech": batches[0]["speech"]}))
    before = {key: value.clone() for key, value in model.named_parameters()}
    for update in range(2):
        model.set_update(update)
        freezing(update)
        for batch in batches:
            losses, counts = model.loss(batch, update), model.counts(batch)
            assert {key: count for key, (_, count) in losses.items()}.items() <= counts.items()
            trained = [key for key in model.weights if key in losses]
            assert ("ctc" in trained) == ("ctc" in model.weights and "tokens" in batch)
            total = sum(model.weights[key] * losses[key][0] / losses[key][1] for key in trained)
            assert total.isfinite()
            total.backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert changed, "it learns"
    if config.freeze:
        assert not [key for key in changed if key.startswith("encoder.")]


MEANS = {  # the paper's averages, which its tables print
    ("one_to_one", "unispeech"): 14.2,
    ("one_to_one", "unispeech_plus_large"): 7.7,
    ("one_to_one", "ctc_transfer"): 15.7,
    ("many_to_one", "unispeech"): 12.9,
    ("many_to_one", "xlsr_plus"): 11.4,
    ("many_to_many_shared", "unispeech_plus"): 10.7,
    ("many_to_many_separate", "xlsr"): 15.4,
}


def test_numbers_of_the_paper_have_its_means():
    table, _ = read_yaml(RECIPE / "conf/paper.yaml")
    for (setting, model), mean in MEANS.items():
        rates = table[setting][model].values()
        assert sum(rates) / len(rates) == pytest.approx(mean, abs=0.06), (setting, model)
    for setting, models in table.items():
        for rates in models.values():
            assert list(rates) == (["es", "fr", "it"] if setting == "one_to_one" else []) + [
                "ky", "nl", "ru", "sv", "tt"
            ]  # fmt: skip


def test_systems_of_a_setting(tmp_path):
    out = tmp_path / "systems.yaml"
    command = ["python", "local/systems.py", "conf/systems.yaml", out, "--setting", "many_to_one"]
    command += ["--sources", "en,es", "--targets", "ky", "--source-vocabulary", "separate"]
    done = run(RECIPE, *command, "--methods", "unispeech,unispeech_plus,unispeech_sequential")
    assert done.returncode == 0, done.stderr
    systems = read_systems(out, "w").systems
    first, plus, second = (
        f"pretrained_unispeech{end}" for end in ("_en_es", "_plus_en_es_and_ky", "_sequential_en_es_and_ky")
    )
    assert [name for name in systems if name.startswith("pre")] == [first, plus, second]
    labelled = ["w/dump/en_labelled_separate", "w/dump/es_labelled_separate"]
    assert systems[first].train_sets == labelled
    assert systems[plus].train_sets == [*labelled, "w/dump/ky_unlabelled"]
    assert systems[second].train_sets == ["w/dump/ky_unlabelled"] and systems[second].init_encoder == first
    assert f"w/exp/{first}/seed" in systems[second].options[0]
    tuned = systems["finetuned_unispeech_plus_en_es_to_ky"]
    assert tuned.paper == {"greedy": {"ky_test_shared": 6.2}} and tuned.init_encoder == plus
    assert tuned.train_sets == ["w/dump/ky_train_shared"] and tuned.dev_set == "w/dump/ky_dev_shared"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The recipe and the corpus in miniature."""
    folder = tmp_path_factory.mktemp("commonvoice")
    make_commonvoice(folder)
    options = ("--corpus-dir", folder / "cv", "--splits", folder / "lists")
    return copy("commonvoice/unispeech1", folder), options


def table_of(recipe):
    """The lines of RESULTS.md that begin with a model."""
    lines = (recipe / "quick/RESULTS.md").read_text().splitlines()
    return [line for line in lines if line.startswith(("| UniSpeech", "| XLSR", "| CTC"))]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_to_one_in_miniature(world):
    recipe, options = world
    stages(recipe, *options, "--targets", "ky,nl", "--methods", "unispeech", timeout=800)
    (row,) = table_of(recipe)
    assert (
        row.startswith("| UniSpeech, greedy | ") and "(11.4)" in row and "(16.2)" in row and "(13.8)" in row
    )
    exp = recipe / "quick/exp"
    assert sorted(path.name for path in exp.glob("*tuned*")) == [
        "finetuned_unispeech_en_to_ky", "finetuned_unispeech_en_to_nl"
    ]  # fmt: skip
    assert "12 utterances" in (exp / "pretrained_unispeech_en/seed1/train.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_to_many_in_miniature(world):
    recipe, options = world
    setting = (
        "--setting",
        "many_to_many",
        "--vocabulary",
        "separate",
        "--sources",
        "en,es",
        "--targets",
        "ky,nl",
    )
    stages(
        recipe, *options, *setting, "--methods", "ctc_transfer,xlsr_plus,unispeech_sequential", timeout=800
    )
    assert len([row for row in table_of(recipe) if "own_language" in row]) == 3
    exp = recipe / "quick/exp"
    log = (exp / "finetuned_unispeech_sequential_en_es_to_ky_nl_separate/seed1/train.log").read_text()
    assert "encoder from quick/exp/pretrained_unispeech_sequential_en_es_and_ky_nl/seed1/final" in log
    phones = (recipe / "quick/data/tokens/ky_nl_separate/tokens.txt").read_text()
    assert "(ky)" in phones and "(nl)" in phones and "(en)" not in phones
