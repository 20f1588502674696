"""fairseq files with names and configurations written down by hand (test/foreign_checkpoints.py)."""

import copy
from argparse import Namespace

import pytest
import torch
from foreign_checkpoints import (
    ARGS,
    CFG,
    HEAD_ROWS,
    HUBERT_HEADS,
    LETTERS,
    MASK,
    TUNED,
    WAV2VEC2_HEADS,
    fairseq_modules,
    fairseq_state,
    make_dictionary,
    rows,
    save,
    tensors,
    write_letters,
)
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2Model

from speechkit.bin.__main__ import main
from speechkit.train.checkpoint import load_model, load_weights

STYLES = {"args": ("group", ARGS), "cfg": ("layer", CFG)}


def convert(model, out, *options):
    assert main(["convert", "--model", str(model), "--out", str(out), *options]) == 0
    return out


def weights(folder):
    return load_weights(folder / "model.safetensors")


def pretrained(style, *heads):
    """(variant, configuration, table, fairseq's names with tensors) of a pre-trained model."""
    variant, config = STYLES[style]
    table = rows(variant, MASK, *(heads or [WAV2VEC2_HEADS]))
    return variant, config, table, {row[0]: value for row, value in zip(table, tensors(table))}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("style", ["args", "cfg"])
def test_pretrained_round_trip_is_bit_identical(tmp_path, capsys, style, legacy):
    _, config, table, model = pretrained(style)
    path = save(fairseq_state(model, style, config), tmp_path / "model.pt", legacy)
    ours = convert(path, tmp_path / "ours")
    assert f"{len(table)} loaded, 0 missing, 0 unexpected, 0 reshaped" in capsys.readouterr().out
    found = weights(ours)
    exported = convert(ours, tmp_path / "hf", "--to", "huggingface")
    hugging = load_file(exported / "model.safetensors")
    assert len(hugging) == len(found) == len(table)
    for fairseq, name, _, _ in table:
        head = name.startswith(("quantizer.", "project_"))
        assert torch.equal(found[name if head else f"encoder.{name}"], model[fairseq]), name
        assert torch.equal(hugging[name if head else f"wav2vec2.{name}"], model[fairseq]), name
    again = weights(convert(exported, tmp_path / "again"))
    assert again.keys() == found.keys() and all(torch.equal(again[name], found[name]) for name in found)


def test_the_configuration_of_2020(tmp_path):
    _, config, _, model = pretrained("args")
    run = load_model(convert(save(fairseq_state(model, "args", config), tmp_path / "m.pt"), tmp_path / "o"))[
        1
    ]
    encoder = run.model.encoder
    assert (encoder.dim, encoder.layers, encoder.heads, encoder.feed_forward) == (24, 2, 4, 40)
    assert (encoder.extractor, encoder.norm, encoder.conv_bias, encoder.normalize) == (
        "group",
        "post",
        False,
        "none",
    )
    assert (encoder.conv_channels, encoder.conv_kernels, encoder.conv_strides) == (
        [16] * 3,
        [10, 3, 2],
        [5, 2, 2],
    )
    assert (encoder.pos_conv_kernel, encoder.pos_conv_groups) == (8, 4)
    dropouts = (encoder.dropout, encoder.attention_dropout, encoder.activation_dropout, encoder.input_dropout)
    assert (*dropouts, encoder.layer_drop, encoder.feature_grad_mult) == (0.1, 0.2, 0.0, 0.1, 0.05, 0.1)
    model = run.model
    assert (model.quantizer.temperature_start, model.quantizer.temperature_end) == (2.0, 0.5)
    assert (model.quantizer.temperature_decay, model.quantizer.groups, model.quantizer.entries) == (
        0.999995,
        2,
        5,
    )
    assert (model.diversity_weight, model.penalty_weight, model.dropout_features) == (0.1, 10.0, 0.1)
    assert (model.mask.probability, model.mask.length, model.contrastive.negatives) == (0.65, 10, 100)


