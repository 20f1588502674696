"""Hostile, damaged and foreign checkpoints: one clear line, nothing run, nothing half-written."""

import json
import os
import pickle
import re
import struct
import zipfile
from argparse import Namespace

import pytest
import torch
from foreign_checkpoints import (
    ARGS,
    LETTERS,
    MASK,
    TUNED,
    WAV2VEC2_HEADS,
    fairseq_state,
    rows,
    save,
    tensors,
    write_letters,
)
from safetensors.torch import load_file, save_file

from speechkit.bin.__main__ import main


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs `speechkit convert` on a path; returns the message, checks that nothing was written or run."""

    def convert(path, *options, status=1):
        out = tmp_path / "out" / "model"
        assert main(["convert", "--model", str(path), "--out", str(out), *map(str, options)]) == status
        message = capsys.readouterr().err
        assert "Traceback" not in message and len(message.splitlines()) == 1
        assert not out.parent.exists() or list(out.parent.iterdir()) == []
        assert not (tmp_path / "pwned").exists()
        return message

    return convert


def group():
    table = rows("group", MASK, WAV2VEC2_HEADS)
    return {row[0]: value for row, value in zip(table, tensors(table))}


@pytest.fixture
def good(tmp_path):
    return save(fairseq_state(group(), "args", ARGS), tmp_path / "good.pt")


def rewrite(path, out, change):
    """Copies a zip with its entries changed: `change(name, content)` gives (name, content), or None."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if (entry := change(name, old.read(name))) is not None:
                new.writestr(*entry)
    return out


# ---- hostile --------------------------------------------------------------------------------------------


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(path):
    mark = path / "pwned"
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": (Runs(os.system, f"touch {mark}"), "posix.system"),
        "eval": (Runs(eval, code), "builtins.eval"),
        "getattr": (Runs(getattr, Namespace(x=1), "x"), "builtins.getattr"),
        "within": ({"a": [Namespace(b=Runs(exec, code))]}, "builtins.exec"),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("how", ["os.system", "eval", "getattr", "within"])
def test_a_fairseq_file_that_runs_code(tmp_path, refused, how, legacy):
    bad, name = hostile(tmp_path)[how]
    path = save(fairseq_state(group(), "args", {**ARGS, "evil": bad}), tmp_path / "evil.pt", legacy)
    message = refused(path)
    assert f"evil.pt: refused: it names {name}, which a checkpoint has no use for; nothing was run" in message


@pytest.mark.parametrize("how", ["os.system", "eval", "getattr"])
def test_a_bin_file_that_runs_code(tmp_path, refused, how):
    bad, name = hostile(tmp_path)[how]
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    torch.save({"x": bad}, tmp_path / "pytorch_model.bin")
    name = name.removeprefix("builtins.")
    assert f"pytorch_model.bin: refused: it names {name}; nothing was run" in refused(tmp_path)


def test_a_bare_pickle_that_runs_code(tmp_path, refused):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path}/pwned"), 2))
    assert "refused: it names posix.system" in refused(tmp_path / "evil.pt")


def test_the_hostile_files_would_run_if_they_were_unpickled(tmp_path):
    pickle.loads(pickle.dumps(hostile(tmp_path)["os.system"][0], 2))
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["../evil", "archive/../../evil", "/etc/evil", "a\\..\\b"])
def test_entries_outside_the_folder_of_the_archive(tmp_path, refused, good, name):
    path = rewrite(good, tmp_path / "evil.pt", lambda n, c: (n, c))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    assert "refused: the archive has an entry" in refused(path)


def test_a_storage_key_that_is_a_path(tmp_path, refused, good):
    def change(name, content):
        return name, content.replace(b"X\x01\x00\x00\x000q", b"X\x06\x00\x00\x00../../q", 1)

    path = rewrite(good, tmp_path / "evil.pt", change)
    message = refused(path)
    assert "refused: a storage called '../../'" in message


