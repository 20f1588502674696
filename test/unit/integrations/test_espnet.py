"""ESPnet's checkpoints with names written down by hand; ESPnet itself is asked in test/parity."""

import pytest
import torch
import yaml

from speechkit.bin.__main__ import main
from speechkit.errors import InputError
from speechkit.integrations.espnet_config import decoder_values, encoder_values, transducer_values
from speechkit.integrations.espnet_features import feature_values
from speechkit.text.subword import SubwordUnits
from speechkit.text.tokenizer import build_tokenizer
from speechkit.train.checkpoint import load_model

V, D, U = 6, 8, 12
ATTENTION = [f"linear_{part}" for part in ("q", "k", "v", "out")]
TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"]


def linear(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name):
    return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def shapes(V=V):
    """Names and shapes of a Transformer of one block each side with CTC and global normalisation."""
    table = {"encoder.embed.conv.0.weight": (D, 1, 3, 3), "encoder.embed.conv.0.bias": (D,)}
    table |= {"encoder.embed.conv.2.weight": (D, D, 3, 3), "encoder.embed.conv.2.bias": (D,)}
    table |= linear("encoder.embed.out.0", D, 19 * D) | norm("encoder.after_norm")
    for place, attentions, norms in (
        ("encoder.encoders.0", ["self_attn"], ["norm1", "norm2"]),
        ("decoder.decoders.0", ["self_attn", "src_attn"], ["norm1", "norm2", "norm3"]),
    ):
        for attention in attentions:
            for part in ATTENTION:
                table |= linear(f"{place}.{attention}.{part}", D, D)
        table |= linear(f"{place}.feed_forward.w_1", U, D) | linear(f"{place}.feed_forward.w_2", D, U)
        for name in norms:
            table |= norm(f"{place}.{name}")
    table |= {"decoder.embed.0.weight": (V, D)} | norm("decoder.after_norm")
    table |= linear("decoder.output_layer", V, D) | linear("ctc.ctc_lo", V, D)
    return table | {"normalize.mean": (80,), "normalize.std": (80,), "frontend.logmel.melmat": (257, 80)}


