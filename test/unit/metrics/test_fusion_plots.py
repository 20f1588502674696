"""Pictures of gates, attention and firing: drawn where the numbers say, by hand and of real systems."""

import json

import numpy as np
import pytest
import torch
from decoding_checkpoints import CONFORMER
from decoding_checkpoints import make_checkpoint as make_plain
from factories import waveform
from fusion_checkpoints import make_checkpoint
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.frontends import fbank
from speechkit.fusion.cif import dense_weights
from speechkit.metrics import plots_fusion
from speechkit.metrics.look import Look
from speechkit.metrics.plots_fusion import Clock, draw_look, fires

CLOCK = Clock(50.0, 0.0125)
FUSION = ("heads=2", "feed_forward=24")


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def test_a_token_fires_where_the_sum_reaches_it():
    """The frames in which the weights of integrate-and-fire end each token's row."""
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(1, 40, generator=generator, dtype=torch.float64)
    alpha[0, 7] = 2.3  # two tokens in one frame
    alpha = alpha / alpha.sum() * 11
    weights = dense_weights(alpha, torch.tensor([40]), torch.tensor([11]))[0]
    expected = [int((row > 1e-9).nonzero().max()) for row in weights]
    assert fires(alpha[0].numpy()).tolist() == expected and len(expected) == 11
    assert fires(np.array([0.5, 0.5, 0.25])).tolist() == [1]
    assert fires(np.array([0.3, 0.3, 0.3 + 1e-9 + 0.1 - 1e-8])).tolist() == [2]  # short by a rounding
    assert fires(np.zeros(0)).tolist() == fires(np.array([0.2])).tolist() == []


def test_everything_lies_over_its_frames_and_tokens(tmp_path, axes):
    look = Look(["[CLS]", "the", "cat", "[SEP]"], 30)
    look.add_pictures(
        {
            "embedding.gate": torch.full((1, 4, 8), 0.25),
            "embedding.attention": torch.rand(1, 2, 4, 30),
            "acoustic.gate": torch.linspace(0, 1, 31)[None, :, None],  # a frame of padding
            "acoustic.attention": torch.arange(30 * 4.0).view(1, 1, 30, 4),
            "linguistic.gate": torch.tensor([0.1, 0.2, 0.3, 0.4])[None, :, None],
            "linguistic.attention": torch.rand(1, 2, 4, 30),
        }
    )
    draw_look(waveform(0.63), look, CLOCK, "u1", tmp_path / "x.png")
    speech, frames, embedding, acoustic, linguistic, tokens = axes
    assert speech["title"] == "u1" and is_png(tmp_path / "x.png")
    gate = frames["lines"]["acoustic"]
    assert gate.shape == (30, 2) and gate[:2, 0].tolist() == pytest.approx([0.0125, 0.0325])
    assert gate[:, 1].tolist() == pytest.approx(torch.linspace(0, 1, 31)[:30].tolist())
    ((weights, extent),) = acoustic["images"]
    assert np.array_equal(weights, np.arange(120.0).reshape(30, 4).T)  # frames along, tokens down
    assert list(extent) == pytest.approx([0.0025, 0.6025, 3.5, -0.5])
    for panel in (embedding, acoustic, linguistic):
        assert panel["y"] == ["[CLS]", "the", "cat", "[SEP]"]
    mean = look.attention["linguistic"].numpy()
    assert np.array_equal(linguistic["images"][0][0], mean) and tokens["x"] == look.tokens
    assert tokens["lines"]["linguistic"][:, 1].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert tokens["lines"]["embedding"][:, 1].tolist() == pytest.approx([0.25] * 4)


