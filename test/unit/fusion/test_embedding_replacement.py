"""Embedding Replacement: positions against PyTorch's Transformer, targets, first [SEP], texts too long."""

from __future__ import annotations

import factories
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from speechkit.data.ledger import Ledger
from speechkit.data.manifest import Ragged, read_manifest
from speechkit.encoders.bert import Bert
from speechkit.fusion.embedding_replacement import (
    Config,
    EmbeddingReplacement,
    answer_lengths,
    targets,
)
from speechkit.layers.positions import sinusoids
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.wordpiece_cut import Rules
from speechkit.train.usable import choose, too_long

DIM, ACOUSTIC, HEADS = 16, 12, 2
FRAMES = [9, 20, 1, 13]
SEP = 99


def make(**values):
    torch.manual_seed(1)
    config = Config(**{"heads": HEADS, "feed_forward": 20, "max_len": 7, **values})
    module = EmbeddingReplacement(config, DIM, ACOUSTIC).double().eval()
    with torch.no_grad():  # norms and biases away from their neutral first values
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.rand_like(parameter))
    return module


def draw():
    generator = torch.Generator().manual_seed(2)
    frames = torch.tensor(FRAMES)
    acoustic = torch.randn(4, max(FRAMES), ACOUSTIC, generator=generator, dtype=torch.float64)
    for row, length in enumerate(FRAMES):
        acoustic[row, length:] = float("nan")
    return acoustic, frames


def copy_linear(theirs, ours):
    theirs.load_state_dict(ours.state_dict())


def torch_block(block, norm_first):
    """nn.TransformerEncoderLayer with the weights of one of our blocks."""
    theirs = nn.TransformerEncoderLayer(
        DIM, HEADS, 20, activation="gelu", batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
    copy_linear(theirs.self_attn.out_proj, block.attention.out)
    copy_linear(theirs.linear1, block.feed_forward.inner)
    copy_linear(theirs.linear2, block.feed_forward.outer)
    side = "norm_in" if norm_first else "norm_out"
    copy_linear(theirs.norm1, getattr(block, side))
    copy_linear(theirs.norm2, getattr(block.feed_forward, side))
    return theirs.eval()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_positions_are_those_of_pytorchs_attention_and_blocks(norm):
    module, (acoustic, frames) = make(norm=norm), draw()
    read = module.read.attention
    theirs = nn.MultiheadAttention(DIM, HEADS, kdim=ACOUSTIC, vdim=ACOUSTIC, batch_first=True).double()
    with torch.no_grad():
        theirs.q_proj_weight.copy_(read.query.weight)
        for into, weight in zip((theirs.k_proj_weight, theirs.v_proj_weight), read.key_value.weight.chunk(2)):
            into.copy_(weight)
        theirs.in_proj_bias.copy_(torch.cat([read.query.bias, read.key_value.bias]))
    copy_linear(theirs.out_proj, read.out)
    hidden = torch.arange(max(FRAMES)) >= frames[:, None]
    queries = module.positions[None].repeat(4, 1, 1)
    memory = read.memory_norm(acoustic.nan_to_num())
    x = module.read.norm(queries + theirs(read.query_norm(queries), memory, memory, hidden)[0])
    for block in module.blocks:
        x = torch_block(block, norm == "pre")(x)
    if norm == "pre":
        x = nn.functional.layer_norm(x, (DIM,), module.norm.weight, module.norm.bias)
    assert len(module.blocks) == 3
    torch.testing.assert_close(module(acoustic, frames), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("frame_positions", [False, True])
def test_padding_and_order_change_nothing(frame_positions):
    module, (acoustic, frames) = make(frame_positions=frame_positions), draw()
    whole = module(acoustic, frames)
    assert whole.shape == (4, 7, DIM)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(acoustic[order], frames[order]), whole[order], rtol=0, atol=1e-10)
    for row, length in enumerate(FRAMES):
        alone = module(acoustic[row : row + 1, :length], frames[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-10)


def test_frames_may_know_where_they_are():
    plain, placed, (acoustic, frames) = make(), make(frame_positions=True), draw()
    table = sinusoids(torch.arange(max(FRAMES), dtype=torch.float64), ACOUSTIC)
    torch.testing.assert_close(placed(acoustic, frames), plain(acoustic + table, frames), rtol=0, atol=1e-12)
    assert (placed(acoustic, frames) - plain(acoustic, frames)).abs().max() > 1e-2


def test_every_weight_learns():
    module, (acoustic, frames) = make().train(), draw()
    module(acoustic, frames).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    fresh = EmbeddingReplacement(Config(heads=HEADS, feed_forward=20), DIM, ACOUSTIC).double()
    out = fresh.eval()(acoustic, frames)
    assert out.shape == (4, 60, DIM) and (out[0] - out[1]).abs().max() > 1e-3  # it hears from the start


def test_targets_are_the_tokens_then_sep():
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 77, 77, 77], [77] * 5, [1, 2, 3, 4, 77]])
    lengths = torch.tensor([5, 2, 0, 4])
    none = -100
    assert targets(ids, lengths, SEP, 6).tolist() == [
        [5, 6, 7, 8, 9, SEP],
        [5, 6, SEP, none, none, none],
        [SEP, none, none, none, none, none],
        [1, 2, 3, 4, SEP, none],
    ]
    assert targets(ids, lengths, SEP, 4).tolist() == [
        [5, 6, 7, 8],
        [5, 6, SEP, none],
        [SEP, none, none, none],
        [1, 2, 3, 4],
    ]


def test_answers_end_with_the_first_sep():
    ids = torch.tensor([[4, SEP, 5, SEP], [SEP, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, SEP]])
    assert answer_lengths(ids, SEP).tolist() == [1, 0, 4, 3]


def words(count):
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"[:count]]


def test_texts_longer_than_the_positions_are_left_out_and_counted(tmp_path):
    texts = ["a b c d e", "a b c", "f e d c b a", "b", "a b c d e f a"]
    folder = factories.make_data_dir(tmp_path / "data", 5, 1, texts=texts, segments=True)
    manifest = read_manifest([folder], ["text"])
    vocab = BertVocab(words(6), Rules(), words(6)[5:])
    pieces = Ragged.of([vocab.encode(text) for text in texts])
    ledger = Ledger("train set", "train")
    kept = choose(manifest, ledger, unknown=too_long(manifest, pieces, Config(max_len=7).longest_text))
    assert kept.tolist() == [0, 1, 3]
    assert Config().longest_text == 58
    assert [fate.detail for fate in ledger.dropped] == [
        "6; split the utterance",
        "7; split the utterance",
    ]


def test_positions_take_the_place_of_berts_words():
    config = BertConfig(
        vocab_size=11, hidden_size=DIM, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20
    )
    torch.manual_seed(0)
    bert = Bert(BertForMaskedLM(config), BertVocab(words(6), Rules(), words(6)[5:])).double().eval()
    module, (acoustic, frames) = make(), draw()
    slots = module(acoustic, frames)
    states = bert.layers(bert.embed(words=slots), torch.full((4,), 7))
    expected = bert.model.bert(inputs_embeds=slots).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-10)