def test_compressed_entries(tmp_path, refused, good):
    with (
        zipfile.ZipFile(good) as old,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is compressed, which torch.save never does" in refused(tmp_path / "bomb.pt")


def test_shards_outside_the_folder(tmp_path, refused):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "refused: shard '../secret.safetensors' is not a file of this folder" in refused(tmp_path)


# ---- damaged or another kind of file --------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files(tmp_path, refused, legacy, share):
    path = save(fairseq_state(group(), "args", ARGS), tmp_path / "cut.pt", legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert re.search("damaged|cut short|empty|not a file of torch.save", refused(path))


def test_a_flipped_byte_is_noticed(tmp_path, refused, good):
    content = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        info = max(archive.infolist(), key=lambda i: i.file_size * (".pkl" not in i.filename))
    content[info.header_offset + 200] ^= 0xFF
    good.write_bytes(content)
    assert "damaged or cut short" in refused(good)


@pytest.mark.parametrize("place", ["in front of an entry", "in the table of entries"])
def test_a_flipped_byte_of_a_name_is_noticed(refused, good, place):
    content = bytearray(good.read_bytes())
    find = content.index if place == "in front of an entry" else content.rindex
    content[find(b"data.pkl")] = 0x9E  # no UTF-8
    good.write_bytes(content)
    assert "damaged or cut short" in refused(good)


@pytest.mark.parametrize("claimed", [10**9, 2**62])
def test_a_storage_longer_than_the_file_takes_no_memory(tmp_path, refused, claimed):
    path = save({"args": ARGS, "model": {"a": torch.ones(12345)}}, tmp_path / "x.pt", legacy=True)
    content = path.read_bytes()
    for written in (_number, lambda value: struct.pack("<q", value)):
        assert content.count(written(12345)) >= 1
        content = content.replace(written(12345), written(claimed))
    path.write_bytes(content)
    assert re.search("damaged or cut short|reaches beyond its data", refused(path))


def _number(value: int) -> bytes:
    """A whole number as torch.save pickles it."""
    return pickle.dumps(value, 2)[2:-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(50), r"not a file of torch.save \(it begins with b'GIF8'\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer"),
        (struct.pack("<Q", 2) + b"{}", "a safetensors file; give the folder"),
        (pickle.dumps([1, 2], 2), "a bare pickle, not a file of torch.save"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut short"),
    ],
)
def test_wrong_magic(tmp_path, refused, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    assert re.search(message, refused(tmp_path / "x.pt"))


def test_a_zip_of_something_else(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip archive, but not one of torch.save" in refused(tmp_path / "x.pt")


def test_a_torchscript_program(tmp_path, refused, good):
    path = rewrite(good, tmp_path / "x.pt", lambda n, c: (n, c))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("good/constants.pkl", b"\x80\x02).")
    assert "a TorchScript program, not a checkpoint" in refused(path)


def test_a_missing_storage(tmp_path, refused, good):
    path = rewrite(good, tmp_path / "x.pt", lambda n, c: None if n.endswith("/data/3") else (n, c))
    assert "damaged or cut short" in refused(path)


def test_no_such_file_and_folders_of_nothing(tmp_path, refused):
    assert "no such file" in refused(tmp_path / "nowhere.pt")
    (tmp_path / "empty").mkdir()
    assert "neither a SpeechKit checkpoint" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    "value", [{"state": 1}, [1, 2], {"model": {"a": 3}, "args": None}, {"model": 1, "cfg": {}}]
)
def test_torch_files_of_something_else(tmp_path, refused, value):
    torch.save(value, tmp_path / "x.pt")
    assert re.search(
        "neither fairseq's trainer, ESPnet nor torchaudio|not a table of tensors", refused(tmp_path / "x.pt")
    )


# ---- another family, or weights that are not the model's ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("encoder.layers.0.self_attn.relative_attention_bias.weight", {}, "WavLM"),
        ("encoder.layers.0.self_attn.grep_linear.weight", {"arch": "wavlm"}, "WavLM"),
        ("regression_head.0.weight", {}, "data2vec"),
        ("mask", {"arch": "data2vec_audio"}, "data2vec"),
        ("feature_aggregator.conv_layers.0.1.weight", {}, "wav2vec of 2019"),
        ("decoder.embed_tokens.weight", {"arch": "wav2vec_seq2seq"}, "an attention decoder"),
    ],
)
def test_other_families_of_fairseq(tmp_path, refused, name, config, message):
    state = fairseq_state({**group(), name: torch.ones(2)}, "args", {**ARGS, **config})
    found = refused(save(state, tmp_path / "x.pt"))
    assert f"x.pt: {message}; only encoders of wav2vec 2.0, HuBERT and UniSpeech are supported" in found


