"""Attention beam search against exhaustive search, alone against together, and its ends."""

import itertools
import math

import pytest
import torch
from attention_networks import EOS, VOCAB, Networks
from language_models import make_lm, sentence_log_prob

from speechkit.config import load_config
from speechkit.errors import InputError, ProblemsError
from speechkit.lm import train_ngram
from speechkit.lm.neural import LmReading
from speechkit.losses.ctc import ctc_loss
from speechkit.search.attention_beam import AttentionBeam, AttentionBeamConfig
from speechkit.search.beam_fusion import Fusion
from speechkit.search.greedy import ctc_greedy

KINDS = ["las", "transformer"]
NEVER_ENDS = {"end_margin": 1e9}


@pytest.fixture(scope="module")
def lm():
    return train_ngram(["a b", "b a b", "a a", "b", "a b a b"], 2, discount_fallback=(0.5, 1.0, 1.5))


def search(networks, lm=None, forbidden=(), ctc=True, **options):
    config = AttentionBeamConfig(**options)
    fusion = Fusion(lm, VOCAB, config.lm_weight, 0.0, config.unk_score, True) if lm is not None else None
    beam = AttentionBeam(config, networks.decoder.output.out_features - 1, 0, forbidden, fusion)
    weighted = [(networks.reading(), 1 - config.ctc_weight)]
    return beam(weighted, networks.lengths, networks.log_probs if ctc else None)


def readings(log_probs):
    """Probability of every token sequence under CTC, by all alignments."""
    found = {}
    for path in itertools.product(range(len(VOCAB)), repeat=len(log_probs)):
        said = tuple(token for token, _ in itertools.groupby(path) if token)
        value = math.exp(sum(float(frame[token]) for frame, token in zip(log_probs, path)))
        found[said] = found.get(said, 0.0) + value
    return found


