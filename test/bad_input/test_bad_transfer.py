"""Bad input to transducers, attention decoders and knowledge transfer: one line that names the utterance."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from bert_folders import SPECIAL, write_bert
from factories import write_table
from tiny_training import World

from speechkit.bin.__main__ import main
from speechkit.decoding.recognizer import Recognizer
from speechkit.errors import BadSample
from speechkit.text.tokenizer import build_tokenizer
from speechkit.train.checkpoint import checkpoints

WORDS = "one two three four five six seven eight nine zero".split()
ENCODER = "{name: conformer, dim: 8, layers: 1, heads: 2, feed_forward: 8, kernel: 3}"
MODELS = {
    "transducer": {"model__prediction": "{name: stateless, dim: 8}", "model__joint__dim": 8},
    "attention": {
        "model__decoder": "{name: las, embedding: 8, cells: 8, attention_dim: 8, kernel: 3}",
        "model__weights__ctc": 0,
    },
}


def run(world, kind, **changes):
    options = {"model__name": kind, "model__encoder": ENCODER, **MODELS[kind], **changes}
    return world.run("exp", **options, loop__max_updates=1, validation__every=1)


def fails(capsys, world, kind, *said, **changes):
    """A training must end before its first update with one line that holds all of `said`."""
    capsys.readouterr()
    assert run(world, kind, **changes) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("speechkit train: error: "), last
    for part in said:
        assert part in last, last
    assert not checkpoints(world.folder / "exp") and not (world.folder / "exp/metrics.jsonl").exists()


def read(folder):
    return dict(line.split(maxsplit=1) for line in (folder / "text").read_text().splitlines())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, utterances=8, dev=3)


@pytest.fixture
def lesson(world):
    """The same with the words of a tiny BERT as tokens."""
    world.bert = write_bert(world.folder / "bert", vocab=[*SPECIAL, *WORDS])
    tokenizer = build_tokenizer("wordpiece", [" ".join(WORDS)], vocab=world.bert, specials="both")
    world.tokenizer = world.folder / "words"
    tokenizer.save(world.tokenizer)
    return world


def embed(lesson):
    command = ["bert-embed", "--bert", lesson.bert, "--tokenizer", lesson.tokenizer]
    command += ["--out", lesson.folder / "store"]
    return main([*map(str, command), "--text", *(str(d / "text") for d in (lesson.train, lesson.dev))])


@pytest.mark.parametrize("kind", MODELS)
def test_speech_of_which_no_frame_is_left(world, capsys, kind):
    """800 samples: three feature frames, of which the encoder makes none."""
    for folder in (world.train, world.dev):
        wav = sorted((folder / "audio").glob("*.wav"))[0]
        soundfile.write(wav, np.zeros(800, np.float32), 16000)
        counts = dict(line.split() for line in (folder / "utt2num_samples").read_text().splitlines())
        write_table(folder / "utt2num_samples", {**counts, wav.stem: "800"})
    fails(capsys, world, kind, "1 of 8 utterances dropped", "fewer than 1 frames")
    fails(capsys, world, kind, "dev set", wav.stem, "fewer than 1 frames", data__max_dropped=0.5)


@pytest.mark.parametrize("kind", MODELS)
def test_a_text_without_embeddings(lesson, capsys, kind):
    assert embed(lesson) == 0
    transfer = {"model__transfer__store": lesson.folder / "store"}
    texts = read(lesson.dev)
    utterance = sorted(texts)[1]
    write_table(lesson.dev / "text", {**texts, utterance: "nine nine eight seven one"})
    said = f"1 of 3 utterances ({utterance}): {lesson.folder / 'store'} has no embeddings of their texts"
    fails(capsys, lesson, kind, said, "with speechkit bert-embed", **transfer)
    assert embed(lesson) == 0 and run(lesson, kind, **transfer) == 0


def test_a_text_that_bert_cannot_read_whole(lesson, capsys):
    """Its twelve positions are for ten words between [CLS] and [SEP]."""
    texts = read(lesson.train)
    utterance = sorted(texts)[2]
    write_table(lesson.train / "text", {**texts, utterance: " ".join(["one"] * 11)})
    said = f"1 of 8 utterances ({utterance}): more word pieces than the 10"
    fails(capsys, lesson, "attention", said, model__transfer__bert=lesson.bert)
    assert embed(lesson) == 1
    said = f"{lesson.train / 'text'}: utterance {utterance}: 11 word pieces, and the BERT has room for 10"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_that_are_no_numbers(world, kind):
    assert run(world, kind) == 0
    recognizer = Recognizer.load(world.folder / "exp")
    (batch,) = recognizer.batches(world.dev)[1]
    features = batch["features"]
    shortest = int(features.lengths.argmin())
    features.values[shortest, int(features.lengths[shortest]) :] = torch.nan  # padding is not looked at
    recognizer.encode(batch)
    features.values[1, 5] = torch.nan
    with pytest.raises(BadSample, match=f"utterance {batch.ids[1]}: the model's outputs are NaN"):
        recognizer.encode(batch)