def hugging(folder, config=None, change=None):
    """A Hugging Face folder of the layer variant with names written by hand."""
    folder.mkdir(exist_ok=True)
    table = rows("layer", MASK)
    state = {f"wav2vec2.{hf}": value for (_, hf, *_), value in zip(table, tensors(table))}
    state |= {"lm_head.weight": torch.randn(7, 24), "lm_head.bias": torch.randn(7)}
    values = {
        "model_type": "wav2vec2",
        "architectures": ["Wav2Vec2ForCTC"],
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "conv_dim": [16, 16, 16],
        "conv_kernel": [10, 3, 2],
        "conv_stride": [5, 2, 2],
        "conv_bias": True,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        **(config or {}),
    }
    (folder / "config.json").write_text(json.dumps(values))
    names = ["<pad>", "<unk>", *LETTERS]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    if change is not None:
        change(state)
    save_file(state, folder / "model.safetensors")
    return folder


def test_the_hand_written_folder_is_good(tmp_path):
    out = tmp_path / "ours"
    assert main(["convert", "--model", str(hugging(tmp_path / "hf")), "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' is not supported, only wav2vec2, hubert, unispeech"),
        ({"model_type": "wavlm"}, "model_type 'wavlm' is not supported"),
        ({"model_type": "data2vec-audio"}, "model_type 'data2vec-audio' is not supported"),
        ({"model_type": "wav2vec2-conformer"}, "model_type 'wav2vec2-conformer' is not supported"),
        ({"model_type": ["wav2vec2"]}, "is not supported"),
        ({"architectures": ["Wav2Vec2ForSequenceClassification"]}, "has a head that SpeechKit does not read"),
        ({"architectures": [7]}, "7 has a head that SpeechKit does not read"),
        ({"architectures": 7}, "7 has a head that SpeechKit does not read"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported, only 'gelu'"),
        ({"add_adapter": True}, "add_adapter=True is not supported"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim=16 is not supported"),
        ({"feat_proj_layer_norm": False}, r"feature_projection.layer_norm.\S+: unexpected"),
        ({"pad_token_id": 3}, "'<pad>' has the id 0, but pad_token_id in config.json, the blank, is 3"),
        ({"hidden_size": 32}, r"encoder.masked_spec_embed: \(24,\) in the file, \(32,\) in the model"),
        ({"num_hidden_layers": 3}, r"encoder.encoder.layers.2.\S+: missing in the file.*; and \d+ more"),
        ({"num_hidden_layers": 1}, r"encoder.encoder.layers.1.\S+: unexpected, the model has no such weight"),
        ({"conv_bias": False}, r"conv_layers.0.conv.bias: unexpected"),
        ({"hidden_size": "24"}, "model.encoder.dim: expected a whole number, got '24'"),
        ({"num_attention_heads": 5}, "dim=24 must be divisible by heads=5"),
    ],
)
def test_other_huggingface_models(tmp_path, refused, config, message):
    assert re.search(message, refused(hugging(tmp_path / "hf", config)))


@pytest.mark.parametrize(
    "config",
    [
        [],
        {},
        {"extractor_mode": "group_norm"},
        {"extractor_mode": "layer_norm", "extractor_conv_layer_config": 3},
        {
            "extractor_mode": ["x"],
            "extractor_conv_layer_config": [[8, 10, 5]],
            "encoder_layer_norm_first": True,
        },
        {
            "extractor_mode": "group_norm",
            "extractor_conv_layer_config": [[8]],
            "encoder_layer_norm_first": True,
        },
    ],
)
def test_other_configurations_beside_torchaudios_weights(tmp_path, refused, config):
    table = rows("group")
    path = save({row[2]: value for row, value in zip(table, tensors(table))}, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "config.json: not the arguments of torchaudio's wav2vec2_model" in refused(path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pos_conv_embed.conv.parametrizations", "the positional convolution is not in the file"),
        ("original1", "the positional convolution is not in the file"),
        ("layers.1.attention.k_proj.bias", "k_proj.bias: missing in the file"),
        ("feature_projection.layer_norm", "feature_projection.layer_norm.weight: missing in the file"),
        ("lm_head.bias", "the CTC head has no bias"),
    ],
)
def test_tensors_that_are_not_there(tmp_path, refused, pattern, message):
    def drop(state):
        for name in [name for name in state if pattern in name]:
            del state[name]

    assert message in refused(hugging(tmp_path / "hf", change=drop))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "wav2vec2.encoder.layers.0.attention.gru_rel_pos_linear.weight",
            "unexpected, the model has no such",
        ),
        ("classifier.weight", "classifier.weight: unexpected"),
        ("wav2vec2.adapter.layers.0.conv.weight", "unexpected"),
    ],
)
def test_tensors_that_no_encoder_has(tmp_path, refused, name, message):
    assert message in refused(hugging(tmp_path / "hf", change=lambda s: s.update({name: torch.ones(2)})))