def exhaustive(networks, row, lm, weight, lm_weight, bonus, longest):
    """Score and CTC score of every hypothesis: (tokens, whether it ended)."""
    one, scores = networks.only(row), {}
    found = readings(one.log_probs[0])
    for size in range(longest + 1):
        for tokens in itertools.product((1, 2), repeat=size):
            end = size < longest
            begins = [p for said, p in found.items() if said[:size] == tokens]
            total = found.get(tokens, 0.0) if end else math.fsum(begins)
            if not total:
                continue
            rest = bonus * (size + end)
            if lm is not None:
                text = " ".join(VOCAB[t] for t in tokens)
                rest += lm_weight * math.log(10) * lm.score(text, eos=end)
            attention = networks.attention(row, tokens, end)
            score = (1 - weight) * attention + weight * math.log(total) + rest
            scores[tokens, end] = score, math.log(total), rest
    return scores


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("fused", [False, True])
def test_a_beam_that_holds_everything_finds_everything(name, fused, lm):
    networks = Networks(name, [4, 2, 3])
    used = lm if fused else None
    found = search(
        networks, used, beam=200, nbest=200, prebeam=1, ctc_weight=0.4, lm_weight=0.7, length_bonus=0.3,
        **NEVER_ENDS,
    )  # fmt: skip
    for row, longest in enumerate([4, 2, 3]):
        expected = exhaustive(networks, row, used, 0.4, 0.7, 0.3, longest)
        assert {(tuple(h.tokens), h.complete) for h in found[row]} == set(expected)
        assert [h.score for h in found[row]] == sorted((h.score for h in found[row]), reverse=True)
        for h in found[row]:
            wanted = expected[tuple(h.tokens), h.complete]
            assert (h.score, h.ctc, h.lm) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_ctc_score_of_an_ended_hypothesis_is_minus_its_loss(name):
    networks = Networks(name, [9, 6], seed=4)
    for row, nbest in enumerate(search(networks, nbest=5, beam=5)):
        one = networks.only(row)
        for h in nbest:
            if h.complete:
                sizes = torch.tensor([len(h.tokens)])
                loss = ctc_loss(one.log_probs, one.lengths, torch.tensor([h.tokens]), sizes)
                assert h.ctc == pytest.approx(-float(loss), abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("ctc", [False, True])
def test_batch_equals_utterances_alone(name, ctc, lm):
    """Of several lengths: some are over earlier, and leave the search while others go on."""
    networks = Networks(name, [12, 3, 7, 1, 20, 9], seed=2)
    options = {"beam": 4, "nbest": 4, "ctc_weight": 0.3 if ctc else 0.0, "length_bonus": 0.1}
    together = search(networks, lm, (0,), **options)
    sizes = set()
    for row in range(6):
        (alone,) = search(networks.only(row), lm, (0,), **options)
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        assert [h.complete for h in alone] == [h.complete for h in together[row]]
        for a, b in zip(alone, together[row]):
            assert (a.score, a.ctc, a.lm) == pytest.approx((b.score, b.ctc, b.lm), abs=1e-9)
        sizes.add(len(alone[0].tokens))
    assert len(sizes) > 1


@pytest.mark.parametrize("name", KINDS)
def test_beam_of_one_is_greedy(name):
    networks = Networks(name, [6, 4], seed=3)
    found = search(networks, forbidden=(0,), ctc=False, beam=1, ctc_weight=0.0)
    for row, (best,) in enumerate(found):
        one, said = networks.only(row), []
        while len(said) < int(one.lengths):
            with torch.no_grad():
                phi = networks.decoder(torch.tensor([[EOS, *said]]), one.frames, one.lengths)
                scores = networks.decoder.output(phi)[0, -1].log_softmax(-1)
            token = 1 + int(scores[1:].argmax())
            if token == EOS:
                break
            said.append(token)
        assert best.tokens == said and best.complete == (len(said) < int(one.lengths))
        assert best.score == pytest.approx(networks.attention(row, tuple(said), best.complete), abs=1e-9)


def test_wider_beams_find_nothing_worse():
    networks = Networks("las", [8, 10], seed=5)
    scores = [[n[0].score for n in search(networks, beam=beam, **NEVER_ENDS)] for beam in (1, 4, 600)]
    assert all(a <= b + 1e-9 and b <= c + 1e-9 for a, b, c in zip(*scores))


def test_lengths_are_kept_within_their_limits():
    networks = Networks("transformer", [8, 5], seed=1)
    for nbest in search(networks, beam=6, nbest=6, maxlenratio=0.5):
        assert all(len(h.tokens) < 4 or not h.complete for h in nbest)
    for row, nbest in enumerate(search(networks, beam=6, nbest=6, maxlenratio=-3)):
        assert max(len(h.tokens) for h in nbest) == 3
        assert all(h.complete == (len(h.tokens) < 3) for h in nbest), row
    for shortest, ratio in ((0, 0.0), (2, -2.0), (None, 0.4)):
        for row, nbest in enumerate(search(networks, beam=50, nbest=99, maxlenratio=-4, minlenratio=ratio)):
            assert min(len(h.tokens) for h in nbest) == (shortest if ratio <= 0 else int((8, 5)[row] * ratio))
    longer = search(networks, beam=6, length_bonus=5.0)
    shorter = search(networks, beam=6, length_bonus=-5.0)
    assert all(len(a[0].tokens) > len(b[0].tokens) for a, b in zip(longer, shorter))


def test_what_cannot_be_said_is_not_found():
    """More tokens than frames are asked for: CTC has no alignment, so there is nothing."""
    networks = Networks("las", [3, 9])
    found = search(networks, beam=3, minlenratio=-5, maxlenratio=-7)
    assert found[0] == [] and found[1] and len(found[1][0].tokens) >= 5


class Told:
    """Says a token with a probability that depends on how many were read."""

    def __init__(self, rows, rows_read=0):
        self.rows, self.read = rows, rows_read

    def __call__(self, tokens, rows):
        row = self.rows[min(self.read, len(self.rows) - 1)]
        self.read += 1
        return torch.tensor([row] * len(tokens), dtype=torch.float64).log()

    def keep(self, utterances):
        pass


def test_the_search_ends_when_what_ends_is_hopeless():
    """The end is likely after one token and never again: three lengths later that is known."""
    rows = [[1e-9, 1.0, 1e-9, 1e-9], [1e-9, 1e-3, 1e-9, 0.999], [1e-9, 1.0, 1e-9, 1e-9]]
    lengths = torch.tensor([50])
    told = Told(rows)
    config = AttentionBeamConfig(ctc_weight=0.0, beam=4, nbest=50)
    found = AttentionBeam(config, EOS, forbidden=(0, 2))([(told, 1.0)], lengths)[0]
    assert found[0].tokens == [1] and found[0].complete
    # Hopeless lengths are 2, 3 and 4; that of four tokens ends in step 4, and ESPnet looks two steps later.
    assert told.read == 7
    patient = Told(rows)
    config = AttentionBeamConfig(ctc_weight=0.0, beam=4, nbest=50, end_span=5)
    AttentionBeam(config, EOS, forbidden=(0, 2))([(patient, 1.0)], lengths)
    assert patient.read == 9
    fixed = Told(rows)
    config = AttentionBeamConfig(ctc_weight=0.0, beam=4, maxlenratio=1.0)
    AttentionBeam(config, EOS, forbidden=(0, 2))([(fixed, 1.0)], lengths)
    assert fixed.read == 50


def test_networks_are_mixed_by_their_weights():
    """A neural language model is a second network."""
    rows = [[[0.1, 0.6, 0.2, 0.1], [0.1, 0.3, 0.1, 0.5]], [[0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.1, 0.6]]]
    config = AttentionBeamConfig(ctc_weight=0.0, beam=50, nbest=50, maxlenratio=-2)
    beam = AttentionBeam(config, EOS, forbidden=(0,))
    found = beam([(Told(rows[0]), 1.0), (Told(rows[1]), 0.5)], torch.tensor([9]))[0]
    best = {tuple(h.tokens): h.score for h in found}
    first = math.log(0.6) + 0.5 * math.log(0.2) + math.log(0.5) + 0.5 * math.log(0.6)
    assert best[(1,)] == pytest.approx(first)
    assert best[(2,)] == pytest.approx(
        first - math.log(0.6) - 0.5 * math.log(0.2) + math.log(0.2) + 0.5 * math.log(0.6)
    )


@pytest.mark.parametrize("network", ["lstm", "stateless", "transformer"])
def test_a_neural_language_model_is_added_for_every_token_and_the_end(network, lm):
    """Beside CTC and an n-gram model, of utterances of which some end earlier; against all hypotheses."""
    networks, neural = Networks("las", [4, 2, 3]), make_lm(len(VOCAB), network)
    options = {"beam": 200, "nbest": 200, "prebeam": 1, "ctc_weight": 0.4, "lm_weight": 0.7}
    config = AttentionBeamConfig(**options, **NEVER_ENDS)
    beam = AttentionBeam(config, EOS, 0, lm=Fusion(lm, VOCAB, 0.7, 0.0, config.unk_score, True))
    weighted = [(networks.reading(), 0.6), (LmReading(neural.for_search()), 0.5)]
    found = beam(weighted, networks.lengths, networks.log_probs)
    for row, longest in enumerate([4, 2, 3]):
        expected = exhaustive(networks, row, lm, 0.4, 0.7, 0.0, longest)
        assert {(tuple(h.tokens), h.complete) for h in found[row]} == set(expected)
        assert [h.score for h in found[row]] == sorted((h.score for h in found[row]), reverse=True)
        for h in found[row]:
            said = 0.5 * sentence_log_prob(neural, h.tokens, h.complete)
            score, ctc, rest = expected[tuple(h.tokens), h.complete]
            assert (h.score, h.ctc, h.lm) == pytest.approx((score + said, ctc, rest + said), abs=1e-9)


def test_a_neural_language_model_follows_its_hypotheses():
    """In a narrow beam hypotheses change places, and utterances leave: each is what it is alone."""
    networks, neural = Networks("transformer", [12, 3, 7, 1, 20, 9], seed=2), make_lm(len(VOCAB))
    beam = AttentionBeam(AttentionBeamConfig(beam=4, nbest=4, ctc_weight=0.3), EOS, 0)

    def run(networks):
        weighted = [(networks.reading(), 0.7), (LmReading(neural.for_search()), 0.5)]
        return beam(weighted, networks.lengths, networks.log_probs)

    for row, nbest in enumerate(run(networks)):
        (alone,) = run(networks.only(row))
        assert [h.tokens for h in alone] == [h.tokens for h in nbest]
        assert [h.score for h in alone] == pytest.approx([h.score for h in nbest], abs=1e-9)
        for h in nbest:
            assert h.lm == pytest.approx(0.5 * sentence_log_prob(neural, h.tokens, h.complete), abs=1e-9)


def test_scores_per_token_can_decide():
    rows = [[1e-9, 0.5, 1e-9, 0.5], [1e-9, 0.8, 1e-9, 0.2], [1e-9, 0.05, 1e-9, 0.95]]
    for normalise, expected in ((False, []), (True, [1, 1])):
        config = AttentionBeamConfig(ctc_weight=0.0, beam=3, maxlenratio=-3, normalise=normalise)
        (best,) = AttentionBeam(config, EOS, forbidden=(0,))([(Told(rows), 1.0)], torch.tensor([9]))[0]
        assert best.tokens == expected


def test_no_frames_and_no_utterances():
    networks = Networks("las", [3, 0, 2])
    found = search(networks)
    assert (found[1][0].tokens, found[1][0].score) == ([], 0.0) and found[0] and found[2]
    for row in (0, 2):
        assert found[row][0].score == pytest.approx(search(networks.only(row))[0][0].score, abs=1e-9)
    networks.frames, networks.lengths = networks.frames[:, :0], torch.tensor([0, 0, 0])
    assert [[h.tokens for h in nbest] for nbest in search(networks)] == [[[]]] * 3
    beam = AttentionBeam(AttentionBeamConfig(), EOS)
    assert beam([], torch.zeros(0, dtype=torch.int64)) == []


def test_strong_ctc_is_followed():
    """A decoder that knows nothing, and a CTC that is sure."""
    spoken = [0, 1, 1, 0, 1, 2, 0]
    log_probs = torch.full((1, 7, 4), -9.0)
    for frame, token in enumerate(spoken):
        log_probs[0, frame, token] = 0.0
    log_probs = log_probs.log_softmax(-1)
    config = AttentionBeamConfig(ctc_weight=0.9, beam=5, prebeam=2)
    found = AttentionBeam(config, EOS)([(Told([[0.25] * 4]), 0.1)], torch.tensor([7]), log_probs)
    assert found[0][0].tokens == ctc_greedy(log_probs, torch.tensor([7]))[0] == [1, 1, 2]


def test_nan_names_the_utterance():
    networks = Networks("transformer", [4, 5, 6])
    networks.frames[1, 2] = math.nan
    with pytest.raises(InputError, match="utterance 1 of the batch are NaN"):
        search(networks)


@pytest.mark.parametrize(
    "wrong",
    ["beam=0", "nbest=0", "ctc_weight=1.0", "lm_weight=-1", "prebeam=0.5", "unk_score=1.0", "beams=3"],
)
def test_bad_options_are_refused(wrong):
    with pytest.raises(ProblemsError, match=wrong.split("=")[0]):
        load_config(AttentionBeamConfig, overrides=[wrong])