def test_the_firing_plot(tmp_path, axes):
    alpha = torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
    look = Look(["the", "cat"], 6, alpha=alpha)
    draw_look(waveform(0.2), look, CLOCK, "u2", tmp_path / "x.png")
    speech, weights, sums = axes
    assert speech["texts"] == ["the", "cat"] and sums["y"] == ["the", "cat"]
    assert weights["lines"]["alpha"][:, 1].tolist() == alpha.tolist()
    assert sums["lines"]["sum of alpha"][:, 1].tolist() == pytest.approx([0.5, 1, 1.25, 1.5, 1.75, 2])
    fired = [line[0, 0] for name, line in sums["lines"].items() if name.startswith("_")]
    assert fired == pytest.approx([0.0325, 0.1125])
    first = (tmp_path / "x.png").read_bytes()
    draw_look(waveform(0.2), look, CLOCK, "u2", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == first


@pytest.mark.parametrize(
    ("kind", "parts", "panels"),
    [
        ("wavbert", ("embedding_attention", "aggregation"), 6),
        ("embedding_replacement", ("replacement", "aggregation"), 3),
        ("adapter_bert", ("adapters",), 3),
        ("cif_bert", (), 3),
    ],
)
def test_a_trained_system_is_looked_at(tmp_path, capsys, axes, kind, parts, panels):
    data = make_dump(tmp_path / "data", 2, seconds=[1.0, 1.3])
    options = [f"{part}.{option}" for part in parts for option in FUSION]
    options += ["replacement.max_len=9"] if kind == "embedding_replacement" else []
    final, model = make_checkpoint(tmp_path / "model", kind, *options)
    words = ["picture", "fusion", "--model", final.parent, "--data", data, "--out", tmp_path / "f.png"]
    assert main([*map(str, words)]) == 0
    assert len(axes) == panels and is_png(tmp_path / "f.png")
    frames = int(model.output_lengths(torch.tensor([fbank.build(fbank.Config()).frames(16000)])))
    if kind == "cif_bert":
        assert len(axes[1]["lines"]["alpha"]) == frames
        total = axes[2]["lines"]["sum of alpha"][-1, 1]
        assert total == pytest.approx(round(total), abs=1e-4)
        assert len(axes[2]["y"]) == min(round(total), 10)  # as many as BERT has positions for
    maps = [panel for panel in axes[1:] if panel["images"]]
    assert len(maps) == {"wavbert": 3, "embedding_replacement": 1, "adapter_bert": 2, "cif_bert": 0}[kind]
    for panel in maps:
        weights, (start, end, *_) = panel["images"][0]
        assert weights.shape == (len(panel["y"]), frames)
        assert -0.05 < start < 0.1 and 0.85 < end < 1.1
    if kind in ("wavbert", "adapter_bert"):
        assert maps[0]["y"][0] == "[CLS]" and maps[0]["y"][-1] == "[SEP]"
    assert main([*map(str, words), "--utterance", "none"]) == 1
    assert "no utterance 'none'" in capsys.readouterr().err


def test_a_system_without_bert_is_refused(tmp_path, capsys):
    data = make_dump(tmp_path / "data", 2)
    plain = make_plain(tmp_path / "plain", CONFORMER)
    words = ["picture", "fusion", "--model", plain, "--data", data, "--out", tmp_path / "f.png"]
    assert main([*map(str, words)]) == 1
    assert "a model of kind ctc has neither a BERT beside speech nor a decoder" in capsys.readouterr().err


def test_the_report_draws_gates(tmp_path, axes):
    for system, seed, rise in (("a", 1, 0.1), ("a", 2, 0.2), ("b", 1, 0.3), ("ctc", 1, None)):
        rows = [{"kind": "train", "update": u, "loss": 1.0} for u in (10, 20)]
        rows.append({"kind": "dev", "update": 20, "loss": 1.0, "gate_acoustic": 0.9})
        for row in rows[:2] if rise else ():
            row["gate_acoustic"] = rise * row["update"] / 10
            if system == "b":
                row["gate_embedding"] = 0.5
        folder = tmp_path / "exp" / system / f"seed{seed}"
        folder.mkdir(parents=True)
        lines = [row for row in rows if rise or row["kind"] == "train"]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    drawn = plots_fusion.draw_gates(tmp_path / "exp", ["a", "a", "b", "ctc", "gone"], tmp_path)
    assert drawn == [("Gates over updates", tmp_path / "gates.png")] and is_png(tmp_path / "gates.png")
    acoustic, embedding = axes
    assert acoustic["title"] == "Acoustic" and embedding["title"] == "Embedding"
    ends = sorted(line[-1].tolist() for line in acoustic["lines"].values())
    assert ends == [[20, 0.2], [20, 0.4], [20, 0.6]] and set(embedding["lines"]) == {"b"}
    assert acoustic["lines"]["a"].tolist() == [[10, 0.1], [20, 0.2]]
    assert plots_fusion.draw_gates(tmp_path / "exp", ["ctc"], tmp_path) == []


def test_gates_over_updates(tmp_path, axes):
    rows = [
        {
            "kind": "train",
            "update": 1,
            "loss": 9.0,
            "gate_acoustic": 0.12,
            "gate_linguistic": 0.1,
            "truth": 0.9,
        },
        {
            "kind": "train",
            "update": 2,
            "loss": 8.0,
            "gate_acoustic": 0.2,
            "gate_linguistic": 0.1,
            "truth": 0.8,
        },
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["picture", "curves", "--exp", str(tmp_path), "--out", str(tmp_path / "c.png")]) == 0
    gates, truth, loss = axes
    assert gates["lines"]["gate_acoustic, train"].tolist() == [[1, 0.12], [2, 0.2]]
    assert truth["lines"]["truth, train"].tolist() == [[1, 0.9], [2, 0.8]]
    assert gates["title"] == "Gates" and set(loss["lines"]) == {"loss, train"}