def test_weights_that_are_not_finite(tmp_path, refused):
    def spoil(state):
        state["wav2vec2.encoder.layer_norm.bias"][3] = float("nan")

    folder = hugging(tmp_path / "hf", change=spoil)
    assert "encoder.encoder.layer_norm.bias: holds numbers that are not finite" in refused(folder)


def test_half_a_head_of_pretraining(tmp_path, refused):
    model = group()
    del model["quantizer.weight_proj.bias"]
    path = save(fairseq_state(model, "args", ARGS), tmp_path / "x.pt")
    assert "quantizer.weight_proj.bias: missing in the file" in refused(path)


def test_the_positional_convolution_of_a_fairseq_file(tmp_path, refused):
    model = group()
    del model["encoder.pos_conv.0.weight_g"]
    path = save(fairseq_state(model, "args", ARGS), tmp_path / "x.pt")
    assert "the positional convolution is not in the file" in refused(path)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.5, 0.99])
def test_truncated_safetensors(tmp_path, refused, share):
    folder = hugging(tmp_path / "hf")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    assert "model.safetensors: damaged or cut short" in refused(folder)


def test_shards_that_are_missing_or_short(tmp_path, refused):
    folder = hugging(tmp_path / "hf")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "no weights (model.safetensors or pytorch_model.bin" in refused(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: "part.safetensors" for name in state}}))
    assert "part.safetensors: no such file" in refused(folder)
    save_file({"other": torch.ones(1)}, folder / "part.safetensors")
    assert "tensors are in no shard" in refused(folder)
    index.write_text("[]")
    assert "index.json: no weight_map" in refused(folder)


@pytest.mark.parametrize("count", [6, 8])
def test_a_vocabulary_of_another_model(tmp_path, refused, count):
    folder = hugging(tmp_path / "hf")
    names = ["<pad>", "<unk>", *"|ABCDEF"][:count]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    message = refused(folder)
    assert (
        f"vocab.json: {count} tokens, but the CTC head has 7 rows; this is the vocabulary of another"
        in message
    )


