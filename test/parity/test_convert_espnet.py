"""ESPnet's models, saved as ESPnet saves them and converted, say what they say in ESPnet."""

import pytest
import torch
import yaml

from speechkit.bin.__main__ import main
from speechkit.config import from_dict, load_kind
from speechkit.data.batch import Batch, pad
from speechkit.frontends import FEATURES, logmel
from speechkit.integrations.espnet_features import NAMED
from speechkit.train.checkpoint import load_model

pytestmark = pytest.mark.peers
pytest.importorskip("espnet2.asr.encoder.conformer_encoder", reason="ESPnet is not installed")

BINS, DIM = 80, 16
TOKENS = ["<blank>", "<unk>", "<space>", "E", "T", "A", "N", "<sos/eos>"]
HEADS = {"output_size": DIM, "attention_heads": 2, "linear_units": 24, "num_blocks": 2}
LATEST = {"macaron_style": True, "rel_pos_type": "latest", "cnn_module_kernel": 7}
ABSOLUTE = {"pos_enc_layer_type": "abs_pos", "selfattention_layer_type": "selfattn"}
RNN = {"num_layers": 3, "hidden_size": 6, "output_size": DIM}
ENCODERS = {
    "conformer": [
        {**HEADS, **LATEST},
        {**HEADS, **LATEST, "input_layer": "conv2d8"},
        {
            **HEADS,
            "macaron_style": True,
            "pos_enc_layer_type": "abs_pos",
            "selfattention_layer_type": "selfattn",
        },
        {**HEADS, "cnn_module_kernel": 7},  # positions of the old kind: ESPnet's own module runs
    ],
    "transformer": [{**HEADS, "input_layer": "conv2d6"}, {**HEADS, "normalize_before": False}],
    "rnn": [{**RNN, "subsample": [2, 2]}],
    "vgg_rnn": [RNN],
    "e_branchformer": [{**HEADS, "cgmlp_linear_units": 24, "cgmlp_conv_kernel": 7}],
}
CASES = [
    pytest.param(name, conf, id=f"{name}-{i}")
    for name, confs in ENCODERS.items()
    for i, conf in enumerate(confs)
]


def randomise(module):
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return module.eval()


def of_table(name, conf):
    from speechkit.integrations.espnet_encoder import find_class

    return randomise(find_class(name)(input_size=BINS, **conf))


