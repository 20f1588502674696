"""Pseudo-log-likelihoods against transformers' own model, one masked copy at a time."""

import pytest
import torch
from bert_folders import VOCAB, theirs, write_bert

from speechkit.integrations.bert import load_bert
from speechkit.lm.masked import MaskedLM, pseudo_log_likelihood

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert") / "b")


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def bert(request, folder):
    model, vocab = load_bert(folder)
    model.vocab = vocab
    return model.to(request.param)


def other(bert):
    """transformers' model with the same weights."""
    reference = theirs()
    reference.load_state_dict(bert.model.state_dict())
    return reference.to(bert.bert_ids.device, next(bert.parameters()).dtype)


@torch.no_grad()
def looped(bert, sequence, window=None):
    """Equation 1 as it is written; `window` of i: which part of the text is seen."""
    reference, total = other(bert), 0.0
    for i, id_ in enumerate(sequence):
        start, end = window(i) if window else (0, len(sequence))
        seen = [bert.bert_ids[k].item() for k in sequence[start:end]]
        seen[i - start] = VOCAB.index("[MASK]")
        ids = torch.tensor([[VOCAB.index("[CLS]"), *seen, VOCAB.index("[SEP]")]])
        logits = reference(ids).logits[0, i - start + 1, bert.bert_ids]
        total += logits.log_softmax(-1)[id_].item()
    return total


def sequences(count, longest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, 16, (n,), generator=generator).tolist() for n in lengths]


def test_three_pieces_are_three_masked_passes(bert):
    found = pseudo_log_likelihood(bert, [[3, 7, 1]])
    assert found == pytest.approx([looped(bert, [3, 7, 1])], abs=TOLERANCE[next(bert.parameters()).dtype])
    assert found[0] < -1


@pytest.mark.parametrize("tokens", [1, 37, 100000])
def test_batched_equals_looped(bert, tokens):
    texts = [*sequences(11, 10), [5, 2, 9], [5, 3, 9], [5, 2, 9], []]
    found = pseudo_log_likelihood(bert, texts, tokens=tokens)
    expected = [looped(bert, text) for text in texts]
    assert found == pytest.approx(expected, abs=TOLERANCE[next(bert.parameters()).dtype])
    assert found[-2] == found[-4] and found[-1] == 0.0


def test_what_goes_through_bert_and_its_head(bert):
    """[CLS] and [SEP] are never masked, batches keep to the limit, and only masks reach the head."""
    seen, rows = [], []
    embed, head = bert.embed, bert.head
    bert.embed = lambda ids: seen.append(ids) or embed(ids)
    bert.head = lambda states: rows.append(states.shape) or head(states)
    texts = [[1, 2, 3, 4], [1, 2, 9, 4], [1, 2, 3, 4], [6]]
    pseudo_log_likelihood(bert, texts, tokens=14)
    copies = [row for ids in seen for row in ids.tolist()]
    assert len(copies) == 1 + 4 + 3  # the second text shares the copy that masks the third piece
    assert all(row.count(bert.mask_id) == 1 and bert.mask_id not in (row[0], row[-1]) for row in copies)
    assert all(row[0] == bert.cls_id and bert.sep_id in row for row in copies)
    assert all(ids.numel() <= 14 for ids in seen) and rows == [(len(ids), 16) for ids in seen]
    assert [len(ids) for ids in seen] == [2, 2, 2, 2]  # copies of 3 and 6 tokens: 12 with padding


def test_texts_longer_than_berts_positions_are_seen_through_windows(bert):
    """12 positions leave room for 10 pieces."""
    text = sequences(1, 0)[0] + [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]

    def window(i):
        start = min(max(i - 5, 0), 5)
        return start, start + 10

    found = pseudo_log_likelihood(bert, [text, text[:10], text[:11]])
    tolerance = TOLERANCE[next(bert.parameters()).dtype]
    assert found[0] == pytest.approx(looped(bert, text, window), abs=tolerance)
    assert found[1] == pytest.approx(looped(bert, text[:10]), abs=tolerance)
    assert found[2] == pytest.approx(
        looped(bert, text[:11], lambda i: (0, 10) if i < 6 else (1, 11)), abs=tolerance
    )


def test_texts_are_cut_counted_and_remembered(bert):
    lm, calls = MaskedLM(bert, bert.vocab), []
    forward = bert.forward
    bert.forward = lambda *arguments: calls.append(1) or forward(*arguments)
    first = lm(["the cats", "", "the zebra", "the cats"])
    assert len(calls) == 1 and first[0] == first[3]
    assert [(score.pieces, score.unknown) for score in first] == [(3, 0), (0, 0), (2, 1), (3, 0)]
    ids = bert.vocab.encode("the zebra")
    assert ids[1] == 0 and first[1].log_prob == 0
    assert first[2].log_prob == pytest.approx(looped(bert, ids), abs=1e-5)
    assert lm(["the zebra", "the cats"]) == [first[2], first[0]] and len(calls) == 1
    lm.cache.clear()
    lm(["the cats"])
    assert len(calls) == 2


def test_nothing_to_score(bert):
    assert pseudo_log_likelihood(bert, []) == [] and MaskedLM(bert, bert.vocab)([]) == []