def test_a_dictionary_of_another_model(tmp_path, refused):
    table = rows("group", MASK)
    model = {f"w2v_encoder.w2v_model.{row[0]}": value for row, value in zip(table, tensors(table))}
    model |= {"w2v_encoder.proj.weight": torch.ones(9, 24), "w2v_encoder.proj.bias": torch.ones(9)}
    state = fairseq_state(model, "args", {**TUNED, "w2v_args": Namespace(**ARGS)})
    path = save(state, tmp_path / "x.pt")
    letters = write_letters(tmp_path / "letters", ["|", "A"])
    assert "letters: 6 tokens, but the CTC head has 9 rows" in refused(path, "--dictionary", letters)
    assert "nowhere: no such file" in refused(path, "--dictionary", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"conv_feature_layers": "__import__('os').system('x')"}, "conv_feature_layers: .* is not a list of"),
        ({"encoder_embed_dim": "wide"}, "expected a whole number, got 'wide'"),
        ({"encoder_layers": 3}, "encoder.encoder.layers.2"),
        ({"sample_rate": 8000}, "trained on speech of 8000 Hz"),
        ({"dropout": "high"}, "dropout"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path, refused, config, message):
    path = save(fairseq_state(group(), "args", {**ARGS, **config}), tmp_path / "x.pt")
    assert re.search(message, refused(path))


def test_options(tmp_path, refused, good):
    assert "--legacy-weight-norm true belongs to" in refused(good, "--legacy-weight-norm", "true", status=2)
    assert "only values of model.*" in refused(good, "seed=3", status=2)
    assert "unknown key" in refused(good, "model.encoder.width=3")


def test_what_cannot_be_exported(tmp_path, refused, good, capsys):
    ours = tmp_path / "ours"
    assert main(["convert", "--model", str(good), "--out", str(ours)]) == 0
    capsys.readouterr()
    assert "SpeechKit's already" in refused(ours, status=2)
    assert "SpeechKit's already" in refused(ours, "--to", "huggingface", "model.dropout=0.1", status=2)
    config = (ours / "config.yaml").read_text()
    for old, new, message in (
        ("targets: gumbel", "targets: linear", "weights of another model"),
        ("blocks: transformer", "blocks: conformer", "weights of another model"),
    ):
        assert old in config
        (ours / "config.yaml").write_text(config.replace(old, new))
        assert message in refused(ours, "--to", "huggingface")


def test_encoders_that_other_toolkits_do_not_have(tmp_path, refused):
    from speechkit.config import load_config
    from speechkit.models.assets import Assets
    from speechkit.train.checkpoint import save_checkpoint
    from speechkit.train.run import RunConfig
    from speechkit.train.setup import build_model

    def make(name, *overrides):
        config = load_config(
            RunConfig, overrides=["model.encoder.preset=tiny", "model.encoder.layers=1", *overrides]
        )
        model = build_model(config, Assets())
        save_checkpoint(tmp_path / name, model.state_dict(), config, Assets())
        return tmp_path / name

    conformer = make("a", "model.name=wav2vec2", "model.encoder.blocks=conformer")
    message = "transformers has no wav2vec2 encoder of conformer blocks"
    assert message in refused(conformer, "--to", "huggingface")
    assert "only wav2vec2 encoders of plain Transformer blocks" in refused(conformer, "--to", "torchaudio")
    adapted = make("b", "model.name=wav2vec2", "model.encoder.adapter.dim=2")
    assert "model.encoder.adapter: transformers' encoders have no such part" in refused(
        adapted, "--to", "huggingface"
    )
    linear = make("c", "model.name=wav2vec2", "model.targets=linear")
    assert "transformers has no pre-training without a quantizer" in refused(linear, "--to", "huggingface")
    bare = make("d", "model.name=wav2vec2", "model.encoder.feature_norm=false")
    message = "model.encoder.feature_norm=false: torchaudio has no such encoder"
    assert message in refused(bare, "--to", "torchaudio")