@pytest.mark.parametrize("form", ["dict", "omegaconf"])
def test_the_configuration_of_2021(tmp_path, form):
    """Plain sections with members of fairseq's enumerations, or omegaconf's containers."""
    _, config, _, model = pretrained("cfg")
    with fairseq_modules() as (_, choices):
        whole = copy.deepcopy(config)
        if form == "dict":
            whole["model"]["extractor_mode"] = choices("layer_norm")
        else:
            whole = pytest.importorskip("omegaconf").OmegaConf.create(whole)
        path = save(fairseq_state(model, "cfg", whole), tmp_path / "model.pt")
    run = load_model(convert(path, tmp_path / "ours"))[1]
    encoder = run.model.encoder
    assert (encoder.extractor, encoder.norm, encoder.conv_bias) == ("layer", "pre", True)
    assert (encoder.normalize, encoder.feature_grad_mult, encoder.dropout) == ("fairseq", 1.0, 0.0)
    assert (encoder.conv_channels, encoder.conv_kernels, encoder.conv_strides) == (
        [16] * 3,
        [10, 3, 2],
        [5, 2, 2],
    )
    assert (run.model.quantizer.temperature_end, run.model.penalty_weight) == (0.1, 0.0)


@pytest.mark.parametrize(("style", "stable"), [("args", False), ("cfg", True)])
def test_the_encoder_computes_what_transformers_does(tmp_path, style, stable):
    sizes = Wav2Vec2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        conv_dim=[16, 16, 16],
        conv_kernel=[10, 3, 2],
        conv_stride=[5, 2, 2],
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer" if stable else "group",
        do_stable_layer_norm=stable,
        conv_bias=stable,
    )
    _, config, table, model = pretrained(style)
    theirs = Wav2Vec2Model(sizes).eval()
    theirs.load_state_dict(
        {name: model[fairseq] for fairseq, name, *_ in table if name in theirs.state_dict()}
    )
    path = save(fairseq_state(model, style, config), tmp_path / "model.pt")
    ours = load_model(convert(path, tmp_path / "ours", "model.encoder.normalize=none"))[0]
    wave = torch.randn(1, 800, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.double()(wave).last_hidden_state
        found = ours.double().encoder(wave, torch.tensor([800])).frames
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def tuned(style, inside=True, **more):
    """A fine-tuned state, its encoder's tensors, and its head."""
    variant, config = STYLES[style]
    table = rows(variant, MASK)
    encoder = {row[0]: value for row, value in zip(table, tensors(table))}
    head = torch.randn(len(HEAD_ROWS), 24), torch.randn(len(HEAD_ROWS))
    model = {f"w2v_encoder.w2v_model.{name}": value for name, value in encoder.items()}
    model |= {"w2v_encoder.proj.weight": head[0], "w2v_encoder.proj.bias": head[1]}
    if style == "args":
        whole = {**TUNED, "w2v_args": Namespace(**config) if inside else None}
    else:
        section = {**TUNED, "_name": "wav2vec_ctc", "normalize": "${task.normalize}"}
        section["w2v_args"] = config if inside else None
        whole = {"task": {"_name": "audio_finetuning", "normalize": True}, "model": section}
    return fairseq_state(model, style, whole, **more), encoder, head


@pytest.mark.parametrize("style", ["args", "cfg"])
def test_fine_tuned(tmp_path, capsys, style):
    state, encoder, (weight, bias) = tuned(style)
    write_letters(tmp_path / "dict.ltr.txt")
    ours = convert(save(state, tmp_path / "model.pt"), tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "head: rows left out, which CTC never emits: <pad>" in printed
    model, run, assets = load_model(ours)
    assert run.model.name == "ctc" and run.model.encoder.feature_grad_mult == 0
    dropouts = run.model.encoder
    assert (dropouts.dropout, dropouts.activation_dropout, dropouts.layer_drop) == (0.0, 0.1, 0.15)
    assert dropouts.normalize == ("none" if style == "args" else "fairseq")
    assert assets.tokenizer.vocab == ["<blank>", "<unk>", "▁", "E", "T", "A", "'", "<sos/eos>"]
    assert assets.tokenizer.encode("tea eat") == [4, 3, 5, 2, 3, 5, 4]
    order = [HEAD_ROWS.index(token) for token in ("<s>", "<unk>", *LETTERS, "</s>")]
    assert torch.equal(model.head.weight, weight[order]) and torch.equal(model.head.bias, bias[order])
    found = model.state_dict()
    assert torch.equal(found["encoder.masked_spec_embed"], encoder["mask_emb"])


def test_the_letters_are_found_beside_given_or_inside(tmp_path, capsys):
    state, *_ = tuned("args")
    path = save(state, tmp_path / "model.pt")
    assert main(["convert", "--model", str(path), "--out", str(tmp_path / "x")]) == 1
    assert "its letters are not known; put dict.ltr.txt beside it" in capsys.readouterr().err
    letters = write_letters(tmp_path / "letters", ["|", "X", "Y", "Z", "-"])
    given = load_model(convert(path, tmp_path / "given", "--dictionary", str(letters)))[2].tokenizer
    assert given.vocab[2:-1] == ["▁", "X", "Y", "Z", "-"]
    with fairseq_modules() as (dictionary, _):
        state, *_ = tuned("args", task_state={"target_dictionary": make_dictionary(dictionary, LETTERS)})
        path = save(state, tmp_path / "inside" / "model.pt")
    inside = load_model(convert(path, tmp_path / "ours"))[2].tokenizer
    assert inside.vocab[2:-1] == ["▁", "E", "T", "A", "'"]


def test_a_fine_tuned_file_without_its_pretraining_is_read_by_its_shapes(tmp_path, capsys):
    state, *_ = tuned("cfg", inside=False)
    write_letters(tmp_path / "dict.ltr.txt")
    path = save(state, tmp_path / "model.pt")
    assert main(["convert", "--model", str(path), "--out", str(tmp_path / "x")]) == 1
    assert "the weights do not tell the encoder's heads; say model.encoder.heads=" in capsys.readouterr().err
    said = ["model.encoder.heads=4", "model.encoder.conv_strides=[5, 2, 2]"]
    run = load_model(convert(path, tmp_path / "ours", *said))[1]
    assert "note: no configuration of the pre-training (w2v_args)" in capsys.readouterr().out
    encoder = run.model.encoder
    assert (encoder.dim, encoder.layers, encoder.feed_forward, encoder.extractor) == (24, 2, 40, "layer")
    assert (encoder.normalize, encoder.norm, encoder.pos_conv_groups) == ("fairseq", "pre", 4)


HUBERT = {**CFG["model"], "_name": "hubert", "label_rate": 50.0, "mask_prob": 0.8}


def hubert(tmp_path, *heads, **more):
    variant, config = (
        "layer",
        {**CFG, "model": HUBERT, "criterion": {"_name": "hubert", "loss_weights": [10.0]}},
    )
    table = rows(variant, MASK, *heads)
    model = {row[0]: value for row, value in zip(table, tensors(table))}
    return save(fairseq_state(model, "cfg", config, **more), tmp_path / "model.pt"), model, table


def test_hubert_loses_the_special_classes(tmp_path, capsys):
    path, model, _ = hubert(tmp_path, HUBERT_HEADS)
    ours = convert(path, tmp_path / "ours")
    assert "label_embs_concat: 11 rows into 7, without the special symbols" in capsys.readouterr().out
    loaded, run, _ = load_model(ours)
    assert (run.model.name, run.model.classes, run.model.label_rates) == ("hubert", [7], [50.0])
    assert (run.model.penalty_weight, run.model.mask.probability, run.model.projection_dim) == (10.0, 0.8, 20)
    assert torch.equal(loaded.label_embs, model["label_embs_concat"][4:])
    assert torch.equal(loaded.final_proj.weight, model["final_proj.weight"])


def test_hubert_with_two_label_sets_and_dictionaries_inside(tmp_path):
    heads = HUBERT_HEADS.replace("| 11 20", "| 19 20").replace("| 20 24", "| 40 24")
    heads = heads.replace("logit_generator.final_proj.bias | 20", "logit_generator.final_proj.bias | 40")
    with fairseq_modules() as (dictionary, _):
        sets = [make_dictionary(dictionary, [str(c) for c in range(count)]) for count in (3, 8)]
        path, model, _ = hubert(tmp_path, heads, task_state={"dictionaries": sets})
    loaded, run, _ = load_model(convert(path, tmp_path / "ours"))
    assert (run.model.classes, run.model.labels, run.model.untied) == ([3, 8], ["kmeans", "kmeans_2"], True)
    table = model["label_embs_concat"]
    assert torch.equal(loaded.label_embs, torch.cat([table[4:7], table[11:19]]))


def test_hubert_with_a_batch_norm_before_its_positions(tmp_path):
    path, model, _ = hubert(tmp_path, HUBERT_HEADS)
    weight = torch.randn(24, 6, 8)
    for name in ("weight_g", "weight_v", "bias"):
        del model[f"encoder.pos_conv.0.{name}"]
    norm = {"weight": torch.rand(24), "bias": torch.rand(24), "running_mean": torch.rand(24)}
    norm |= {"running_var": torch.rand(24) + 1, "num_batches_tracked": torch.tensor(5)}
    model |= {f"encoder.pos_conv.0.{name}": value for name, value in norm.items()}
    model |= {"encoder.pos_conv.1.weight": weight, "encoder.pos_conv.1.bias": torch.rand(24)}
    state = fairseq_state(model, "cfg", {**CFG, "model": HUBERT})
    loaded, run, _ = load_model(convert(save(state, tmp_path / "bn.pt"), tmp_path / "ours"))
    assert run.model.encoder.pos_conv_norm == "batch"
    positions = loaded.encoder.encoder.pos_conv_embed
    assert torch.equal(positions.conv.weight, weight)
    assert torch.equal(positions.batch_norm.running_var, norm["running_var"])


def test_unispeech_pretraining(tmp_path, capsys):
    state, encoder, head = tuned("cfg")
    inner = rows(
        "layer",
        WAV2VEC2_HEADS.replace("| 20 24", "| 24 20").replace("project_hid.bias | - | 20", "x | - | 24"),
    )
    heads = {row[0]: value for row, value in zip(inner, tensors(inner)) if row[0] not in encoder}
    assert heads["final_proj.weight"].shape == (24, 20)
    state["model"] |= {f"w2v_encoder.w2v_model.{name}": value for name, value in heads.items()}
    model, run, _ = load_model(convert(save(state, tmp_path / "model.pt"), tmp_path / "ours"))
    printed = capsys.readouterr().out
    assert run.model.name == "unispeech" and "0 missing, 0 unexpected" in printed
    assert "are called p0, p1" in printed
    assert torch.equal(model.quantizer.codevectors, heads["quantizer.vars"])
    assert torch.equal(model.project_hid.weight, heads["final_proj.weight"])
    phones = len(head[0]) - 4
    order = [phones, phones + 3, *range(phones), phones + 2]
    assert torch.equal(model.head.weight, head[0][order])


def test_unispeech_that_went_on_without_labels(tmp_path, capsys):
    _, config, _, model = pretrained("args")
    up = torch.randn(24, 20)
    model |= {"final_proj.weight": up, "final_proj.bias": torch.randn(24)}
    saved = save(fairseq_state(model, "args", config), tmp_path / "m.pt")
    model, run, _ = load_model(convert(saved, tmp_path / "o"))
    assert "0 missing, 0 unexpected" in capsys.readouterr().out
    assert run.model.name == "unispeech" and run.model.alpha == 0 and model.head is None
    assert torch.equal(model.project_hid.weight, up)


def test_half_precision_becomes_fp32(tmp_path):
    _, config, _, model = pretrained("args")
    half = {name: value.half() for name, value in model.items()}
    found = weights(convert(save(fairseq_state(half, "args", config), tmp_path / "m.pt"), tmp_path / "o"))
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found["quantizer.codevectors"], half["quantizer.vars"].float())
