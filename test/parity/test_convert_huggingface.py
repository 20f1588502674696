"""`speechkit convert` against transformers, on random weights: from its folders, and back into them."""

import json

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    HubertModel,
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechForPreTraining,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
)

from speechkit.bin.__main__ import main
from speechkit.data.collate import collate
from speechkit.train.checkpoint import load_model, load_weights

VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "'": 7}
OURS = ["<blank>", "<unk>", "▁", "E", "T", "'", "<sos/eos>"]
THEIRS = ["<pad>", "<unk>", "|", "E", "T", "'", "</s>"]
WAVES = [torch.randn(n, generator=torch.Generator().manual_seed(n)).double() * 0.1 for n in (900, 640, 777)]


def sizes(layer, **more):
    """A tiny encoder, in the group or the layer variant."""
    values = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "conv_dim": [16, 16, 16],
        "conv_kernel": [10, 3, 2],
        "conv_stride": [5, 2, 2],
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "layer" if layer else "group",
        "do_stable_layer_norm": layer,
        "conv_bias": layer,
        "vocab_size": 8,
        "codevector_dim": 12,
        "proj_codevector_dim": 20,
        "num_codevectors_per_group": 5,
        "num_codevector_groups": 2,
    }
    return {**values, **more}


def randomise(model):
    """Weights that differ everywhere, norms too, so that a swapped pair shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.2 * torch.randn(tensor.shape, generator=generator).abs()
    return model.eval()


def save(model, folder, normalize=False, **options):
    model.save_pretrained(folder, **options)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    values = {"do_normalize": normalize, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def convert(folder, out, *options):
    assert main(["convert", "--model", str(folder), "--out", str(out), *options]) == 0
    return out


def batch(waves):
    return collate(
        [str(i) for i in range(len(waves))], [0] * len(waves), [{"speech": wave} for wave in waves]
    )


@torch.no_grad()
def our_logits(folder):
    """CTC logits of a padded batch, one tensor an utterance, in float64."""
    model, _, assets = load_model(folder)
    output = model.double().encode_frames(batch(WAVES))
    logits = model.head(output.frames)
    return [row[:n] for row, n in zip(logits, output.lengths)], assets


@torch.no_grad()
def their_logits(model):
    """transformers, one utterance at a time."""
    return [model.double()(wave[None]).logits[0] for wave in WAVES]


MODELS = [
    (Wav2Vec2Config, Wav2Vec2ForCTC, False, {}),
    (Wav2Vec2Config, Wav2Vec2ForCTC, True, {}),
    (HubertConfig, HubertForCTC, False, {}),
    (HubertConfig, HubertForCTC, True, {"conv_bias": False}),
    (HubertConfig, HubertForCTC, False, {"conv_pos_batch_norm": True}),
    (HubertConfig, HubertForCTC, False, {"feat_proj_layer_norm": False}),
    (UniSpeechConfig, UniSpeechForCTC, True, {}),
]


@pytest.mark.parametrize(("config", "class_", "layer", "more"), MODELS)
def test_ctc_logits_both_ways(tmp_path, capsys, config, class_, layer, more):
    theirs = randomise(class_(config(**sizes(layer, **more))))
    converted = convert(save(theirs, tmp_path / "hf"), tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "0 missing, 0 unexpected" in printed and "rows left out, which CTC never emits: <s>" in printed
    logits, assets = our_logits(converted)
    assert assets.tokenizer.vocab == OURS
    columns = [VOCABULARY[token] for token in THEIRS]
    expected = their_logits(theirs)
    for ours, hf in zip(logits, expected):
        torch.testing.assert_close(ours, hf[:, columns], atol=1e-6, rtol=0)

    exported = convert(converted, tmp_path / "back", "--to", "huggingface")
    only_hubert = more.keys() & {"conv_pos_batch_norm", "feat_proj_layer_norm"}
    kind = HubertForCTC if only_hubert else Wav2Vec2ForCTC
    name = json.loads((exported / "config.json").read_text())["architectures"][0]
    again, info = {"HubertForCTC": HubertForCTC, "Wav2Vec2ForCTC": Wav2Vec2ForCTC}[name].from_pretrained(
        exported, output_loading_info=True
    )
    assert isinstance(again, kind)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for ours, hf in zip(expected, their_logits(again.eval())):
        torch.testing.assert_close(ours[:, columns], hf, atol=1e-12, rtol=0)


@pytest.mark.parametrize("layer", [False, True])
def test_a_text_is_decoded_alike(tmp_path, layer):
    from transformers import Wav2Vec2Processor

    theirs = randomise(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes(layer))))
    convert(save(theirs, tmp_path / "hf", normalize=True), tmp_path / "ours")
    exported = convert(tmp_path / "ours", tmp_path / "back", "--to", "huggingface")
    processor = Wav2Vec2Processor.from_pretrained(exported)
    assert len(processor.tokenizer) == len(OURS)
    tokenizer = load_model(tmp_path / "ours")[2].tokenizer
    ids = [3, 3, 0, 3, 4, 2, 2, 0, 5, 4, 4]
    collapsed = [3, 3, 4, 2, 5, 4]
    assert processor.decode(ids) == tokenizer.decode(collapsed) == "EET 'T"
    assert tokenizer.encode("eet 't") == [3, 3, 4, 2, 5, 4]
    assert processor.tokenizer("EET 'T").input_ids == [3, 3, 4, 2, 5, 4]


def test_normalisation_of_waveforms_is_carried_over(tmp_path):
    from transformers import Wav2Vec2FeatureExtractor

    theirs = randomise(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes(True))))
    folder = save(theirs, tmp_path / "hf", normalize=True)
    model, config, _ = load_model(convert(folder, tmp_path / "ours"))
    assert config.model.encoder.normalize == "hf"
    quiet = (WAVES[0] * 0.001 + 0.3).float()
    prepared = Wav2Vec2FeatureExtractor.from_pretrained(folder)(quiet.numpy(), sampling_rate=16000)
    with torch.no_grad():
        expected = theirs.float()(torch.from_numpy(prepared["input_values"][0])[None]).logits[0]
        ours = model.head(model.encode_frames(batch([quiet])).frames)[0]
    torch.testing.assert_close(ours, expected[:, [VOCABULARY[t] for t in THEIRS]], atol=2e-4, rtol=0)


@pytest.mark.parametrize("layer", [False, True])
def test_pretraining_heads_both_ways(tmp_path, capsys, layer):
    theirs = randomise(Wav2Vec2ForPreTraining(Wav2Vec2Config(**sizes(layer))))
    converted = convert(save(theirs, tmp_path / "hf"), tmp_path / "ours")
    assert "0 missing, 0 unexpected" in capsys.readouterr().out
    model, config, _ = load_model(converted)
    assert config.model.name == "wav2vec2"
    quantizer = config.model.quantizer
    assert (quantizer.groups, quantizer.entries, quantizer.dim, config.model.projection_dim) == (2, 5, 12, 20)
    own = theirs.state_dict()
    for name in (
        "quantizer.codevectors",
        "quantizer.weight_proj.weight",
        "project_q.bias",
        "project_hid.weight",
    ):
        assert torch.equal(model.state_dict()[name], own[name])
    exported = convert(converted, tmp_path / "back", "--to", "huggingface")
    again, info = Wav2Vec2ForPreTraining.from_pretrained(exported, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(value, own[name]) for name, value in again.state_dict().items())


def test_an_encoder_alone_gets_new_heads_and_says_so(tmp_path, capsys):
    theirs = randomise(
        Wav2Vec2Model(Wav2Vec2Config(**sizes(True, mask_time_prob=0.0, mask_feature_prob=0.0)))
    )
    converted = convert(save(theirs, tmp_path / "hf"), tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "missing, drawn at random: encoder.masked_spec_embed" in printed
    assert "missing, drawn at random: quantizer.codevectors" in printed
    model, _, _ = load_model(converted)
    with torch.no_grad():
        for wave in WAVES:
            output = model.double().encoder(wave[None], torch.tensor([len(wave)]))
            expected = theirs.double()(wave[None]).last_hidden_state
            torch.testing.assert_close(output.frames, expected, atol=1e-10, rtol=0)


def test_hubert_keeps_its_heads_in_a_side_file(tmp_path, capsys):
    theirs = randomise(HubertModel(HubertConfig(**sizes(False))))
    folder = save(theirs, tmp_path / "hf")
    converted = convert(folder, tmp_path / "ours", "model.classes=[7]", "model.projection_dim=20")
    assert "missing, drawn at random: label_embs" in capsys.readouterr().out
    exported = convert(converted, tmp_path / "back", "--to", "huggingface")
    assert "pretraining_heads.safetensors" in capsys.readouterr().out
    again, info = HubertModel.from_pretrained(exported, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    last = convert(exported, tmp_path / "again")
    assert "0 missing" in capsys.readouterr().out
    first, second = (load_weights(path / "model.safetensors") for path in (converted, last))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("named", [True, False])
def test_unispeech_pretraining_heads_both_ways(tmp_path, capsys, named):
    """Phones are named by a vocabulary with as many of them as the head has rows, else numbered."""
    theirs = randomise(
        UniSpeechForPreTraining(UniSpeechConfig(**sizes(True, num_ctc_classes=8 if named else 9)))
    )
    converted = convert(save(theirs, tmp_path / "hf"), tmp_path / "ours")
    printed = capsys.readouterr().out
    assert "0 missing, 0 unexpected" in printed and ("are called p0, p1" in printed) != named
    model, config, assets = load_model(converted)
    assert config.model.name == "unispeech" and config.model.replace == 0.5
    assert config.model.contrastive.negatives_from_everywhere and config.model.projection_dim == 20
    own, mine = theirs.state_dict(), model.state_dict()
    for name in ("quantizer.codevectors", "project_q.weight", "project_hid.weight", "project_hid.bias"):
        assert torch.equal(mine[name], own[name])
    rows = [VOCABULARY[token] for token in THEIRS] if named else [5, 8, 0, 1, 2, 3, 4, 7]
    numbered = ["<blank>", "<unk>", "p0", "p1", "p2", "p3", "p4", "<sos/eos>"]
    assert assets.tokenizer.vocab == (OURS if named else numbered)
    assert torch.equal(mine["head.weight"], own["ctc_proj.weight"][rows])
    assert torch.equal(mine["head.bias"], own["ctc_proj.bias"][rows])

    exported = convert(converted, tmp_path / "back", "--to", "huggingface")
    again, info = UniSpeechForPreTraining.from_pretrained(exported, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert again.config.replace_prob == 0.5 and again.config.num_ctc_classes == len(rows)
    for name, value in again.state_dict().items():
        assert torch.equal(value, own[name][rows] if name.startswith("ctc_proj") else own[name])
    last = load_weights(convert(exported, tmp_path / "again") / "model.safetensors")
    assert last.keys() == mine.keys() and all(torch.equal(last[name], mine[name]) for name in last)


def test_shards_bin_and_old_names_hold_the_same(tmp_path):
    theirs = randomise(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes(True))))
    plain = load_weights(convert(save(theirs, tmp_path / "hf"), tmp_path / "ours") / "model.safetensors")
    sharded = save(theirs, tmp_path / "shards", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    old = save(theirs, tmp_path / "old")
    (old / "model.safetensors").unlink()
    new = "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original"
    state = theirs.state_dict()
    state["wav2vec2.encoder.pos_conv_embed.conv.weight_g"] = state.pop(new + "0")
    state["wav2vec2.encoder.pos_conv_embed.conv.weight_v"] = state.pop(new + "1")
    torch.save(state, old / "pytorch_model.bin")
    for folder in (sharded, old):
        found = load_weights(convert(folder, tmp_path / f"{folder.name}_ours") / "model.safetensors")
        assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in plain)


def test_legacy_weight_norm(tmp_path):
    from safetensors.torch import load_file

    theirs = randomise(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes(True))))
    convert(save(theirs, tmp_path / "hf"), tmp_path / "ours")
    out = convert(tmp_path / "ours", tmp_path / "b", "--to", "huggingface", "--legacy-weight-norm", "true")
    names = load_file(out / "model.safetensors").keys()
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in names
    assert not [name for name in names if "parametrizations" in name]
    again = Wav2Vec2ForCTC.from_pretrained(out).eval()
    columns = [VOCABULARY[token] for token in THEIRS]
    for ours, hf in zip(their_logits(theirs), their_logits(again)):
        torch.testing.assert_close(ours[:, columns], hf, atol=1e-12, rtol=0)


def test_a_plain_positional_convolution_is_split(tmp_path, capsys):
    from torch.nn.utils import parametrize

    theirs = randomise(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes(True))))
    expected = their_logits(theirs)
    folder = save(theirs.float(), tmp_path / "hf")
    parametrize.remove_parametrizations(theirs.wav2vec2.encoder.pos_conv_embed.conv, "weight")
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    logits, _ = our_logits(convert(folder, tmp_path / "ours"))
    assert "reshaped: the positional convolution's plain weight" in capsys.readouterr().out
    for ours, hf in zip(logits, expected):
        torch.testing.assert_close(ours, hf[:, [VOCABULARY[t] for t in THEIRS]], atol=1e-5, rtol=0)
