"""Mandarin pre-training: readers of the open corpora, and every stage in miniature."""

import json

import miniature_corpora as mini
import pytest
import torch
from factories import make_wave
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from recipes.test_configs import Letters

from speechkit.config import load_config, load_kind
from speechkit.errors import InputError
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/mandarin/ssl1"
OTHERS = {
    "aishell3": (mini.make_aishell3, "aishell3"),
    "aidatatang_200zh": (mini.make_aidatatang, "."),
    "magicdata": (mini.make_magicdata, "magicdata"),
    "primewords": (mini.make_primewords, "primewords"),
    "stcmds": (mini.make_stcmds, "stcmds"),
    "thchs_30": (mini.make_thchs30, "thchs"),
}


def test_every_corpus_is_read(tmp_path):
    made = mini.make_aishell(tmp_path, seconds=0.5)
    names = {name: make(tmp_path, seconds=0.5) for name, (make, _) in OTHERS.items()}
    make_wave(tmp_path / "didi/speaker1/a.wav", 0.5)
    corpora = {name: tmp_path / folder for name, (_, folder) in OTHERS.items()}
    corpora |= {"aishell": tmp_path / "aishell", "didispeech": tmp_path / "didi"}
    program(RECIPE / "local/data.py").prepare(tmp_path / "data", corpora)
    for name, ids in names.items():
        data = tmp_path / "data/pretrain" / name
        assert {line.split()[0] for line in (data / "utt2spk").read_text().splitlines()} == {
            f"{name}-{utterance}" for utterance in ids
        }
        assert (data / "lost.txt").read_text() == ""
    for part, place in (("train", "pretrain/aishell"), ("dev", "dev"), ("test", "test")):
        assert texts(tmp_path / "data" / place / "text") == made[part]
    assert (tmp_path / "data/pretrain/didispeech/utt2spk").read_text().startswith("didispeech-speaker1-a ")
    assert not (tmp_path / "data/pretrain/didispeech/text").exists()
    assert set(texts(tmp_path / "data/pretrain/magicdata/text").values()) == {"今天天气很好"}


def test_what_is_missing_is_said(tmp_path):
    prepare = program(RECIPE / "local/data.py").prepare
    made = mini.make_aishell(tmp_path, seconds=0.5)
    with pytest.raises(InputError, match="AISHELL-1 is needed"):
        prepare(tmp_path / "data", {"stcmds": tmp_path})
    aishell = {"aishell": tmp_path / "aishell"}
    with pytest.raises(InputError, match="no corpus 'stcmd'; did you mean 'stcmds'"):
        prepare(tmp_path / "data", {"stcmd": tmp_path, **aishell})
    with pytest.raises(InputError, match="prepare_magicdata cannot read it"):
        prepare(tmp_path / "data", {"magicdata": tmp_path, **aishell})
    assert not (tmp_path / "data").exists()
    table = tmp_path / "aishell/data_aishell/transcript/aishell_transcript_v0.8.txt"
    gone = min(made["train"])
    table.write_text("".join(line for line in table.open() if not line.startswith(gone)))
    prepare(tmp_path / "data", aishell)
    assert f"No transcript: {gone}" in (tmp_path / "data/pretrain/aishell/lost.txt").read_text()
    assert gone not in texts(tmp_path / "data/pretrain/aishell/text")
    done = run(RECIPE, "python", "local/data.py", tmp_path / "other", "stcmds=/nowhere")
    assert done.returncode == 1 and done.stderr.startswith("local/data.py: error: AISHELL-1")


def test_values_are_those_of_the_paper():
    config = load_config(RunConfig, RECIPE / "conf/pretrain_base.yaml")
    assert config.plan.seconds * 16000 == 1_400_000 and config.plan.micro_batches == 8 * 8
    assert config.loop.max_updates == 400_000
    with torch.device("meta"):
        built = load_kind(MODELS, config.model.name).build(config.model, Assets(Letters()))
    assert sum(parameter.numel() for parameter in built.encoder.parameters()) == 94_371_712
    config = load_config(RunConfig, RECIPE / "conf/finetune.yaml")
    assert config.plan.seconds * 16000 == 640_000 and config.plan.micro_batches == 4
    schedule, updates = config.schedule, config.loop.max_updates
    stages = [share * updates for share in (schedule.warmup, schedule.hold)]
    assert stages == [10_000, 90_000] and updates == 200_000 and config.validation.metric == "cer"
    continued = load_config(RunConfig, RECIPE / "conf/pretrain_continued.yaml")
    assert continued.model.quantizer.temperature(0) == continued.model.quantizer.temperature_end == 0.5


def make_checkpoint(folder):
    """A pre-trained model as Hugging Face saves it, with random weights: encoder, quantizer, projections."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, codevector_dim=256,
        proj_codevector_dim=256,
    )  # fmt: skip
    transformers.Wav2Vec2ForPreTraining(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_in_miniature(tmp_path):
    mini.make_aishell(tmp_path, seconds=2.2)
    corpora = [f"aishell:{tmp_path / 'aishell'}"]
    for name in ("stcmds", "thchs_30"):
        make, folder = OTHERS[name]
        make(tmp_path)
        corpora.append(f"{name}:{tmp_path / folder}")
    recipe = copy("mandarin/ssl1", tmp_path)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    options = ["--corpora", ",".join(corpora), "--checkpoint", checkpoint, "--methods", "base*,continued*"]
    stages(recipe, *options, timeout=800)
    exp = recipe / "quick/exp"
    for system in ("base", "continued", "continued_encoder"):
        assert "20 utterances" in (exp / f"{system}/seed1/train.log").read_text(), "three corpora"
        result = json.loads((exp / f"{system}_aishell/seed1/decode_test_greedy/result.json").read_text())
        assert result["cer"]["counts"]["characters"] == sum(len(t.replace(" ", "")) for t in mini.CHINESE)
    log = (exp / "continued/seed1/train.log").read_text()
    assert "encoder from quick/exp/downloaded/seed1/final" in log
    assert all(f"final:{name}:{name}" in log for name in ("quantizer.", "project_q.", "project_hid."))
    assert "CER %" in (recipe / "quick/RESULTS.md").read_text()