CONFIG = {
    "encoder": "transformer",
    "encoder_conf": {"output_size": D, "attention_heads": 2, "linear_units": U, "num_blocks": 1},
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": U, "num_blocks": 1},
    "model_conf": {"ctc_weight": 0.3},
    "frontend": "default",
    "frontend_conf": {"fs": "16k", "hop_length": 160},
    "normalize": "global_mvn",
    "token_type": "char",
    "token_list": TOKENS,
}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint; the file, and its tensors."""
    torch.manual_seed(1)
    state = {name: torch.rand(shape) + 0.1 for name, shape in shapes().items()}
    torch.save(state, tmp_path / "valid.acc.ave.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path / "valid.acc.ave.pth", state


def rewrite(path, **changes):
    path.with_name("config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))


def test_every_weight_finds_its_place(saved, tmp_path, capsys):
    path, state = saved
    tokens = [*TOKENS[3:], "<blank>", "<space>", "<unk>"]  # in another order
    rewrite(path, token_list=tokens)
    assert main(["convert", "--from", "espnet", "--model", str(path), "--out", str(tmp_path / "ours")]) == 0
    said = capsys.readouterr().out
    assert ", 0 missing, 1 unexpected" in said and "frontend.logmel.melmat" in said
    assert "rows of tokens: blank first" in said and "joined" in said
    model, run, assets = load_model(tmp_path / "ours")
    assert run.model.name == "attention" and run.model.weights.ctc == 0.3
    assert (run.features.name, run.features.shift, run.features.bins) == ("logmel", 160, 80)
    assert assets.tokenizer.vocab == ["<blank>", "<unk>", "a", "b", "▁", "<sos/eos>"]
    order = [3, 5, 0, 1, 4, 2]
    for name, theirs in (("head", "ctc.ctc_lo"), ("decoder.output", "decoder.output_layer")):
        layer = model.get_submodule(name)
        assert torch.equal(layer.weight, state[f"{theirs}.weight"][order])
        assert torch.equal(layer.bias, state[f"{theirs}.bias"][order])
    assert torch.equal(model.decoder.embedding.weight, state["decoder.embed.0.weight"][order])
    block, theirs = model.decoder.blocks[0], "decoder.decoders.0"
    parts = [state[f"{theirs}.src_attn.linear_{part}.weight"] for part in "kv"]
    assert torch.equal(block.context.key_value.weight, torch.cat(parts))
    parts = [state[f"{theirs}.self_attn.linear_{part}.bias"] for part in "qkv"]
    assert torch.equal(block.attention.qkv.bias, torch.cat(parts))
    assert torch.equal(block.norm_context.bias, state[f"{theirs}.norm2.bias"])
    front, theirs = model.encoder.subsampling, "encoder.embed"
    assert torch.equal(front.convs[1].weight, state[f"{theirs}.conv.2.weight"])
    assert torch.equal(front.out.weight, state[f"{theirs}.out.0.weight"])
    features = torch.randn(3, 80)
    expected = (features - state["normalize.mean"]) / state["normalize.std"]
    torch.testing.assert_close(model.cmvn(features), expected, rtol=1e-5, atol=1e-5)


def test_subwords_are_those_of_its_sentencepiece_model(tmp_path, capsys):
    build_tokenizer("bpe", ["abba baba ab", "bab abab aab"] * 9, size=9).save(tmp_path / "made")
    units = SubwordUnits((tmp_path / "made/spm.model").read_bytes(), "made")
    tokens = ["<blank>", "<unk>", *units.tokens(), "<sos/eos>"]
    exp, out = tmp_path / "exp/asr", tmp_path / "ours"
    exp.mkdir(parents=True)
    torch.save({name: torch.rand(shape) for name, shape in shapes(len(tokens)).items()}, exp / "x.pth")
    subwords = {"token_type": "bpe", "bpemodel": "data/bpe.model", "token_list": tokens}
    rewrite(exp / "x.pth", **subwords)
    (tmp_path / "data").mkdir()  # where ESPnet's recipe has it: relative to the folder above exp
    (tmp_path / "data/bpe.model").write_bytes(units.model)
    assert main(["convert", "--model", str(exp / "x.pth"), "--out", str(out)]) == 0
    tokenizer = load_model(out)[2].tokenizer
    assert tokenizer.vocab == tokens and tokenizer.decode(tokenizer.encode("ab baba")) == "ab baba"
    rewrite(exp / "x.pth", **{**subwords, "token_list": [*tokens[:-2], "other", "<sos/eos>"]})
    assert main(["convert", "--model", str(exp / "x.pth"), "--out", str(tmp_path / "no")]) == 1
    assert "its pieces are not those of token_list" in capsys.readouterr().err


def test_a_checkpoint_of_the_trainer_is_read_too(saved, tmp_path):
    path, state = saved
    torch.save({"model": state, "reporter": {}, "optimizers": []}, tmp_path / "checkpoint.pth")
    out = tmp_path / "ours"
    assert main(["convert", "--model", str(tmp_path / "checkpoint.pth"), "--out", str(out)]) == 0
    model, _, _ = load_model(out)
    assert torch.equal(model.head.bias, state["ctc.ctc_lo.bias"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"token_list": TOKENS[:-1]}, "'<sos/eos>' must stand there once"),
        ({"token_list": [*TOKENS[:-1], "c", TOKENS[-1]]}, "7 tokens, but head has 6 rows"),
        ({"token_list": "tokens.txt"}, "token_list=tokens.txt: no such file here or beside config.yaml"),
        ({"token_type": "bpe", "bpemodel": "bpe.model"}, "bpemodel=bpe.model: no such file"),
        ({"token_type": "hugging_face"}, "token_type=hugging_face: is not supported"),
        ({"decoder": "mlm"}, "the decoder 'mlm' is not supported"),
        ({"frontend": "s3prl"}, "frontend=s3prl: is not supported"),
        ({"model": "maskctc"}, "model=maskctc"),
        ({"encoder_conf": {**CONFIG["encoder_conf"], "num_blocks": 2}}, "missing in the file"),
        ({"encoder_conf": {**CONFIG["encoder_conf"], "output_size": 16}}, "in the file"),
        ({"encoder_conf": {**CONFIG["encoder_conf"], "num_blocks": "one"}}, "num_blocks|layers"),
    ],
)
def test_what_cannot_be_converted_is_said(saved, tmp_path, capsys, changes, says):
    path, _ = saved
    rewrite(path, **changes)
    assert main(["convert", "--model", str(path), "--out", str(tmp_path / "ours")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(part in lines[-1] for part in says.split("|")), lines
    assert not (tmp_path / "ours").exists()


def test_files_that_are_not_there_or_of_others(saved, tmp_path, capsys):
    path, state = saved
    command = ["convert", "--model", str(path), "--out", str(tmp_path / "ours")]
    assert main([*command, "--from", "fairseq"]) == 2
    assert "is ESPnet, transformer, and --from says fairseq" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("encoder: !!python/object:os.system {}\n")
    assert main(command) == 1 and "not YAML that can be read safely" in capsys.readouterr().err
    (tmp_path / "config.yaml").unlink()
    assert main(command) == 1 and "ESPnet writes it beside the .pth" in capsys.readouterr().err


def test_encoders_that_are_not_ours_stay_espnets():
    conf = {"output_size": 16, "macaron_style": True}
    values, why = encoder_values("conformer", conf)
    assert values == {"name": "espnet", "module": "conformer", "options": conf}
    assert why == "rel_pos with rel_selfattn, rel_pos_type=legacy"
    assert encoder_values("e_branchformer", conf)[1] == "the encoder 'e_branchformer'"
    values, why = encoder_values("conformer", {**conf, "rel_pos_type": "latest", "input_layer": "conv2d6"})
    assert why is None and values["subsampling"]["factor"] == 6 and values["positions"] == "relative"
    values, why = encoder_values("rnn", {"num_layers": 5})
    assert why is None and values["strides"] == [2, 2, 1, 1, 1]
    with pytest.raises(InputError, match="reads its CTC head"):
        encoder_values("conformer", {**conf, "interctc_use_conditioning": True})


def test_decoders_that_are_not_ours_are_refused():
    with pytest.raises(InputError, match="'rnn' with rnn_type=gru, atype=coverage"):
        decoder_values("rnn", {"rnn_type": "gru", "att_conf": {"atype": "coverage"}}, D)
    with pytest.raises(InputError, match="joint_activation_type=relu"):
        transducer_values({}, {"joint_activation_type": "relu"})


MELS = {"name": "logmel", "rate": 16000, "normalise": "none"}


@pytest.mark.parametrize(
    ("whole", "values", "bins"),
    [
        ({"input_size": 83}, None, 83),
        ({"input_size": 80}, {"name": "fbank", "normalise": "none"}, 80),
        ({"frontend_conf": {"fs": "8k", "n_mels": 40}}, {**MELS, "rate": 8000, "bins": 40}, 40),
        ({"normalize": "utterance_mvn"}, {**MELS, "normalise": "mean"}, 80),
    ],
)
def test_features(whole, values, bins):
    found, count, _ = feature_values(whole)
    assert (found, count) == (values, bins)


@pytest.mark.parametrize("conf", [{"window": "hamming"}, {"fs": "fast"}, {"something": 1}])
def test_features_that_are_not_ours_are_refused(conf):
    with pytest.raises(InputError, match="frontend_conf"):
        feature_values({"frontend_conf": conf})
