"""AISHELL-1: its reader, its download, the published values, and every stage in miniature."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import miniature_corpora as mini
import pytest
import soundfile
from bert_folders import SPECIAL, write_bert
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from recipes.test_mandarin_ssl import make_checkpoint
from unit.data.test_download import web  # noqa: F401

from speechkit.config import differences, load_config, to_dict
from speechkit.decoding import DecodeConfig
from speechkit.errors import InputError
from speechkit.fusion.gold_rate import GoldRate
from speechkit.systems import read_systems
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/aishell/asr1"
TRANSCRIPT = "aishell/data_aishell/transcript/aishell_transcript_v0.8.txt"


@pytest.fixture
def corpus(tmp_path):
    """AISHELL-1 in miniature; its folder and its texts."""
    return tmp_path / "aishell", mini.make_aishell(tmp_path, seconds=0.4)


def rewrite(path, old, new):
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def test_sets_become_data_directories(corpus, tmp_path, capsys):
    folder, made = corpus
    untold, latin = "BAC009S0003W0122", "BAC009S0002W0121"
    made["train"].pop(untold)
    rewrite(tmp_path / TRANSCRIPT, f"{untold} 我们 去 看 海\n", "")
    rewrite(tmp_path / TRANSCRIPT, f"{latin} 今天", f"{latin} ｋtv")
    made["train"][latin] = "KTV天气很好"  # lhotse's capitals; the tokenizer's normaliser makes them small
    program(RECIPE / "local/data.py").prepare(folder, tmp_path / "data")
    for name, expected in made.items():
        assert texts(tmp_path / "data" / name / "text") == expected
        lost = (tmp_path / "data" / name / "lost.txt").read_text().splitlines()
        assert [untold in line for line in lost] == ([True] if name == "train" else [])
    assert "data/train: 14 utterances, 3 speakers; 1 left out" in capsys.readouterr().out


def test_an_incomplete_copy_is_refused(corpus, tmp_path):
    folder, _ = corpus
    prepare = program(RECIPE / "local/data.py").prepare
    with pytest.raises(InputError, match="--corpus-dir names the folder of data_aishell"):
        prepare(folder / "data_aishell", tmp_path / "data")
    wav = folder / "data_aishell/wav"
    (wav / "dev/S0724/BAC009S0724W0123.wav").unlink()
    with pytest.raises(
        InputError, match="1 transcripts have no recording, the first is BAC009S0724W0123; copy"
    ):
        prepare(folder, tmp_path / "data")
    shutil.rmtree(wav / "dev")
    (wav / "S0724.tar.gz").touch()  # as it lies there before it is unpacked
    with pytest.raises(InputError, match="5 transcripts have no .*; unpack S0724.tar.gz and the like"):
        prepare(folder, tmp_path / "data")
    table = tmp_path / TRANSCRIPT
    table.write_text("".join(line for line in table.open() if "S0724" not in line))
    with pytest.raises(InputError, match="wav/dev: no recording in it"):
        prepare(folder, tmp_path / "data")
    done = run(RECIPE, "python", "local/data.py", tmp_path, tmp_path / "data")
    assert done.returncode == 1 and done.stderr.startswith("local/data.py: error: ")
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "data").exists()


def test_a_truncated_recording_stops_the_formatting_of_its_set(corpus, tmp_path):
    folder, _ = corpus
    path = folder / "data_aishell/wav/test/S0764/BAC009S0764W0122.wav"
    path.write_bytes(path.read_bytes()[:5000])
    program(RECIPE / "local/data.py").prepare(folder, tmp_path / "data")
    command = ["speechkit", "format", "--data", tmp_path / "data/test", "--out", tmp_path / "dump/test"]
    done = run(tmp_path, *command, "--kind", "evaluation", "--jobs", "1")
    assert done.returncode == 1 and not (tmp_path / "dump/test").exists()
    assert "BAC009S0764W0122: truncated audio" in done.stderr and "copy or record it again" in done.stderr


def test_the_release_is_downloaded_verified_and_unpacked(corpus, tmp_path, web, monkeypatch):  # noqa: F811
    folder, made = corpus
    fetching = program(RECIPE / "local/download.py")
    assert fetching.URL == "https://www.openslr.org/resources/33/data_aishell.tgz" and len(fetching.MD5) == 32
    _, url, served = web
    mini.pack_aishell(tmp_path, served / "data_aishell.tgz")
    with pytest.raises(InputError, match="another checksum"):
        fetching.fetch(tmp_path / "out", f"{url}/data_aishell.tgz")
    checksum = hashlib.md5((served / "data_aishell.tgz").read_bytes()).hexdigest()
    monkeypatch.setattr(fetching, "MD5", checksum)
    fetching.fetch(tmp_path / "out", f"{url}/data_aishell.tgz")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data_aishell"]
    assert not list((tmp_path / "out").rglob("*.tar.gz")), "the speakers' archives are unpacked"
    program(RECIPE / "local/data.py").prepare(tmp_path / "out", tmp_path / "data")
    assert texts(tmp_path / "data/test/text") == made["test"]


def test_values_are_those_of_the_paper():
    config = load_config(RunConfig, RECIPE / "conf/train_wav2vec2.yaml")
    assert config.plan.seconds * 16000 == 640_000 and config.plan.micro_batches == 4
    schedule, updates = config.schedule, config.loop.max_updates
    assert [share * updates for share in (schedule.warmup, schedule.hold)] == [10_000, 90_000]
    assert (updates, config.optim.lr, schedule.final, config.plan.min_seconds) == (200_000, 5e-5, 0.05, 0.5)
    time, channels = config.model.masking.time, config.model.masking.channels
    assert (time.probability, time.length, channels.probability, channels.length) == (0.65, 10, 0.5, 64)
    assert [(rule.pattern, rule.until) for rule in config.freeze] == [("encoder.*", 10_000)]
    decode = load_config(DecodeConfig, RECIPE / "conf/decode_ngram.yaml")
    assert decode.search.beam == 50 and decode.search.lm_unit == "token"
    assert (decode.grid["lm_weight"][-1], len(decode.grid["lm_weight"])) == (3.0, 13)
    assert (decode.grid["word_bonus"][0], len(decode.grid["word_bonus"])) == (-2.0, 9)


def read_system(recipe, name, systems="systems.yaml"):
    """The training configuration of a system, its options included."""
    system = read_systems(recipe / "conf" / systems).systems[name]
    return load_config(RunConfig, recipe / system.train, system.options)


def test_systems_with_a_bert_are_trained_as_the_ctc_that_they_are_compared_with():
    ctc = load_config(RunConfig, RECIPE / "conf/train_wav2vec2.yaml")
    wavbert, adapter, cif, replaced = (
        load_config(RunConfig, RECIPE / f"conf/train_{name}.yaml")
        for name in ("wavbert", "adapter_bert", "cif_bert", "embedding_replacement")
    )
    for config in (wavbert, adapter, cif, replaced):
        assert config.model.units == "shared" and config.model.bert.init == "pretrained"
        for part in ("plan", "optim", "schedule", "loop", "validation", "checkpoints"):
            assert getattr(config, part) == getattr(ctc, part)
    for config in (wavbert, adapter, replaced):
        assert config.model.encoder == ctc.model.encoder and config.model.masking == ctc.model.masking
        assert config.freeze == ctc.freeze
    model, sampling = wavbert.model, wavbert.model.linguistic.sampling
    assert [round(sampling.p(s), 9) for s in (0, 40_000, 70_000, 100_000, 200_000)] == [
        0.9,
        0.9,
        0.5,
        0.1,
        0.1,
    ]
    assert vars(model.weights) == {"ctc": 0.5, "cmlm": 0.5, "ctc2": 0.5, "ce": 0.5, "text": 0.0}
    assert model.embedding_attention is not None
    for part in (
        model.embedding_attention,
        model.aggregation,
        adapter.model.adapters,
        replaced.model.aggregation,
    ):
        assert (part.heads, part.feed_forward) == (8, 2048)
    assert (replaced.model.replacement.max_len, replaced.model.replacement.layers) == (60, 3)
    assert adapter.model.label_smoothing == 0.1 and not adapter.model.freeze_bert

    assert replace(cif.model.encoder, feature_grad_mult=1.0) == ctc.model.encoder
    assert cif.model.encoder.feature_grad_mult == 0
    time, channels = cif.model.masking.time, cif.model.masking.channels
    assert (time.probability, time.length, channels) == (0.1, 2, ctc.model.masking.channels)
    gold = GoldRate(cif.model.gold)
    assert [round(gold.rate(s), 9) for s in (0, 10_000, 50_000, 90_000)] == [0.9, 0.9, 0.55, 0.2]
    assert [(rule.pattern, rule.until) for rule in cif.freeze] == [("encoder.*", 10_000), ("bert.*", 10_000)]


def test_variants_differ_from_wavbert_in_one_thing():
    wavbert = to_dict(read_system(RECIPE, "wavbert"))
    differ = {
        "wavbert_acoustic_guided": {"model.aggregation.branches"},
        "wavbert_linguistic_guided": {"model.aggregation.branches"},
        "wavbert_no_gates": {"model.aggregation.gate"},
        "wavbert_truth": {"model.linguistic.sampling.high", "model.linguistic.sampling.low"},
        "wavbert_hypothesis": {"model.linguistic.sampling.high", "model.linguistic.sampling.low"},
        "wavbert_random_bert": {"model.bert.init"},
        "wavbert_masks": {"model.reads"},
        "wavbert_cn": set(),
    }
    for name, keys in differ.items():
        lines = differences(wavbert, to_dict(read_system(RECIPE, name)))
        assert {line.split(":")[0] for line in lines} == keys, name
    assert read_system(RECIPE, "wavbert_no_embedding_attention").model.embedding_attention is None
    said = [
        read_system(RECIPE, f"wavbert_{name}").model.linguistic.sampling for name in ("truth", "hypothesis")
    ]
    assert [[each.p(s) for s in (0, 70_000, 200_000)] for each in said] == [[1, 1, 1], [0, 0, 0]]


def test_rescoring_is_the_papers_and_a_stronger_one():
    plain, both = (
        load_config(DecodeConfig, RECIPE / f"conf/decode_{name}.yaml")
        for name in ("rescore", "ngram_rescore")
    )
    assert (plain.search.beam, plain.search.nbest, plain.search.first_score) == (5, 5, "ctc")
    assert plain.grid == {"bert_weight": [round(0.05 * k, 2) for k in range(21)]}
    assert (both.search.beam, both.search.nbest, both.search.first_score) == (50, 16, "beam")
    decodes = read_systems(RECIPE / "conf/systems.yaml").decodes
    assert decodes["rescore"].lm is None and decodes["ngram_rescore"].lm.endswith("ngram.arpa")


def check_fusion(exp, places):
    """Each place in exp was decoded and scored, by the model's own output; BERT learnt and was asked."""
    for place, sources in places.items():
        folder = exp / place
        rows = [json.loads(line) for line in (folder / "nbest.jsonl").open()]
        assert {each["source"] for row in rows for each in row["nbest"]} == sources, place
        assert json.loads((folder / "result.json").read_text())["cer"]["rate"] >= 0
    said = (exp / "wavbert/seed1/train.log").read_text()
    assert "init bert: " in said and "encoder from " in said
    trained = [json.loads(line) for line in (exp / "wavbert/seed1/metrics.jsonl").open()]
    assert any("truth" in row for row in trained)
    tuned = json.loads(next(exp.glob("*/seed1/decode_test_rescore/decode.json")).read_text())["tuned_on"]
    assert len(tuned["trials"]) == 21 and tuned["set"].endswith("dump/dev")


