"""Adapters between BERT's blocks against PyTorch's own attention; padding, candidates, Mask-Predict."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from speechkit.encoders.bert import Bert
from speechkit.errors import InputError
from speechkit.fusion.adapter_bert import BertAdapters, Config
from speechkit.layers.positions import sinusoids
from speechkit.search import mask_predict
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.wordpiece_cut import Rules

DIM, ACOUSTIC, HEADS, LAYERS = 16, 12, 2, 2
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijk"]
TOKENS, FRAMES = [7, 3, 11, 2], [9, 20, 1, 13]


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=24,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    return Bert(BertForMaskedLM(config), BertVocab(WORDS, Rules(), WORDS[5:])).double().eval()


def make(**values):
    torch.manual_seed(1)
    config = Config(**{"heads": HEADS, "feed_forward": 20, "init": "xavier", **values})
    adapters = BertAdapters(config, LAYERS, DIM, ACOUSTIC).double().eval()
    with torch.no_grad():  # norms and biases away from their neutral first values
        for parameter in adapters.parameters() if config.init == "xavier" else ():
            parameter.add_(0.2 * torch.rand_like(parameter))
    return adapters


def draw():
    generator = torch.Generator().manual_seed(2)
    lengths, frames = torch.tensor(TOKENS), torch.tensor(FRAMES)
    ids = torch.randint(5, len(WORDS), (4, max(TOKENS)), generator=generator)
    acoustic = torch.randn(4, max(FRAMES), ACOUSTIC, generator=generator, dtype=torch.float64)
    for row, length in enumerate(FRAMES):
        acoustic[row, length:] = float("nan")
    return ids, lengths, acoustic, frames


def by_torch(bert, adapters, x, mask, acoustic, hidden):
    """The blocks one by one; adapters with nn.MultiheadAttention, post-norm as in AB-Net."""
    for layer, adapter in zip(bert.layer_modules, adapters.adapters):
        x = bert.run_layer(layer, x, mask)
        ours = adapter.read.attention
        theirs = nn.MultiheadAttention(DIM, HEADS, kdim=ACOUSTIC, vdim=ACOUSTIC, batch_first=True).double()
        key, value = ours.key_value.weight.chunk(2)
        with torch.no_grad():
            theirs.q_proj_weight.copy_(ours.query.weight)
            theirs.k_proj_weight.copy_(key)
            theirs.v_proj_weight.copy_(value)
            theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
            theirs.out_proj.load_state_dict(ours.out.state_dict())
        read, _ = theirs(x, acoustic, acoustic, key_padding_mask=hidden, need_weights=False)
        norm, ffn = adapter.read.norm, adapter.feed_forward
        x = F.layer_norm(x + read, (DIM,), norm.weight, norm.bias)
        inner = F.relu(F.linear(x, ffn.inner.weight, ffn.inner.bias))
        x = x + F.linear(inner, ffn.outer.weight, ffn.outer.bias)
        x = F.layer_norm(x, (DIM,), ffn.norm_out.weight, ffn.norm_out.bias)
    return x


def test_adapters_are_ab_nets(bert):
    adapters, (ids, lengths, acoustic, frames) = make(), draw()
    ours = adapters(bert, bert.embed(ids), lengths, adapters.hear(acoustic, frames))
    hidden = torch.arange(max(FRAMES)) >= frames[:, None]
    x = bert.embed(ids)
    expected = by_torch(bert, adapters, x, bert.attention_mask(x, lengths), acoustic.nan_to_num(), hidden)
    for row, length in enumerate(TOKENS):
        torch.testing.assert_close(ours[row, :length], expected[row, :length], rtol=0, atol=1e-10)
        assert not ours[row, length:].any()


@pytest.mark.parametrize("frame_positions", [False, True])
def test_padding_and_order_change_nothing(bert, frame_positions):
    adapters, (ids, lengths, acoustic, frames) = make(frame_positions=frame_positions), draw()
    whole = adapters(bert, bert.embed(ids), lengths, adapters.hear(acoustic, frames))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = adapters(
        bert, bert.embed(ids[order]), lengths[order], adapters.hear(acoustic[order], frames[order])
    )
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-10)
    for row, (length, heard) in enumerate(zip(TOKENS, FRAMES)):
        one = slice(row, row + 1)
        alone = adapters(
            bert,
            bert.embed(ids[one, :length]),
            lengths[one],
            adapters.hear(acoustic[one, :heard], frames[one]),
        )
        torch.testing.assert_close(alone[0], whole[row, :length], rtol=0, atol=1e-10)


def test_frames_may_know_where_they_are(bert):
    plain, placed, (ids, lengths, acoustic, frames) = make(), make(frame_positions=True), draw()
    table = sinusoids(torch.arange(max(FRAMES), dtype=torch.float64), ACOUSTIC)
    x = bert.embed(ids)
    out = placed(bert, x, lengths, placed.hear(acoustic, frames))
    wanted = plain(bert, x, lengths, plain.hear(acoustic + table, frames))
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
    assert (out - plain(bert, x, lengths, plain.hear(acoustic, frames))).abs().max() > 1e-2


def test_pre_norm_adapters_begin_as_plain_bert(bert):
    adapters, (ids, lengths, acoustic, frames) = make(norm="pre", init="identity"), draw()
    ours = adapters(bert, bert.embed(ids), lengths, adapters.hear(acoustic, frames))
    torch.testing.assert_close(ours, bert(ids, lengths), rtol=0, atol=1e-12)
    with torch.no_grad():
        adapters.adapters[0].feed_forward.outer.bias += 0.1
    ours = adapters(bert, bert.embed(ids), lengths, adapters.hear(acoustic, frames))
    assert (ours - bert(ids, lengths)).abs().max() > 1e-3


def test_training_with_dropout_reaches_every_weight_and_the_speech(bert):
    adapters, (ids, lengths, acoustic, frames) = make(dropout=0.1).train(), draw()
    acoustic = acoustic.nan_to_num().requires_grad_()
    out = adapters(bert, bert.embed(ids), lengths, adapters.hear(acoustic, frames))
    out.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in adapters.parameters())
    reached = acoustic.grad.abs().sum(2) > 0
    assert torch.equal(reached, torch.arange(max(FRAMES)) < frames[:, None])


def test_copies_for_candidates_are_repeated_utterances(bert):
    adapters, (_, _, acoustic, frames) = make(), draw()
    ids = torch.randint(5, len(WORDS), (12, 8), generator=torch.Generator().manual_seed(4))
    lengths = torch.tensor([8, 5, 1] * 4)
    ours = adapters(bert, bert.embed(ids), lengths, adapters.hear(acoustic, frames, copies=3))
    repeated = adapters.hear(acoustic.repeat_interleave(3, 0), frames.repeat_interleave(3))
    expected = adapters(bert, bert.embed(ids), lengths, repeated)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def decode(bert, adapters, acoustic, frames, expected, config):
    """Mask-Predict through a real BERT: linguistic ids with one more for [MASK] and one for [PAD]."""
    count = len(bert.bert_ids)
    table = torch.cat([bert.bert_ids, torch.tensor([bert.mask_id, bert.pad_id])])
    heard = adapters.hear(acoustic, frames, config.length_beam)

    def predict(ids, lengths):
        known = table.index_select(0, ids.flatten()).view_as(ids)
        ends = [torch.full((len(ids), 1), end) for end in (bert.cls_id, bert.pad_id)]
        whole = torch.cat([ends[0], known, ends[1]], 1).scatter(1, lengths[:, None] + 1, bert.sep_id)
        states = adapters(bert, bert.embed(whole), lengths + 2, heard)
        return bert.head(states[:, 1:-1]).log_softmax(-1)

    lengths = mask_predict.length_candidates(expected, config.length_beam, 12)
    return mask_predict.mask_predict(predict, lengths, config, count, count + 1)


def test_mask_predict_does_not_depend_on_the_batch(bert):
    adapters, (_, _, acoustic, frames) = make(), draw()
    expected = torch.tensor([5, 9, 0, 3])
    config = mask_predict.Config(length_beam=3)
    together = decode(bert, adapters, acoustic, frames, expected, config)
    assert together[2].tokens == [] and len({tuple(answer.tokens) for answer in together}) == 4
    for row in range(4):
        one = slice(row, row + 1)
        alone = decode(bert, adapters, acoustic[one], frames[one], expected[one], config)[0]
        assert alone.tokens == together[row].tokens
        assert alone.score == pytest.approx(together[row].score, abs=1e-10)


def test_heads_must_divide_berts_width():
    with pytest.raises(InputError, match="heads=5 does not divide the dimension 16"):
        make(heads=5)
