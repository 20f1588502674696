"""torchaudio's state dicts, both ways, with names written down by hand (test/foreign_checkpoints.py)."""

import pytest
import torch
from foreign_checkpoints import HUBERT_HEADS, MASK, rows, save, tensors

from speechkit.bin.__main__ import main
from speechkit.train.checkpoint import load_model, load_weights

SAID = ["model.encoder.heads=4", "model.encoder.conv_strides=[5, 2, 2]"]


def convert(model, out, *options):
    assert main(["convert", "--model", str(model), "--out", str(out), *options]) == 0
    return out


@pytest.mark.parametrize("variant", ["group", "layer"])
def test_an_encoder_both_ways(tmp_path, capsys, variant):
    table = rows(variant)
    state = {audio: value for (*_, audio, _), value in zip(table, tensors(table))}
    ours = convert(save(state, tmp_path / "model.pt"), tmp_path / "ours", *SAID)
    printed = capsys.readouterr().out
    assert f"norm={'pre' if variant == 'layer' else 'post'}, which the file does not say" in printed
    found = load_weights(ours / "model.safetensors")
    for _, hugging, audio, _ in table:
        assert torch.equal(found[f"encoder.{hugging}"], state[audio])
    exported = convert(ours, tmp_path / "back", "--to", "torchaudio")
    assert "left out, torchaudio has no such weights: encoder.masked_spec_embed" in capsys.readouterr().out
    again = torch.load(exported / "model.pt", weights_only=True)
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    encoder = load_model(convert(exported, tmp_path / "again"))[1].model.encoder
    assert encoder == load_model(ours)[1].model.encoder


@pytest.mark.parametrize("variant", ["group", "layer"])
def test_hubert_both_ways(tmp_path, capsys, variant):
    table = rows(variant, MASK, HUBERT_HEADS)
    heads = ("mask_generator.", "logit_generator.")
    names = [audio if audio.startswith(heads) else f"wav2vec2.{audio}" for *_, audio, _ in table]
    state = dict(zip(names, tensors(table)))
    ours = convert(save(state, tmp_path / "model.pt"), tmp_path / "ours", *SAID)
    assert f"{len(table)} loaded, 0 missing, 0 unexpected" in capsys.readouterr().out
    model, run, _ = load_model(ours)
    assert (run.model.name, run.model.classes) == ("hubert", [11])
    assert torch.equal(model.label_embs, state["logit_generator.label_embeddings"])
    exported = convert(ours, tmp_path / "back", "--to", "torchaudio")
    again = torch.load(exported / "model.pt", weights_only=True)
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)


def test_a_ctc_head_both_ways(tmp_path, capsys):
    table = rows("group")
    state = {audio: value for (*_, audio, _), value in zip(table, tensors(table))}
    state |= {"aux.weight": torch.randn(5, 24), "aux.bias": torch.randn(5)}
    path = save(state, tmp_path / "model.pt")
    assert main(["convert", "--model", str(path), "--out", str(tmp_path / "x"), *SAID]) == 1
    assert "a CTC head without labels; put labels.txt beside it" in capsys.readouterr().err
    (tmp_path / "labels.txt").write_text("-\n|\nE\nT\nA\n")
    ours = convert(path, tmp_path / "ours", *SAID)
    assert "rows added, of probability 0: <unk>, <sos/eos>" in capsys.readouterr().out
    model, _, assets = load_model(ours)
    assert assets.tokenizer.vocab == ["<blank>", "<unk>", "▁", "E", "T", "A", "<sos/eos>"]
    assert torch.equal(model.head.weight[[0, 2, 3, 4, 5]], state["aux.weight"])
    frames = torch.randn(3, 24)
    expected = frames @ state["aux.weight"].T + state["aux.bias"]
    found = model.head(frames).log_softmax(-1)
    torch.testing.assert_close(found[:, [0, 2, 3, 4, 5]], expected.log_softmax(-1))
    assert (found[:, [1, 6]].exp() == 0).all()
    exported = convert(ours, tmp_path / "back", "--to", "torchaudio")
    assert (exported / "labels.txt").read_text().split() == ["-", "<unk>", "|", "E", "T", "A", "</s>"]
    again = load_model(convert(exported, tmp_path / "again"))[0]
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))
