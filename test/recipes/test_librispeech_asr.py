"""LibriSpeech with a checkpoint from elsewhere: its parts, downloads, and every stage in miniature."""

import hashlib
import json
import tarfile

import miniature_corpora as mini
import pytest
import torch
from bert_folders import SPECIAL, write_bert
from recipes.large_recipe import ROOT, copy, program, run, stages, texts
from unit.data.test_download import web  # noqa: F401

from speechkit.errors import InputError

RECIPE = ROOT / "egs/librispeech/asr1"
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """LibriSpeech in miniature; the folder and the texts of each part."""
    folder = tmp_path_factory.mktemp("corpora")
    return folder, mini.make_librispeech(folder, ("train-clean-100", *list(mini.LIBRISPEECH)[3:]))


def test_parts_become_data_directories(corpora, tmp_path):
    folder, made = corpora
    done = run(RECIPE, "python", "local/data.py", folder / "LibriSpeech", tmp_path / "data", *made)
    assert done.returncode == 0, done.stderr
    for part, expected in made.items():
        data = tmp_path / "data" / part.replace("-", "_")
        assert texts(data / "text") == expected
        assert (data / "lost.txt").read_text() == ""
        speakers = {line.split()[0] for line in (data / "spk2utt").read_text().splitlines()}
        assert speakers == {str(speaker) for speaker in mini.LIBRISPEECH[part]}


def test_only_a_training_part_may_lack_recordings(tmp_path, capsys):
    mini.make_librispeech(tmp_path, ("train-clean-100", "dev-clean"), seconds=0.5)
    corpus = tmp_path / "LibriSpeech"
    for path in ("train-clean-100/19/1019/19-1019-0001.flac", "dev-clean/84/1084/84-1084-0002.flac"):
        (corpus / path).unlink()
    prepare = program(RECIPE / "local/data.py").prepare
    prepare(corpus, tmp_path / "data", ["train-clean-100"])
    assert "9 utterances, 2 speakers; 1 left out" in capsys.readouterr().out
    assert "19-1019-0001.flac" in (tmp_path / "data/train_clean_100/lost.txt").read_text()
    with pytest.raises(InputError, match=r"not complete.*84-1084-0002"):
        prepare(corpus, tmp_path / "data", ["dev-clean"])
    for part, said in (("dev-clear", "no part 'dev-clear'"), ("test-clean", "no such folder; --corpus-dir")):
        with pytest.raises(InputError, match=said):
            prepare(corpus, tmp_path / "other", [part])
    assert not (tmp_path / "data/dev_clean").exists() and not (tmp_path / "other").exists()


def test_a_part_is_downloaded_verified_and_unpacked(tmp_path, web, monkeypatch, capsys):  # noqa: F811
    fetching, reading = (program(RECIPE / f"local/{name}.py") for name in ("download", "data"))
    assert set(fetching.SHA256) == set(mini.LIBRISPEECH) == set(reading.PARTS)
    assert {len(checksum) for checksum in fetching.SHA256.values()} == {64}
    _, url, served = web
    mini.make_librispeech(tmp_path, ("dev-clean",), seconds=0.3)
    with tarfile.open(served / "dev-clean.tar.gz", "w:gz") as tar:  # as openslr.org packs it
        tar.add(tmp_path / "LibriSpeech", "LibriSpeech")
    out = tmp_path / "out"
    with pytest.raises(InputError, match="another checksum"):
        fetching.fetch(out, ["dev-clean"], url)
    assert list(out.iterdir()) == []
    checksum = hashlib.sha256((served / "dev-clean.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setitem(fetching.SHA256, "dev-clean", checksum)
    for _ in range(2):
        fetching.fetch(out, ["dev-clean"], url)
    assert [path.name for path in out.iterdir()] == ["LibriSpeech"]
    assert len(list((out / "LibriSpeech/dev-clean").rglob("*.flac"))) == 10
    assert "is there" in capsys.readouterr().err


def make_checkpoint(folder):
    """A CTC model as Hugging Face saves it, with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, vocab_size=len(LETTERS), pad_token_id=0,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    return folder


def test_stage_4_asks_for_a_checkpoint(tmp_path):
    done = run(copy("librispeech/asr1", tmp_path), "./run.sh", "--stage", "4", "--stop-stage", "4")
    assert done.returncode == 2 and "--checkpoint: name a Hugging Face folder" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_stage_in_miniature(corpora, tmp_path):
    folder, made = corpora
    copy("librispeech/ssl1", tmp_path)
    recipe = copy("librispeech/asr1", tmp_path)
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    options = ["--corpus-dir", folder / "LibriSpeech", "--checkpoint", checkpoint]
    options += ["--methods", "downloaded,base_100h"]
    stages(recipe, *options, timeout=500)
    table = (recipe / "quick/RESULTS.md").read_text()
    for row in ("downloaded | greedy", "downloaded | ngram", "base_100h | greedy"):
        assert table.count(f"| {row} |") == 4, "a row for each set"
    exp = recipe / "quick/exp"
    result = json.loads((exp / "downloaded/seed1/decode_test_clean_ngram/result.json").read_text())
    words = sum(len(text.split()) for text in made["test-clean"].values())
    assert result["counts"]["words"] == words
    vocabulary = set((recipe / "quick/data/lm/words").read_text().split())
    heard = words_of(exp / "downloaded/seed1/decode_test_clean_ngram/text")
    assert heard and heard <= vocabulary

    again = stages(recipe, *options, "--stage", "2", "--stop-stage", "4")
    assert again.count("is up to date") >= 7  # five sets, tokens, the model of language, the checkpoint


def words_of(table):
    """All words of a decode."""
    return {word for line in table.read_text().splitlines() for word in line.split()[1:]}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_las_and_transducers_learn_from_a_bert_in_miniature(corpora, tmp_path):
    folder, _ = corpora
    copy("librispeech/ssl1", tmp_path)
    recipe = copy("librispeech/asr1", tmp_path)
    letters = [letter for plain in "abcdefghijklmnopqrstuvwxyz'" for letter in (plain, f"##{plain}")]
    pieces = [*SPECIAL, *letters, "sea", "fox", "late", "##ter"]
    bert = write_bert(
        tmp_path / "bert", pieces, tokenizer={"do_lower_case": True}, max_position_embeddings=64
    )
    options = [
        "--corpus-dir",
        folder / "LibriSpeech",
        "--checkpoint",
        make_checkpoint(tmp_path / "checkpoint"),
    ]
    options += ["--bert", bert, "--subwords", "40", "--methods", "las_*,transducer_*,conformer_xl,downloaded"]
    stages(recipe, *options, timeout=1300)
    exp, table = recipe / "quick/exp", (recipe / "quick/RESULTS.md").read_text()
    names = [
        "las_own",
        "las_0.25",
        "transducer_0.01",
        "transducer_conformer_xl_0",
        "transducer_wav2vec2_0.01",
    ]
    for name in names:
        how = "attention" if name.startswith("las") else "transducer"
        assert f"| {name} | {how} |" in table
        values = [json.loads(line) for line in (exp / name / "seed1/metrics.jsonl").open()]
        taught = any("embedding" in key for row in values for key in row)
        assert taught == (name not in ("las_own", "transducer_conformer_xl_0"))
    assert not any("regression" in key for key in weights_of(exp / "transducer_0.01/seed1/final"))
    pieces = [line.split()[0] for line in (recipe / "quick/data/tokens/bert/tokens.txt").open()]
    assert pieces[-3:] == ["[CLS]", "[SEP]", "<sos/eos>"] and len(pieces) > 50


def weights_of(folder):
    """Names of the weights of a finished model."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())
