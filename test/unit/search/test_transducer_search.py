"""Transducer searches: against the sum over all alignments, step by step, and utterance by utterance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from language_models import make_lm, sentence_log_prob
from transducers import Networks, draw_frames

from speechkit.errors import InputError
from speechkit.lm.arpa import read_arpa
from speechkit.search.transducer_beam import TransducerBeam, TransducerBeamConfig
from speechkit.search.transducer_greedy import transducer_greedy

LENGTHS = torch.tensor([3, 1, 2])


def beam(vocab: int = 3, lm=None, neural=None, **options) -> TransducerBeam:
    """A beam search over made-up tokens."""
    tokens = ["<blank>", *"abcdefgh"[: vocab - 1]]
    return TransducerBeam(TransducerBeamConfig(**options), tokens, lm, neural=neural)


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
def test_a_beam_that_holds_everything_finds_the_probability_over_all_alignments(kind):
    networks, frames = Networks(kind, 3), draw_frames(3, 3)
    search = beam(beam=200, nbest=200, max_symbols=2, beam_threshold=1e9)
    found = search(networks, networks.joint.of_frames(frames), LENGTHS)
    for i, size in enumerate(LENGTHS.tolist()):
        scores = {tuple(h.tokens): h.score for h in found[i]}
        assert len(scores) == len(found[i]) == 2 ** (2 * size + 1) - 1, "every sequence once"
        for count in range(3):  # with at most 2 labels no path has more than 2 in a frame
            for tokens in itertools.product((1, 2), repeat=count):
                wanted = networks.log_prob(frames[i, :size], list(tokens))
                assert scores[tokens] == pytest.approx(wanted, abs=1e-10)
        assert [h.score for h in found[i]] == sorted((h.score for h in found[i]), reverse=True)


def walk(networks: Networks, frames: torch.Tensor, max_symbols: int) -> tuple[list[int], float]:
    """The greedy search of one utterance, written as it is defined."""
    states, memory = networks.start(1)
    tokens, score, time, here = [], 0.0, 0, 0
    while time < len(frames):
        log_probs = networks.score(frames[time], states[0])
        token = int(log_probs.argmax())
        score += float(log_probs[token])
        if token == 0:
            time, here = time + 1, 0
            continue
        tokens.append(token)
        states, memory = networks.step(torch.tensor([token]), memory)
        here += 1
        if here == max_symbols:
            time, here = time + 1, 0
    return tokens, score


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
@pytest.mark.parametrize("max_symbols", [1, 2, 5])
@torch.no_grad()
def test_the_batched_greedy_search_is_the_plain_one(kind, max_symbols):
    networks = Networks(kind, 6, sharpness=4.0)
    networks.joint.out.bias.data[0] += 3 if kind == "lstm" else 1
    lengths = torch.tensor([40, 7, 0, 25, 1])
    frames = networks.joint.of_frames(draw_frames(5, 40))
    found = transducer_greedy(networks, frames, lengths, max_symbols)
    for hypothesis, row, size in zip(found, frames, lengths.tolist()):
        tokens, score = walk(networks, row[:size], max_symbols)
        assert hypothesis.tokens == tokens and hypothesis.score == pytest.approx(score, abs=1e-9)
        starts = [span.start for span in hypothesis.spans]
        assert starts == sorted(starts) and all(0 <= start < size for start in starts)
        assert all(starts.count(start) <= max_symbols for start in starts)
    counts = [len(h.tokens) for h in found]
    assert sum(counts) > 5 and counts[2] == 0, "the test should see labels"


@torch.no_grad()
def test_a_penalty_on_blanks_gives_more_labels_and_leaves_the_score_a_probability():
    networks = Networks("stateless", 6)
    networks.joint.out.bias.data[0] += 6
    frames = networks.joint.of_frames(draw_frames(2, 30))
    few, many = (transducer_greedy(networks, frames, torch.tensor([30, 30]), blank_penalty=p) for p in (0, 6))
    assert sum(len(h.tokens) for h in many) > sum(len(h.tokens) for h in few)
    assert all(h.score < 0 for h in many)


@torch.no_grad()
def test_with_one_symbol_a_frame_a_beam_of_one_is_the_greedy_search():
    networks = Networks("lstm", 6)
    frames = networks.joint.of_frames(draw_frames(3, 20))
    lengths = torch.tensor([20, 11, 4])
    greedy = transducer_greedy(networks, frames, lengths, max_symbols=1)
    found = beam(6, beam=1, topology="one")(networks, frames, lengths)
    assert [h.tokens for h in greedy] == [nbest[0].tokens for nbest in found]
    assert [h.score for h in greedy] == pytest.approx([nbest[0].score for nbest in found])


@pytest.mark.parametrize("topology", ["exact", "one"])
@torch.no_grad()
def test_a_batch_is_what_its_utterances_are_alone_and_order_does_not_matter(topology):
    networks, search = Networks("lstm", 6), beam(6, beam=4, nbest=4, topology=topology)
    frames = networks.joint.of_frames(draw_frames(4, 12))
    lengths = torch.tensor([5, 12, 0, 9])
    together = search(networks, frames, lengths)
    for i, size in enumerate(lengths.tolist()):
        padded = frames[i : i + 1].clone()
        padded[:, size:] = torch.nan
        (alone,) = search(networks, padded, lengths[i : i + 1])
        assert [h.tokens for h in alone] == [h.tokens for h in together[i]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[i]])
    assert [h.tokens for h in together[2]] == [[]] and together[2][0].score == 0


@torch.no_grad()
def test_scores_are_lower_bounds_that_grow_with_the_beam():
    networks, frames = Networks("stateless", 5, sharpness=2.0), draw_frames(1, 10)
    projected, size, before = networks.joint.of_frames(frames), torch.tensor([10]), -math.inf
    for width in (1, 3, 10, 30):
        (nbest,) = beam(5, beam=width, max_symbols=3)(networks, projected, size)
        exact = networks.log_prob(frames[0], nbest[0].tokens)
        assert nbest[0].score <= exact + 1e-9 and nbest[0].score >= before - 0.5
        before = nbest[0].score
    assert before == pytest.approx(exact, abs=0.2)


ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0 <unk>
-99 <s> -0.3
-0.7 </s>
-0.4 a -0.2
-1.1 b -0.1

\\2-grams:
-0.2 <s> b
-0.1 b b
-0.9 a </s>

\\end\\
"""


