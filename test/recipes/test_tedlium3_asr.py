"""TED-LIUM 3: its STM files, the published values, and every stage in miniature."""

import json
import re
from collections import Counter

import miniature_corpora as mini
import pytest
import soundfile
from factories import waveform
from recipes import test_commonvoice_unispeech
from recipes.large_recipe import ROOT, copy, program, run, stages, texts

from speechkit.config import load_config
from speechkit.errors import InputError
from speechkit.systems import read_systems, select
from speechkit.train.run import RunConfig

RECIPE = ROOT / "egs/tedlium3/asr1"
TALKS = {
    "train": ("AnnFoo_2010X", "BobBar_2009P", "CalBaz_2011"),
    "dev": ("DanaQux_2008",),
    "test": ("EveQuux_2012",),
}
GAP = "{talk} 1 inter_segment_gap 0 0.4 <o,,unknown> ignore_time_segment_in_scoring\n"
LINES = (
    "{talk} 1 {talk} 0.40 2.60 <o,f0,female> it 's not too late\n",
    "{talk} 1 {talk} 2.60 4.85 <NA> <unk> we 're here {NOISE} and(2) see\n",
    "{talk} 1 {talk} 4.85 5.00 <F0_M> <unk>\n",
    "{talk} 1 {talk} 5 7.5 <o,f0,male> Give him back his ' zebra <unk>\n",
    "{talk} 1 {talk} 7.50 7.60 <o,,unknown> ignore_time_segment_in_scoring\n",
)
HEARD = {
    "0000040-0000260": "it's not too late",
    "0000260-0000485": "we're here and see",
    "0000500-0000750": "give him back his zebra",
}


def make_tedlium(folder):
    """<folder>/TEDLIUM_release-3/legacy/<set>/{sph,stm}, SPHERE of 16 kHz."""
    root = folder / "TEDLIUM_release-3"
    for seed, (part, talk) in enumerate((part, talk) for part, talks in TALKS.items() for talk in talks):
        for kind in ("sph", "stm"):
            (root / f"legacy/{part}/{kind}").mkdir(parents=True, exist_ok=True)
        audio = root / f"legacy/{part}/sph/{talk}.sph"
        soundfile.write(audio, waveform(7.6, seed=900 + seed), 16000, format="NIST", subtype="PCM_16")
        lines = "".join((GAP, *LINES)).replace("{talk}", talk)
        (root / f"legacy/{part}/stm/{talk}.stm").write_text(lines)
    return root


@pytest.fixture
def corpus(tmp_path):
    return make_tedlium(tmp_path)


def test_segments_become_data_directories(corpus, tmp_path, capsys):
    prepare = program(RECIPE / "local/data.py").prepare
    prepare(corpus, tmp_path / "data")
    for part, talks in TALKS.items():
        expected = {f"{talk}-{times}": text for talk in talks for times, text in HEARD.items()}
        assert texts(tmp_path / f"data/{part}/text") == expected
    segments = texts(tmp_path / "data/dev/segments")
    assert segments["DanaQux_2008-0000260-0000485"] == "DanaQux_2008 2.6 4.85"
    assert texts(tmp_path / "data/dev/utt2spk")["DanaQux_2008-0000040-0000260"] == "DanaQux_2008"
    assert texts(tmp_path / "data/test/wav.scp") == {
        "EveQuux_2012": str(corpus / "legacy/test/sph/EveQuux_2012.sph")
    }
    counts = dict(
        line.split("\t") for line in (tmp_path / "data/train/left_out.txt").read_text().splitlines()
    )
    assert counts == {
        "inter_segment_gap": "3",
        "ignore_time_segment_in_scoring": "3",
        "without words": "3",
        "<unk>": "9",
        "{noise}": "3",
    }
    assert "train: 9 segments of 3 talks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "heard", "tags"),
    [
        ("you 're", "you're", {}),
        ("the dogs ' tails", "the dogs tails", {}),
        ("[COUGH] Oh {UH} <sil> well(3) <unk>", "oh well", {"[cough]": 1, "{uh}": 1, "<sil>": 1, "<unk>": 1}),
        ("rock 'n' roll ' s", "rock'n' roll s", {}),
        ("<unk> {NOISE}", "", {"<unk>": 1, "{noise}": 1}),
    ],
)
def test_words_are_cleaned(said, heard, tags):
    assert program(RECIPE / "local/data.py").clean(said) == (heard, Counter(tags))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T 1 T 0 1\n", r"T\.stm:2: expected: talk channel"),
        ("T 1 T 0 1 words without labels\n", r"T\.stm:2: expected: talk channel"),
        ("T 1 T zero 1 <NA> words\n", r"T\.stm:2: 'zero 1' are no times"),
        ("T 1 T 3 2 <NA> words\n", r"T\.stm:2: no segment lasts from 3 to 2 s"),
        ("T 1 T 0 nan <NA> words\n", r"T\.stm:2: no segment lasts from 0 to nan s"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, line, message):
    (tmp_path / "T.stm").write_text(f";; a comment\n{line}")
    with pytest.raises(InputError, match=message):
        program(RECIPE / "local/data.py").read_stm(tmp_path / "T.stm", Counter())


