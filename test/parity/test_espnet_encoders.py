"""ESPnet's encoders within our systems keep what ours keep, and say what they say in ESPnet."""

import pytest
import torch

from speechkit.config import from_dict, load_config
from speechkit.data.batch import Batch, pad
from speechkit.errors import InputError
from speechkit.integrations import espnet_encoder
from speechkit.integrations.espnet_encoder import Config, build
from speechkit.models import ctc
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import build_tokenizer
from speechkit.train.run import RunConfig

pytestmark = pytest.mark.peers
pytest.importorskip("espnet2.asr.encoder.e_branchformer_encoder", reason="ESPnet is not installed")

BINS = 20
LENGTHS = [61, 90, 33, 61, 20, 120, 5]
SIZES = {"output_size": 16, "num_blocks": 2}
HEADS = {**SIZES, "attention_heads": 2, "linear_units": 24}
RNN = {"num_layers": 2, "hidden_size": 6, "output_size": 16}
CASES = {
    "conformer": {**HEADS, "cnn_module_kernel": 7, "macaron_style": True, "rel_pos_type": "latest"},
    "transformer": {**HEADS, "input_layer": "conv2d6"},
    "branchformer": {**SIZES, "attention_heads": 2, "cgmlp_linear_units": 24, "cgmlp_conv_kernel": 7},
    "e_branchformer": {**HEADS, "cgmlp_linear_units": 24, "cgmlp_conv_kernel": 7, "input_layer": "conv1d2"},
    "multiconv_conformer": {
        **HEADS,
        "cgmlp_linear_units": 24,
        "macaron_style": True,
        "rel_pos_type": "latest",
    },
    "contextual_block_transformer": HEADS,
    "rnn": {**RNN, "subsample": [2, 2]},
    "vgg_rnn": RNN,
    "espnet2.asr.encoder.linear_encoder:LinearEncoder": {"output_size": 16},
}


@pytest.fixture(params=CASES)
def choice(request):
    return {"name": "espnet", "module": request.param, "options": CASES[request.param]}


def make(choice, **options):
    torch.manual_seed(3)
    encoder = build(from_dict(Config, {**choice, **options}), BINS)
    with torch.no_grad():
        for tensor in [*encoder.parameters(), *encoder.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return encoder


def batch(padding):
    torch.manual_seed(4)
    lengths = torch.tensor(LENGTHS)
    x = torch.randn(len(LENGTHS), 123, BINS)
    for row, length in zip(x, LENGTHS):
        row[length:] = padding
    return x, lengths


@torch.no_grad()
def test_a_padded_batch_is_as_its_utterances_in_espnet_alone(choice):
    encoder = make(choice).eval()
    x, lengths = batch(float("nan"))
    found = encoder(x, lengths)
    assert found.frames.shape[2] == encoder.output_dim == 16
    heard = 0
    for row, length in enumerate(LENGTHS):
        size = int(found.lengths[row])
        assert not found.frames[row, size:].any()
        if size:
            expected, sizes, _ = encoder.network(x[row : row + 1, :length].clone(), lengths[row : row + 1])
            assert [size] == list(map(int, sizes)) and expected.size(1) == size
            torch.testing.assert_close(found.frames[row, :size], expected[0], rtol=0, atol=1e-5)
            heard += 1
    assert heard >= 6


@torch.no_grad()
def test_lengths_are_known_beforehand_for_every_length(choice):
    encoder = make(choice).eval()
    counts = torch.arange(0, 50)
    said = encoder.output_lengths(counts)
    found = encoder(torch.randn(50, 50, BINS), counts)
    assert torch.equal(found.lengths, said) and found.frames.size(1) == int(said.max())
    assert (
        int(encoder.output_lengths(torch.tensor(1000 + 24 * encoder.stride)))
        - int(encoder.output_lengths(torch.tensor(1000)))
        == 24
    )
    nothing = encoder(torch.randn(2, 0, BINS), torch.tensor([0, 0]))
    assert nothing.frames.shape == (2, 0, 16)


def test_training_reaches_the_network_and_sees_no_padding(choice):
    encoder = make(choice).train()
    for part in encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    gradients = []
    for padding in (0.0, float("nan")):
        encoder.zero_grad()
        encoder(*batch(padding)).frames.square().sum().backward()
        found = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
        gradients.append(found)
    assert len(gradients[0]) > 0.9 * len(list(encoder.parameters()))
    for name, gradient in gradients[0].items():
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_can_be_let_in(choice):
    """As ESPnet runs a batch: the frames are as many, those of the longest utterance are the same."""
    x, lengths = batch(0.0)
    alone, together = (make(choice, padding=when).eval()(x, lengths) for when in ("never", "always"))
    assert torch.equal(alone.lengths, together.lengths)
    longest = LENGTHS.index(max(LENGTHS))
    torch.testing.assert_close(together.frames[longest], alone.frames[longest], rtol=0, atol=1e-4)


def test_what_it_does_not_do_is_said(choice):
    encoder = make(choice)
    x, lengths = batch(0.0)
    with pytest.raises(ValueError, match="takes no masks"):
        encoder(x, lengths, mask=torch.zeros(7, 30).bool())
    encoder.keep_hidden_states = True
    with pytest.raises(ValueError, match="no hidden states"):
        encoder(x, lengths)


def test_a_ctc_system_learns_with_one():
    config = load_config(
        RunConfig,
        model={"encoder": {"name": "espnet", "module": "e_branchformer", "options": CASES["e_branchformer"]}},
    )
    tokenizer = build_tokenizer("char", ["ab", "ba b"])
    torch.manual_seed(1)
    model = ctc.build(config.model, Assets(tokenizer)).train()
    fields = {
        "features": pad([torch.randn(n, 80) for n in (60, 41)]),
        "tokens": pad([torch.tensor(tokenizer.encode(text)) for text in ("ab", "ba b")]),
    }
    heard = Batch(["u1", "u2"], torch.tensor([1, 2]), None, fields)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for update in range(30):
        value, count = model.loss(heard, update)["ctc"]
        optimiser.zero_grad()
        (value / count).backward()
        optimiser.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        ("e_branchformr", {}, "no encoder 'e_branchformr'; did you mean 'e_branchformer'"),
        ("os.path:join", {}, "only classes of the package espnet2"),
        ("espnet2.asr.ctc:CTC", {}, "not an encoder of ESPnet"),
        ("espnet2.asr.encoder.rnn_encoder:Nothing", {}, "cannot be imported"),
        ("rnn", {"layers": 3}, "unexpected keyword argument 'layers'"),
        ("rnn", {"num_layers": "three"}, "RNNEncoder could not be made"),
        ("conformer", {"input_layer": "embed"}, "conformer: fails on 240 frames of 20 features"),
    ],
)
def test_a_wrong_choice_is_one_clear_line(module, options, says):
    with pytest.raises(InputError, match=says) as caught:
        build(Config(module=module, options=options), BINS)
    assert "\n" not in str(caught.value)


def test_the_table_is_that_of_espnet():
    from espnet2.asr.encoder.vgg_rnn_encoder import VGGRNNEncoder

    assert espnet_encoder.find_class("vgg_rnn") is VGGRNNEncoder