@torch.no_grad()
def test_the_language_model_and_the_bonus_are_added_for_every_token_and_the_end(tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA)
    lm = read_arpa(tmp_path / "lm.arpa")
    networks, frames = Networks("lstm", 3), draw_frames(1, 2)
    options = {"beam": 60, "nbest": 60, "max_symbols": 2, "beam_threshold": 1e9, "lm_weight": 0.7}
    search = beam(3, lm, **options, token_bonus=0.25)
    (found,) = search(networks, networks.joint.of_frames(frames), torch.tensor([2]))
    for hypothesis in found:
        if len(hypothesis.tokens) > 2:
            continue
        text = " ".join("?ab"[token] for token in hypothesis.tokens)
        wanted = 0.7 * lm.score(text) * np.log(10) + 0.25 * len(hypothesis.tokens)
        assert hypothesis.lm == pytest.approx(wanted, abs=1e-6)
        assert hypothesis.score == pytest.approx(hypothesis.ctc + hypothesis.lm)
        assert hypothesis.ctc == pytest.approx(networks.log_prob(frames[0], hypothesis.tokens))


@torch.no_grad()
def test_the_prediction_network_is_left_alone_where_nothing_is_said():
    networks = Networks("lstm", 6)
    networks.joint.out.bias.data[0] += 60
    found = beam(6, beam=5)(networks, networks.joint.of_frames(draw_frames(2, 30)), torch.tensor([30, 30]))
    assert [nbest[0].tokens for nbest in found] == [[], []] and networks.calls == 0


@torch.no_grad()
def test_scores_that_are_no_numbers_name_the_utterance():
    networks = Networks("lstm", 5)
    frames, lengths = networks.joint.of_frames(draw_frames(3, 6)), torch.tensor([6, 3, 5])
    frames[2, 4] = torch.nan
    with pytest.raises(InputError, match="transducer_beam: scores of utterance 2 of the batch are NaN"):
        beam(5, beam=3)(networks, frames, lengths)
    assert beam(5, beam=3)(networks, frames, torch.tensor([6, 3, 4]))


def test_tokens_that_are_forbidden_are_never_said():
    networks = Networks("stateless", 5)
    search = TransducerBeam(TransducerBeamConfig(beam=8, nbest=8), list("_abcd"), forbidden=(2, 3))
    with torch.no_grad():
        found = search(networks, networks.joint.of_frames(draw_frames(1, 8)), torch.tensor([8]))
    assert {token for h in found[0] for token in h.tokens} == {1, 4}