def test_what_is_not_complete_is_refused(corpus, tmp_path):
    data = program(RECIPE / "local/data.py")
    stm = corpus / "legacy/dev/stm/DanaQux_2008.stm"
    stm.write_text(stm.read_text().replace("DanaQux_2008 1", "Other_2001 1"))
    with pytest.raises(InputError, match="Other_2001 has no recording"):
        data.prepare(corpus, tmp_path / "data")
    stm.write_text(LINES[0].replace("{talk}", "DanaQux_2008") * 2)
    with pytest.raises(InputError, match="has two segments at"):
        data.prepare(corpus, tmp_path / "data")
    stm.unlink()
    with pytest.raises(InputError, match=r"no stm/DanaQux_2008\.stm; .* not complete"):
        data.prepare(corpus, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    done = run(RECIPE, "python", "local/data.py", tmp_path, tmp_path / "data")
    assert done.returncode == 1 and "names the folder TEDLIUM_release-3" in done.stderr.splitlines()[-1]


def test_values_are_the_published_ones():
    unispeech, transfer, finetune = (
        load_config(RunConfig, RECIPE / f"conf/{name}.yaml")
        for name in ("pretrain_unispeech", "pretrain_ctc", "train_finetune")
    )
    model = unispeech.model
    assert (model.alpha, model.replace, model.diversity_weight, model.penalty_weight) == (0.5, 0.5, 0.1, 0)
    assert (model.mask.probability / model.mask.length, model.mask.length) == (0.05, 10)
    assert (model.quantizer.groups, model.quantizer.entries) == (2, 320)
    assert (model.contrastive.negatives, model.contrastive.temperature) == (100, 0.1)
    assert (unispeech.loop.max_updates, unispeech.schedule.warmup, unispeech.optim.lr) == (400_000, 0.1, 5e-4)
    assert unispeech.plan.seconds * 16000 == 1_400_000 and unispeech.plan.crop_seconds is None
    for part in ("plan", "optim", "schedule", "loop"):
        assert getattr(transfer, part) == getattr(unispeech, part), "CTC-Transfer hears and does the same"
    assert transfer.model.encoder == model.encoder
    time = transfer.model.masking.time
    assert (time.probability, time.length) == (model.mask.probability, model.mask.length)
    assert (finetune.loop.max_updates, finetune.plan.micro_batches) == (320_000, 8)
    assert finetune.model.encoder.feature_grad_mult == 0 and finetune.optim.lr == 1e-4


@pytest.mark.parametrize("name", ["unispeech", "ctc"])
def test_pretraining_takes_two_steps(name, tmp_path):
    path = RECIPE / f"conf/pretrain_{name}.yaml"
    test_commonvoice_unispeech.test_a_configuration_takes_two_steps(path, tmp_path)


def test_every_encoder_is_fine_tuned_alike():
    systems = read_systems(RECIPE / "conf/systems.yaml")
    tuned = [
        select(systems, name)[name]
        for name in ("wav2vec2", "ctc_transfer", "ctc_transfer_phones", "unispeech")
    ]
    assert {(s.train, s.tokenizer, tuple(s.options)) for s in tuned} == {
        ("conf/train_finetune.yaml", None, ())
    }
    tokens = {s.init_encoder: systems.systems[s.init_encoder].tokenizer for s in tuned}
    assert tokens == {
        "read_wav2vec2": None,
        "read_characters": "data/tokens/char",
        "read_phones": "data/tokens/phone",
        "read_unispeech": "data/tokens/phone",
    }
    paper = {name: s.paper["greedy"] for name, s in systems.systems.items() if s.paper}
    assert paper["unispeech"] == {"dev": 7.6, "test": 7.6} and paper["ctc_transfer"]["test"] == 8.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_in_miniature(tmp_path):
    corpus = make_tedlium(tmp_path)
    mini.make_librispeech(tmp_path)
    copy("librispeech/asr1", tmp_path)
    copy("librispeech/ssl1", tmp_path)
    recipe = copy("tedlium3/asr1", tmp_path)
    (tmp_path / "egs/aishell/asr1/conf").mkdir(parents=True)
    conformer = "aishell/asr1/conf/train_conformer.yaml"
    (tmp_path / "egs" / conformer).write_text((ROOT / "egs" / conformer).read_text())
    said = stages(recipe, "--corpus-dir", corpus, "--librispeech-dir", tmp_path / "LibriSpeech", timeout=800)
    assert "finished stages 0 1 2 3 4 5 6 7 8" in said

    quick = recipe / "quick"
    letters = {line.split()[0] for line in (quick / "data/tokens/char/tokens.txt").open()}
    assert {"z", "q", "'"} <= letters and not any(re.fullmatch("[A-Z]", letter) for letter in letters)
    phones = {line.split()[0] for line in (quick / "data/tokens/phone/tokens.txt").open()}
    assert {"ɹ", "z"} <= phones and "q" not in phones
    spelt = texts(quick / "dump/librispeech_phn/train_clean_100/text")
    assert spelt.keys() == texts(quick / "dump/librispeech/train_clean_100/text").keys()
    assert soundfile.info(next((quick / "dump/test/audio").rglob("*.*"))).samplerate == 16000

    for system in ("logmel", "wav2vec2", "ctc_transfer", "unispeech"):
        for part in ("dev", "test"):
            result = json.loads((quick / f"exp/{system}/seed1/decode_{part}_greedy/result.json").read_text())
            assert result["counts"]["words"] == sum(len(text.split()) for text in HEARD.values())
    log = (quick / "exp/unispeech/seed1/train.log").read_text()
    assert "encoder from quick/exp/read_unispeech/seed1/final" in log
    rows = [json.loads(line) for line in (quick / "exp/read_unispeech/seed1/metrics.jsonl").open()]
    assert any("ctc_per_token" in row and "code_perplexity" in row for row in rows)
    results = (quick / "RESULTS.md").read_text()
    assert "unispeech" in results and "ctc_transfer" in results