FUSED = {
    "wavbert/seed1/decode_test_fused": {"ctc2", "ce", "ctc"},
    "cif_bert/seed1/decode_test_fused": {"ce", "ctc"},
    "embedding_replacement/seed1/decode_test_fused": {"hpos", "ce", "ctc"},
    "adapter_bert/seed1/decode_test_mask_predict": {"cmlm"},
}
"""Folder of a decode -> the outputs that its lists hold."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_in_miniature(tmp_path):
    made = mini.make_aishell(tmp_path, seconds=2.2)
    characters = sorted(set("".join(mini.CHINESE)) - {" "})
    vocab = [*SPECIAL, "龘", *characters, "##天", "ktv"]
    tokenizer = {"do_lower_case": False}
    bert = write_bert(tmp_path / "bert", vocab, tokenizer=tokenizer, max_position_embeddings=64)
    recipe = copy("aishell/asr1", tmp_path)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    options = ["--corpus-dir", tmp_path / "aishell", "--bert", bert, "--checkpoint", checkpoint]
    options += ["--methods", "all", "--chinese-checkpoint", checkpoint]
    said = stages(recipe, *options, timeout=1500)
    assert "finished stages 0 1 2 3 4 5 6 7 8" in said
    tokens = [line.split()[0] for line in (recipe / "quick/data/tokens/units/tokens.txt").open()]
    assert tokens[2:-1] == characters, "the pieces of the training text"
    arpa = (recipe / "quick/data/lm/ngram.arpa").read_text()
    unigrams = arpa.split("\\1-grams:")[1].split("\\2-grams:")[0].split("\n")
    assert {line.split("\t")[1] for line in unigrams if "\t" in line} - {"<s>", "</s>", "<unk>"} == set(
        characters
    )
    assert "\\4-grams:" in arpa

    exp = recipe / "quick/exp"
    for system, how in (("conformer", "greedy"), ("conformer", "ngram"), ("wav2vec2", "greedy")):
        folder = exp / system / f"seed1/decode_test_{how}"
        result = json.loads((folder / "result.json").read_text())
        assert result["scored"]["cer_counts_spaces"] is False
        assert result["cer"]["counts"]["characters"] == sum(map(len, made["test"].values()))
        said = (re.sub(" ?<unk> ?", "", line) for line in (folder / "text").open())
        assert all(len(line.split()) <= 2 for line in said), "no spaces in Chinese"
    assert "encoder from quick/exp/downloaded/seed1/final" in (exp / "wav2vec2/seed1/train.log").read_text()
    check_fusion(exp, FUSED)
    assert (exp / "downloaded_cn/seed1/final/model.safetensors").exists()
    assert "CER does not count spaces" in (recipe / "quick/RESULTS.md").read_text()
    assert soundfile.info(next((recipe / "quick/dump/test/audio").rglob("*.wav"))).samplerate == 16000

    without = ["--corpus-dir", tmp_path / "aishell", "--bert", "none", "--stage", "3", "--stop-stage", "3"]
    stages(recipe, *without)
    kind = json.loads((recipe / "quick/data/tokens/units/tokenizer.json").read_text())["kind"]
    assert kind == "char"