def paths(networks, frames, tokens, one):
    """All alignments: (log probability, frame of each label); with `one`, no blank comes after a label."""
    states, memory = networks.start(1)
    rows = [states[0]]
    for token in tokens:
        states, memory = networks.step(torch.tensor([token]), memory)
        rows.append(states[0])
    log_probs = torch.stack([networks.score(frames, row) for row in rows], 1)  # (T, U + 1, V)
    choose = itertools.combinations if one else itertools.combinations_with_replacement
    for times in choose(range(len(frames)), len(tokens)):
        score = sum(float(log_probs[t, u, token]) for u, (t, token) in enumerate(zip(times, tokens)))
        blanks = [t for t in range(len(frames)) if not (one and t in times)]
        score += sum(float(log_probs[t, sum(time <= t for time in times), 0]) for t in blanks)
        yield score, times


@pytest.mark.parametrize("topology", ["exact", "one"])
@torch.no_grad()
def test_a_beam_that_holds_everything_is_the_sum_over_paths_and_knows_the_best_of_them(topology):
    networks, frames = Networks("lstm", 3), draw_frames(1, 4)
    projected, one = networks.joint.of_frames(frames), topology == "one"
    options = {"beam": 200, "nbest": 200, "max_symbols": 3, "beam_threshold": 1e9, "topology": topology}
    (found,) = beam(**options)(networks, projected, torch.tensor([4]))
    if one:
        assert len(found) == 2**5 - 1, "every sequence of at most four labels"
    compared = set()
    for hypothesis in found:
        if len(hypothesis.tokens) > 3:
            continue
        scores, times = zip(*paths(networks, projected[0], hypothesis.tokens, one))
        assert hypothesis.score == pytest.approx(float(np.logaddexp.reduce(scores)), abs=1e-9)
        assert [span.token for span in hypothesis.spans] == hypothesis.tokens
        assert tuple(span.start for span in hypothesis.spans) == times[int(np.argmax(scores))]
        assert all(span.end == span.start + 1 for span in hypothesis.spans)
        compared |= {span.start for span in hypothesis.spans}
    assert len(compared) > 2, "the test should see labels come at different times"


@pytest.mark.parametrize("topology", ["exact", "one"])
@pytest.mark.parametrize("network", ["lstm", "transformer"])
@torch.no_grad()
def test_a_neural_language_model_is_added_for_every_token_and_the_end(network, topology):
    lm, networks, frames = make_lm(4, network), Networks("lstm", 4), draw_frames(2, 2)
    options = {"beam": 400, "nbest": 400, "max_symbols": 2, "beam_threshold": 1e9, "lm_weight": 0.7}
    options |= {"token_bonus": 0.25, "topology": topology}
    search, lengths = beam(4, neural=lm.for_search(), **options), torch.tensor([1, 2])
    found = search(networks, networks.joint.of_frames(frames), lengths)
    plain = beam(4, **options)(networks, networks.joint.of_frames(frames), lengths)
    for nbest, without in zip(found, plain):
        models = {tuple(h.tokens): h.ctc for h in without}
        assert {tuple(h.tokens) for h in nbest} == set(models)
        for h in nbest:
            assert h.ctc == pytest.approx(models[tuple(h.tokens)], abs=1e-9)
            wanted = 0.7 * sentence_log_prob(lm, h.tokens) + 0.25 * len(h.tokens)
            assert h.lm == pytest.approx(wanted, abs=1e-9) and h.score == pytest.approx(h.ctc + h.lm)
    assert [h.tokens for h in found[1]] != [h.tokens for h in plain[1]]


@pytest.mark.parametrize("network", ["lstm", "transformer"])
@torch.no_grad()
def test_with_a_neural_language_model_a_batch_is_what_its_utterances_are_alone(network):
    lm, networks = make_lm(6, network), Networks(network, 6)
    search = beam(6, neural=lm.for_search(), beam=4, nbest=4, lm_weight=0.5)
    frames = networks.joint.of_frames(draw_frames(4, 12))
    lengths = torch.tensor([5, 12, 0, 9])
    together = search(networks, frames, lengths)
    for i in range(4):
        (alone,) = search(networks, frames[i : i + 1, : int(lengths[i])], lengths[i : i + 1])
        assert [(h.tokens, h.spans) for h in alone] == [(h.tokens, h.spans) for h in together[i]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[i]])
    for h in together[1]:
        assert h.lm == pytest.approx(0.5 * sentence_log_prob(lm, h.tokens), abs=1e-9)
