"""Systems with a BERT from the command line: two updates, a checkpoint, and text from it."""

import json

import pytest
import torch
from bert_folders import SPECIAL, write_bert
from factories import WORDS, waveform
from tiny_text import make_text_set
from tiny_training import World, rows

from speechkit.bin.__main__ import main
from speechkit.config import from_dict
from speechkit.data.collate import collate
from speechkit.decoding import DecodeConfig
from speechkit.decoding.recognizer import Recognizer

ENCODER = {"dim": 16, "layers": 1, "heads": 2, "feed_forward": 32}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    write_bert(world.folder / "bert", [*SPECIAL, *WORDS])
    return world


@pytest.mark.parametrize(
    ("kind", "search", "options"),
    [
        ("adapter_bert", "mask_predict", {"adapters__heads": 2, "adapters__feed_forward": 24}),
        ("cif_bert", "fused", {"ctc_head": "linear", "gold__start": 0, "gold__updates": 2}),
    ],
)
def test_two_updates_and_text(world, kind, search, options):
    """Characters for CTC, words for BERT; the checkpoint needs nothing beside it."""
    values = {f"encoder__{name}": value for name, value in ENCODER.items()} | options
    values |= {"name": kind, "units": "retokenised", "bert__folder": world.folder / "bert"}
    exp = f"exp/{kind}/seed1"
    assert world.run(exp, loop__max_updates=2, **{f"model__{k}": v for k, v in values.items()}) == 0
    dev = rows(world.folder / exp, "dev")[-1]
    assert {"wer", "wer_ctc", "loss_ctc"} <= set(dev) and torch.isfinite(torch.tensor(dev["loss"]))
    if kind == "cif_bert":  # the rate is .9 at first and .55 next; no slot is gold in evaluation
        train = [row["gold"] for row in rows(world.folder / exp, "train")]
        assert train[0] > train[1] > 0 and dev["gold"] == 0
    recognizer = Recognizer.load(
        world.folder / exp, from_dict(DecodeConfig, {"search": {"name": search}}), device="cpu"
    )
    sound = waveform(1.5, seed=3)
    features = torch.from_numpy(recognizer.extractor(sound))
    model = recognizer.model
    with torch.no_grad():
        heads = model.encode(collate(["u"], [0], [{"features": features}]))
        assert recognizer.transcribe(sound) == model.recognise(heads)[""][0]
    command = ["decode", "--model", str(world.folder / exp), "--data", str(world.dev), "--how", search]
    assert main([*command, f"search.name={search}"]) == 0
    folder = world.folder / exp / f"decode_dev_{search}"
    found = [json.loads(line) for line in (folder / "nbest.jsonl").read_text().splitlines()]
    assert {row["nbest"][0]["source"] for row in found} == {"ce" if kind == "cif_bert" else "cmlm"}
    assert len(found) == 4 and json.loads((folder / "decode.json").read_text())["seconds_after_encoder"] > 0


@pytest.mark.parametrize(
    ("kind", "options", "terms"),
    [
        ("adapter_bert", {"weights__text": 0.5}, {"text_cmlm"}),
        ("adapter_bert", {}, set()),
        ("wavbert", {"choice__unit": "word"}, {"text_cmlm", "text_ce"}),
        ("wavbert", {"choice__unit": "word", "weights__text": 0}, set()),
    ],
)
def test_text_sets_beside_speech_or_none(world, kind, options, terms, capsys):
    parts = ("adapters",) if kind == "adapter_bert" else ("embedding_attention", "aggregation")
    values = {
        f"{part}__{name}": size for part in parts for name, size in (("heads", 2), ("feed_forward", 24))
    }
    values |= {f"encoder__{name}": value for name, value in ENCODER.items()} | options
    values |= {"name": kind, "units": "retokenised", "bert__folder": world.folder / "bert"}
    values = {f"model__{name}": value for name, value in values.items()} | {"loop__max_updates": 2}
    text = ["--train", str(world.train), str(make_text_set(world.folder / "text")), "plan.text.tokens=90"]
    exp = f"exp/{kind}_{len(terms)}/seed1"
    assert main(["train", *world.arguments(exp, **values), *(text if terms else ())]) == 0
    for row in rows(world.folder / exp, "train"):
        said = {name.removeprefix("loss_") for name in row if name.startswith("loss_")}
        assert {"ctc", "cmlm"} | terms <= said and {name for name in said if "text" in name} == terms
        assert all(row[f"loss_{name}"] > 0 for name in terms)
    if not terms:
        assert main(["train", *world.arguments("exp/refused", **values), *text]) == 1
        assert f"model {kind} learns from speech, not from text alone" in capsys.readouterr().err


def test_text_is_welcome_and_not_needed(world):
    """With its weights as they are, Wav-BERT trains on speech alone; words of text alone are then unknown."""
    sizes = {f"{part}__heads": 2 for part in ("embedding_attention", "aggregation")}
    values = {f"encoder__{name}": value for name, value in ENCODER.items()} | sizes
    values |= {"name": "wavbert", "units": "words", "word_scores": "true", "spare_unheard": "true"}
    values |= {"choice__unit": "word", "bert__folder": world.folder / "bert"}
    values = {f"model__{name}": value for name, value in values.items()} | {"loop__max_updates": 2}
    assert main(["train", *world.arguments("exp/speech_alone", **values)]) == 0
    for row in rows(world.folder / "exp/speech_alone", "train"):
        assert {"loss_ctc", "loss_ce"} <= set(row) and not any("text" in name for name in row)