def save(folder, parts, whole):
    """exp/asr_x/{valid.acc.ave.pth,config.yaml}; `parts` of the model by their names there."""
    folder.mkdir()
    state = {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    torch.save(state, folder / "valid.acc.ave.pth")
    known = {"token_list": TOKENS, "token_type": "char", "input_size": BINS, "normalize": None}
    (folder / "config.yaml").write_text(yaml.safe_dump({**known, **whole}))
    return folder / "valid.acc.ave.pth"


def convert(path, capsys):
    assert (
        main(["convert", "--from", "espnet", "--model", str(path), "--out", str(path.parent / "ours")]) == 0
    )
    said = capsys.readouterr().out
    assert " 0 missing," in said
    model, run, assets = load_model(path.parent / "ours")
    assert assets.tokenizer.vocab == ["<blank>", "<unk>", "▁", "E", "T", "A", "N", "<sos/eos>"]
    return model.double().eval(), run, said


def utterance(frames=61):
    torch.manual_seed(2)
    return torch.randn(1, frames, BINS).double(), torch.tensor([frames])


@torch.no_grad()
@pytest.mark.parametrize(("name", "conf"), CASES)
def test_encoder_and_ctc(tmp_path, capsys, name, conf):
    from espnet2.asr.ctc import CTC

    torch.manual_seed(1)
    encoder, ctc = of_table(name, conf), randomise(CTC(len(TOKENS), DIM))
    whole = {"encoder": name, "encoder_conf": conf, "decoder": None, "model_conf": {"ctc_weight": 1.0}}
    model, run, said = convert(save(tmp_path / "exp", {"encoder": encoder, "ctc": ctc}, whole), capsys)
    foreign = name == "e_branchformer" or conf == ENCODERS["conformer"][-1]
    assert (run.model.encoder.name == "espnet") == foreign == ("run by ESPnet itself" in said)
    x, lengths = utterance()
    frames, sizes, _ = encoder.double()(x.clone(), lengths)
    fields = {"features": pad([x[0]]), "tokens": pad([torch.tensor([3])])}
    found, lengths = model.encode(Batch(["u"], torch.tensor([1]), None, fields))["ctc"]
    assert lengths.tolist() == list(map(int, sizes))
    torch.testing.assert_close(found, ctc.double().log_softmax(frames), rtol=0, atol=1e-5)


DECODERS = {
    "transformer": {"attention_heads": 2, "linear_units": 24, "num_blocks": 2},
    "rnn": {"num_layers": 2, "hidden_size": 14, "att_conf": {"adim": 12, "aconv_chans": 3, "aconv_filts": 4}},
}


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
def test_attention_decoder(tmp_path, capsys, name):
    from espnet2.asr.ctc import CTC
    from espnet2.asr.decoder.rnn_decoder import RNNDecoder
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

    torch.manual_seed(1)
    conf = ENCODERS["conformer"][0]
    kind = {"transformer": TransformerDecoder, "rnn": RNNDecoder}[name]
    parts = {"encoder": of_table("conformer", conf), "ctc": randomise(CTC(len(TOKENS), DIM))}
    parts["decoder"] = randomise(kind(len(TOKENS), DIM, **DECODERS[name]))
    whole = {"encoder": "conformer", "encoder_conf": conf, "decoder": name, "decoder_conf": DECODERS[name]}
    whole["model_conf"] = {"ctc_weight": 0.3, "lsm_weight": 0.1}
    model, run, _ = convert(save(tmp_path / "exp", parts, whole), capsys)
    assert run.model.weights.ctc == 0.3 and run.model.label_smoothing == 0.1
    x, lengths = utterance()
    frames, sizes, _ = parts["encoder"].double()(x.clone(), lengths)
    tokens = torch.tensor([[7, 3, 4, 2, 6]])
    expected, _ = parts["decoder"].double()(frames, sizes, tokens, torch.tensor([5]))
    heard = model.encoder(x, lengths)
    found = model.decoder.output(model.decoder(tokens, heard.frames, heard.lengths))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_transducer(tmp_path, capsys, bias):
    from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
    from espnet2.asr_transducer.joint_network import JointNetwork

    torch.manual_seed(1)
    conf, joint = ENCODERS["conformer"][0], {"joint_space_size": 11, "lin_dec_bias": bias}
    decoder = TransducerDecoder(len(TOKENS), num_layers=2, hidden_size=9)
    parts = {"encoder": of_table("conformer", conf), "decoder": randomise(decoder)}
    parts["joint_network"] = randomise(JointNetwork(len(TOKENS), DIM, 9, **joint))
    whole = {"encoder": "conformer", "encoder_conf": conf, "decoder": "transducer", "joint_net_conf": joint}
    whole |= {"decoder_conf": {"num_layers": 2, "hidden_size": 9}, "model_conf": {"ctc_weight": 0.0}}
    model, run, _ = convert(save(tmp_path / "exp", parts, whole), capsys)
    assert run.model.name == "transducer" and model.head is None
    x, lengths = utterance()
    frames, _, _ = parts["encoder"].double()(x.clone(), lengths)
    labels = torch.tensor([[3, 5, 4]])
    states = decoder(torch.nn.functional.pad(labels, (1, 0))).double()  # whose first states are of fp32
    joined = parts["joint_network"].double()(frames[:, :, None], states[:, None]).log_softmax(-1)
    f = model.joint.of_frames(model.encoder(x, lengths).frames)
    g = model.joint.of_states(model.prediction(labels))
    torch.testing.assert_close(model.joint(f[:, :, None], g[:, None]), joined, rtol=0, atol=1e-5)


class MelFrontend(torch.nn.Module):
    """ESPnet's layers as its `DefaultFrontend` has them; that one itself also wants torchaudio."""

    def __init__(self, n_fft=512, win_length=None, hop_length=128, **mels):
        from espnet2.layers.log_mel import LogMel
        from espnet2.layers.stft import Stft

        super().__init__()
        self.stft = Stft(n_fft=n_fft, win_length=win_length, hop_length=hop_length)
        self.logmel = LogMel(n_fft=n_fft, **mels)

    def forward(self, wave, lengths):
        spectrum, lengths = self.stft(wave, lengths)
        return self.logmel(spectrum.square().sum(-1), lengths)


@torch.no_grad()
@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"hop_length": 160, "n_fft": 400, "win_length": 320, "n_mels": 40, "fmin": 60, "fmax": 7000},
        {"htk": True},
    ],
)
def test_features(conf):
    torch.manual_seed(4)
    values = {NAMED[k]: float(v) if k in ("fmin", "fmax") else v for k, v in conf.items()}
    extractor = logmel.build(from_dict(logmel.Config, values))
    for samples in (300, 4000, 16001):
        wave = 0.1 * torch.randn(samples)
        expected, lengths = MelFrontend(**conf)(wave[None], torch.tensor([samples]))
        found = extractor(wave.numpy())
        assert len(found) == extractor.frames(samples) == int(lengths)
        torch.testing.assert_close(torch.from_numpy(found), expected[0], rtol=0, atol=2e-3)


@torch.no_grad()
@pytest.mark.parametrize("normalize", ["global_mvn", "utterance_mvn"])
def test_from_samples_to_log_probabilities(tmp_path, capsys, normalize):
    import numpy as np
    from espnet2.asr.ctc import CTC
    from espnet2.layers.global_mvn import GlobalMVN
    from espnet2.layers.utterance_mvn import UtteranceMVN

    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    stats = {"count": np.array(10), "sum": rng.normal(-60, 5, BINS), "sum_square": rng.normal(700, 9, BINS)}
    np.savez(tmp_path / "stats.npz", **stats)
    norm = GlobalMVN(tmp_path / "stats.npz") if normalize == "global_mvn" else UtteranceMVN()
    conf = {**HEADS, "input_layer": "conv2d"}
    front = MelFrontend(hop_length=160)
    parts = {"frontend": front, "normalize": norm, "encoder": of_table("transformer", conf)}
    parts["ctc"] = randomise(CTC(len(TOKENS), DIM))
    whole = {"encoder": "transformer", "encoder_conf": conf, "decoder": None, "normalize": normalize}
    whole |= {"model_conf": {"ctc_weight": 1.0}}
    whole |= {"input_size": None, "frontend": "default", "frontend_conf": {"fs": "16k", "hop_length": 160}}
    model, run, _ = convert(save(tmp_path / "exp", parts, whole), capsys)
    wave = 0.1 * torch.randn(12000)
    features, lengths = front(wave[None], torch.tensor([12000]))
    features, lengths = norm(features, lengths)
    frames, _, _ = parts["encoder"].double()(features.double(), lengths)
    own = torch.from_numpy(load_kind(FEATURES, run.features.name).build(run.features)(wave.numpy()))
    batch = Batch(["u"], torch.tensor([1]), None, {"features": pad([own.double()])})
    found = model.encode(batch)["ctc"][0]
    torch.testing.assert_close(found, parts["ctc"].double().log_softmax(frames), rtol=0, atol=1e-3)
