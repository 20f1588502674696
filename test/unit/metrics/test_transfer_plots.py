"""Pictures of alignments and of knowledge transfer: attention, a transducer's lattice, distances."""

import json

import numpy as np
import pytest
import torch
from bert_folders import write_bert
from tiny_linguistic import BINS
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.config import load_config, load_kind
from speechkit.data.batch import Batch, pad
from speechkit.metrics.plots_transfer import draw_distances
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import build_tokenizer
from speechkit.train.checkpoint import save_checkpoint
from speechkit.train.run import RunConfig

SIZES = ("dim=16", "layers=1", "heads=2", "feed_forward=32", "dropout=0")
SMALL = {
    "attention": ["decoder={name: las, embedding: 12, cells: 16, attention_dim: 12, kernel: 5}"],
    "transducer": ["prediction={name: lstm, embedding: 8, cells: 12}", "joint={dim: 24}"],
}


def make(kind, folder, *options):
    """A tiny system that speaks a BERT's pieces, and where its checkpoint is."""
    bert = write_bert(folder / "bert")
    tokenizer = build_tokenizer("wordpiece", ["the cats", "dog a dog"], vocab=bert)
    assets = Assets(tokenizer, {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100})
    values = [f"name={kind}", *(f"encoder.{size}" for size in SIZES), *SMALL[kind], *options]
    config = load_config(RunConfig, overrides=[f"model.{value}" for value in values])
    torch.manual_seed(3)
    model = load_kind(MODELS, kind).build(config.model, assets).eval()
    save_checkpoint(folder / "final", model.state_dict(), config, assets)
    return model, folder / "final"


def quiet(model, bias):
    """The same, which says its labels more readily the higher the bias."""
    with torch.no_grad():
        model.joint.out.bias[1:] += bias
    return model


def one(frames):
    torch.manual_seed(5)
    return Batch(["u"], torch.tensor([11]), None, {"features": pad([torch.randn(frames, BINS)])})


@pytest.mark.parametrize("bias", [2.0, -99.0], ids=["labels", "no label"])
@torch.no_grad()
def test_the_lattice_is_that_of_the_greedy_labels(tmp_path, bias):
    model = quiet(make("transducer", tmp_path)[0], bias)
    batch = one(60)
    look = model.look(batch)
    frames, lengths = model.encode(batch)["transducer"]
    said = model.recognise({"transducer": (frames, lengths)})[""][0]
    assert model.tokenizer.units.join(look.tokens[:-1]) == said and look.tokens[-1] == "(end)"
    lattice, labels = look.attention["lattice"], len(look.tokens) - 1
    assert lattice.shape == (labels + 1, look.frames) and (labels > 3) == (bias > 0)
    assert look.shares["q"].shape == (labels, look.frames)
    # Every path crosses each diagonal of the lattice once; q is a distribution over frames.
    for diagonal in range(labels + look.frames):
        nodes = lattice.flip(0).diagonal(diagonal - labels)
        assert float(nodes.sum()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(look.shares["q"].sum(1), torch.ones(labels), atol=1e-4, rtol=0)
    q = lattice[:-1] / lattice[:-1].sum(1, keepdim=True)
    torch.testing.assert_close(look.shares["q"], q, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", SMALL)
def test_alignments_of_a_trained_system_are_drawn(tmp_path, capsys, axes, kind):
    data = make_dump(tmp_path / "data", 2, seconds=[1.0, 1.3])
    _, final = make(kind, tmp_path / "model", "max_ratio=0.2" if kind == "attention" else "max_symbols=1")
    out = tmp_path / "a.png"
    words = ["picture", "alignment", "--model", final.parent, "--data", data, "--out", out]
    assert main([*map(str, words)]) == 0 and out.read_bytes().startswith(b"\x89PNG\r\n")
    titles = [panel["title"] for panel in axes]
    assert titles[1].startswith("attention" if kind == "attention" else "share of all alignments")
    ((weights, (start, end, *_)),) = axes[1]["images"]
    assert weights.shape[0] == len(axes[1]["y"]) and -0.05 < start < 0.1 and 0.85 < end < 1.1
    if kind == "attention":
        assert len(titles) == 2 and weights.sum(1) == pytest.approx(np.ones(len(weights)), abs=1e-4)
    else:
        assert axes[2]["texts"] == axes[1]["y"][:-1] and len(axes[2]["lines"]) == len(axes[2]["texts"])


def test_a_run_with_transfer_and_the_report_draw_distances(tmp_path, axes):
    for system, seed, size in (("las_1", 1, 1.0), ("las_1", 2, 2.0), ("t_1", 1, 3.0), ("las", 1, None)):
        folder = tmp_path / "exp" / system / f"seed{seed}"
        folder.mkdir(parents=True)
        more = {"loss_embedding": size} if size else {}
        rows = [
            {"kind": kind, "update": u, "loss": 1.0, **more} for kind in ("train", "dev") for u in (10, 20)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = draw_distances(tmp_path / "exp", ["las", "las_1", "las_1", "t_1", "gone"], tmp_path)
    assert [path.name for _, path in drawn] == ["embedding_distances.png"] and drawn[0][1].is_file()
    named = [[name for name in panel["lines"] if name[0] != "_"] for panel in axes]
    assert named == [["las_1"], ["t_1"]] and [len(panel["lines"]) for panel in axes] == [4, 2]
    assert axes[0]["lines"]["las_1"].tolist() == [[10, 1.0], [20, 1.0]]
    assert draw_distances(tmp_path / "exp", ["las"], tmp_path) == []
    words = ["picture", "curves", "--exp", str(tmp_path / "exp/t_1/seed1"), "--out", str(tmp_path / "c.png")]
    assert main(words) == 0
    assert axes[0]["title"] == "Distance" and axes[0]["lines"]["loss_embedding, dev"].tolist() == [
        [10, 3],
        [20, 3],
    ]
