"""Pictures of pre-training: drawn where the data says, the same bytes each time."""

import json

import numpy as np
import pytest
from decoding_checkpoints import CONFORMER, WAV2VEC2, make_checkpoint
from factories import waveform, write_table
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.clustering.labels import Track
from speechkit.metrics import plots_frames, plots_pretraining


@pytest.fixture
def axes(monkeypatch):
    """What is drawn on: the axes of the last picture, before it is written."""
    from contextlib import contextmanager

    from speechkit.metrics import plots

    kept = []

    @contextmanager
    def watched(*args):
        with plots.figure(*args) as found:
            yield found
            kept[:] = [
                {
                    "patches": [
                        (p.get_x(), p.get_y(), p.get_width()) for p in each.patches if hasattr(p, "get_width")
                    ],
                    "lines": {line.get_label(): line.get_xydata().tolist() for line in each.lines},
                    "texts": [text.get_text() for text in each.texts],
                    "ticks": [tick.get_text() for tick in each.get_yticklabels()],
                    "title": each.get_title(loc="left"),
                }
                for each in found
            ]

    for module in (plots_frames, plots_pretraining):
        monkeypatch.setattr(module, "figure", watched)
    return kept


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def test_mask_spans_lie_where_the_frames_are(tmp_path, axes):
    """Frames 2-4 and 9 at 50 a second, the first in the middle of 25 ms."""
    mask = np.zeros(40, bool)
    mask[[2, 3, 4, 9]] = True
    plots_frames.draw_mask(waveform(0.83), mask, 50.0, 0.0125, "u1", tmp_path / "mask.png")
    spans = [(round(x, 4), round(width, 4)) for x, _, width in axes[0]["patches"]]
    assert spans == [(0.0425, 0.06), (0.1825, 0.02)]
    assert axes[0]["title"] == "u1: 10 % of 40 frames masked" and is_png(tmp_path / "mask.png")


def test_label_strips_hold_every_run_once(tmp_path, axes):
    data = make_dump(tmp_path / "data", 2, seconds=[0.5, 0.6])
    name = sorted(line.split()[0] for line in (data / "utt2spk").read_text().splitlines())[1]
    labels = Track(data / "km.txt", {name: ["7"] * 10 + ["3"] * 2 + ["7"] * 30}, 100.0, 0.0125)
    phones = Track(data / "phones.txt", {name: ["sil"] * 20 + ["a"] * 40}, 100.0, 0.005)
    plots_frames.draw_label_strips([labels, phones], data, name, tmp_path / "strip.png")
    (drawn,) = axes
    rows = {}
    for x, y, width in drawn["patches"]:
        rows.setdefault(round(y, 3), []).append((round(x, 4), round(width, 4)))
    first, second = (rows[place] for place in sorted(rows, reverse=True))
    assert first == [(0.0075, 0.1), (0.1075, 0.02), (0.1275, 0.3)]
    assert second == [(0.0, 0.2), (0.2, 0.4)]
    assert drawn["texts"] == ["7", "7", "sil", "a"]  # no room to name the run of 20 ms
    assert drawn["ticks"] == ["km", "phones", "mel bands"] and drawn["title"] == name


def test_curves_are_those_of_the_log(tmp_path, axes):
    rows = [
        {"kind": "train", "update": 1, "loss": 9.0, "code_perplexity": 3.0, "accuracy": 0.1, "lr": 1.0},
        {"kind": "train", "update": 2, "loss": 8.0, "code_perplexity": 5.0, "accuracy": 0.2},
        {"kind": "dev", "update": 2, "loss": 8.5, "code_perplexity": 4.0, "accuracy": 0.3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["picture", "curves", "--exp", str(tmp_path)]) == 0
    perplexity, accuracy, loss = axes
    assert perplexity["lines"]["code_perplexity, train"] == [[1, 3], [2, 5]]
    assert perplexity["lines"]["code_perplexity, dev"] == [[2, 4]]
    assert set(accuracy["lines"]) == {"accuracy, train", "accuracy, dev"}
    assert set(loss["lines"]) == {"loss, train", "loss, dev"}
    first = (tmp_path / "pretraining.png").read_bytes()
    assert main(["picture", "curves", "--exp", str(tmp_path)]) == 0
    assert (tmp_path / "pretraining.png").read_bytes() == first


def test_probe_curve(tmp_path, axes):
    plots_pretraining.draw_probe({0: 0.3, 1: 0.6, 2: 0.5}, 0.25, "phones", tmp_path / "p.png")
    assert axes[0]["lines"]["linear classifier"] == [[0, 30], [1, 60], [2, 50]]
    assert axes[0]["texts"] == ["60.0"] and is_png(tmp_path / "p.png")


def test_masks_of_a_checkpoint(tmp_path, capsys, axes):
    data = make_dump(tmp_path / "data", 2, seconds=[2.0, 2.0])
    model = make_checkpoint(tmp_path / "model", WAV2VEC2, model="hubert", cmvn=False)
    words = ["picture", "mask", "--model", model, "--data", data, "--out", tmp_path / "m.png"]
    assert main([*map(str, words)]) == 0
    assert "of 99 frames masked" in axes[0]["title"] and axes[0]["patches"] and is_png(tmp_path / "m.png")
    assert main([*map(str, words), "--utterance", "s00-00"]) == 1
    assert "no utterance 's00-00'; did you mean" in capsys.readouterr().err
    plain = make_checkpoint(tmp_path / "plain", CONFORMER)
    words[3] = plain
    assert main([*map(str, words)]) == 1


def test_runs_without_such_curves(tmp_path, capsys):
    assert main(["picture", "curves", "--exp", str(tmp_path)]) == 1
    assert "metrics.jsonl: no such file" in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").write_text('{"kind": "dev", "update": 1, "loss": 2.0}\n')
    assert main(["picture", "curves", "--exp", str(tmp_path)]) == 1
    assert "neither perplexity nor accuracy" in capsys.readouterr().err


def test_the_report_draws_an_utterance(tmp_path):
    data = make_dump(tmp_path / "data", 3)
    train = ["kmeans", "train", "--data", data, "--out", tmp_path / "km", "--clusters", 4, "--restarts", 1]
    assert main([*map(str, train), "name=mfcc"]) == 0
    assert main(["kmeans", "apply", "--model", str(tmp_path / "km"), "--data", str(data), "--jobs", "1"]) == 0
    rows = dict(line.split(" ", 1) for line in (data / "km.txt").read_text().splitlines())
    write_table(data / "phones.txt", {name: "sil " + row for name, row in rows.items()})
    words = ["kmeans", "report", "--labels", data / "km.txt", "--phones", data / "phones.txt"]
    assert main([*map(str, words), "--picture", str(tmp_path / "x.png")]) == 0
    assert is_png(tmp_path / "x.png")
