"""The beam search against enumeration of all alignments, and against a beam search on dictionaries."""

import itertools
import math
from collections import defaultdict

import pytest
import torch

from speechkit.config import load_config
from speechkit.errors import InputError, ProblemsError
from speechkit.lm import train_ngram
from speechkit.search.ctc_beam import CtcBeam, CtcBeamConfig
from speechkit.search.lexicon import Lexicon

EXACT = {"beam_threshold": math.inf, "token_threshold": math.inf}
VOCAB = ["<blank>", "a", "b", "▁"]
TEXT = ["a b", "ab b a", "a ab", "ba", "b a b a", "a b", "a", "ab ba ab", "b b"]
# Words that begin with other words, and one whose repeated token needs a blank in between.
WORDS = {"a": [(1,)], "ab": [(1, 2)], "aa": [(1, 1)], "ba": [(2, 1)], "b": [(2,)]}


@pytest.fixture(scope="module")
def lm():
    return train_ngram(TEXT, 3, discount_fallback=(0.5, 1.0, 1.5))


def random_log_probs(batch, frames, vocab, seed, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(batch, frames, vocab, generator=generator, dtype=torch.float64)).log_softmax(
        -1
    )


def lexicon(separator):
    words = list(WORDS)
    spellings = [(words.index(word), ids) for word, all_ids in WORDS.items() for ids in all_ids]
    return Lexicon(words, spellings, 3 if separator else None)


def token_probabilities(log_probs):
    """Token sequence -> probability, by enumerating every alignment of `(T, V)`."""
    totals = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token != 0)
        totals[tokens] += math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(path)))
    return totals


def readings(tokens, separator):
    """All word sequences of the lexicon that a token sequence spells (with or without a final separator)."""
    if separator:
        if tokens and tokens[-1] == 3:
            tokens = tokens[:-1]
        parts = [()] if not tokens else [tuple(p) for p in split_at(tokens, 3)]
        if parts == [()]:
            return [()] if not tokens else []
        names = [[w for w, ids in WORDS.items() if part in ids] for part in parts]
        return list(itertools.product(*names))
    if not tokens:
        return [()]
    found = []
    for word, spellings in WORDS.items():
        for ids in spellings:
            if tokens[: len(ids)] == ids:
                found += [(word, *rest) for rest in readings(tokens[len(ids) :], separator)]
    return found


def split_at(tokens, separator):
    parts = [[]]
    for token in tokens:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def expected_by_words(log_probs, separator, lm, weight, bonus):
    """Words -> (score, ctc) by enumeration: every path, every way to read it as words."""
    sums = defaultdict(float)
    for tokens, probability in token_probabilities(log_probs).items():
        # A final separator after no word is no reading: the search starts words, it does not end none.
        if separator and tokens and all(token == 3 for token in tokens):
            continue
        for words in readings(tokens, separator):
            sums[words] += probability
    result = {}
    for words, probability in sums.items():
        rest = bonus * len(words)
        if lm is not None:
            rest += weight * math.log(10) * lm.score(" ".join(words))
        result[words] = (math.log(probability) + rest, math.log(probability))
    return result


@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize("with_lm", [True, False])
def test_lexicon_search_finds_every_reading_with_its_exact_score(lm, separator, with_lm):
    log_probs = random_log_probs(1, 6, 4, seed=3)
    used = lm if with_lm else None
    config = CtcBeamConfig(beam=4000, nbest=4000, lm_weight=0.7, word_bonus=0.4, unk_score=0.0, **EXACT)
    found = CtcBeam(config, VOCAB, lexicon(separator), used)(log_probs, torch.tensor([6]))[0]
    expected = expected_by_words(log_probs[0], separator, used, 0.7, 0.4)
    assert len(found) == len(expected) > 20
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for hypothesis in found:
        score, ctc = expected[tuple(hypothesis.words)]
        assert hypothesis.score == pytest.approx(score, abs=1e-8)
        assert hypothesis.ctc == pytest.approx(ctc, abs=1e-8)
        assert hypothesis.lm == pytest.approx(score - ctc, abs=1e-8)


def test_spellings_of_one_word_add_up():
    log_probs = random_log_probs(1, 4, 4, seed=5)
    two_ways = Lexicon(["x"], [(0, (1, 2)), (0, (2, 1))])
    found = CtcBeam(CtcBeamConfig(beam=500, nbest=9, **EXACT), VOCAB, two_ways)(log_probs, torch.tensor([4]))[
        0
    ]
    totals = token_probabilities(log_probs[0])
    once = next(h for h in found if h.words == ["x"])
    assert once.ctc == pytest.approx(math.log(totals[1, 2] + totals[2, 1]), abs=1e-9)


def test_free_search_gives_the_exact_probability_of_every_token_sequence():
    log_probs = random_log_probs(1, 5, 4, seed=1)
    config = CtcBeamConfig(beam=1000, nbest=1000, **EXACT)
    found = CtcBeam(config, VOCAB)(log_probs, torch.tensor([5]))[0]
    expected = token_probabilities(log_probs[0])
    assert {tuple(h.tokens) for h in found} == set(expected)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(math.log(expected[tuple(hypothesis.tokens)]), abs=1e-9)


def test_token_language_model():
    vocab = ["<blank>", "a", "b", "c"]
    lm = train_ngram(["a b", "b a b", "a a", "b", "a b a b"], 2, discount_fallback=(0.5, 1.0, 1.5))
    log_probs = random_log_probs(1, 5, 4, seed=2)
    config = CtcBeamConfig(
        beam=1000, nbest=1000, lm_weight=0.5, word_bonus=-0.2, unk_score=-3.0, lm_unit="token", **EXACT
    )
    found = CtcBeam(config, vocab, lm=lm)(log_probs, torch.tensor([5]))[0]
    expected = token_probabilities(log_probs[0])
    assert len(found) == len(expected)
    for hypothesis in found:
        tokens = tuple(hypothesis.tokens)
        text = " ".join(vocab[token] for token in tokens)
        rest = 0.5 * math.log(10) * lm.score(text) - 0.2 * len(tokens) - 3.0 * tokens.count(3)
        assert hypothesis.score == pytest.approx(math.log(expected[tokens]) + rest, abs=1e-7)


@pytest.mark.parametrize("unk_score", [-2.0, -math.inf])
def test_open_vocabulary_scores_words_between_separators(lm, unk_score):
    log_probs = random_log_probs(1, 6, 4, seed=8)
    config = CtcBeamConfig(beam=5000, nbest=5000, lm_weight=0.6, word_bonus=0.1, unk_score=unk_score, **EXACT)
    search = CtcBeam(config, VOCAB, lm=lm)
    found = search(log_probs, torch.tensor([6]))[0]
    expected = {}
    for tokens, probability in token_probabilities(log_probs[0]).items():
        words = "".join(VOCAB[t] for t in tokens).replace("▁", " ").split()
        unknown = sum(word not in lm.index for word in words)
        if unknown and unk_score == -math.inf:
            continue
        rest = 0.6 * math.log(10) * lm.score(" ".join(words)) + 0.1 * len(words)
        rest += unk_score * unknown if unknown else 0.0
        expected[tokens] = math.log(probability) + rest
    assert {tuple(h.tokens) for h in found} == set(expected)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-7)


class DictionaryBeam:
    """The same search written plainly: one utterance, dictionaries, no arrays, no look-ahead."""

    def __init__(self, beam, lm, weight, bonus):
        self.beam, self.lm, self.weight, self.bonus = beam, lm, weight * math.log(10), bonus

    def next_edges(self, words, partial):
        """(token, words, partial) of every way to go on inside the lexicon without separator."""
        for word, spellings in WORDS.items():
            for ids in spellings:
                if ids[: len(partial)] == partial and len(ids) > len(partial):
                    token = ids[len(partial)]
                    yield token, words, (*partial, token)
                    if len(ids) == len(partial) + 1:
                        yield token, (*words, word), ()

    def can_go_on(self, partial):
        return any(
            ids[: len(partial)] == partial and len(ids) > len(partial) for s in WORDS.values() for ids in s
        )

    def fused(self, words):
        if not words:
            return 0.0
        return self.weight * self.lm.score(" ".join(words), eos=False) + self.bonus * len(words)

    def __call__(self, log_probs):
        beams = {((), (), ()): (1.0, 0.0)}
        for frame in log_probs.exp().tolist():
            new = defaultdict(lambda: [0.0, 0.0])
            for key, (blank, token) in beams.items():
                tokens, words, partial = key
                new[key][0] += (blank + token) * frame[0]
                if tokens:
                    new[key][1] += token * frame[tokens[-1]]
                for edge, more, rest in set(self.next_edges(words, partial)):
                    if rest and not self.can_go_on(rest):
                        continue
                    base = blank if tokens and tokens[-1] == edge else blank + token
                    new[(*tokens, edge), more, rest][1] += base * frame[edge]
            ranked = sorted(
                (k for k in new if sum(new[k]) > 0), key=lambda k: -(math.log(sum(new[k])) + self.fused(k[1]))
            )
            beams = {key: tuple(new[key]) for key in ranked[: self.beam]}
        joint = defaultdict(float)
        for (_, words, partial), probabilities in beams.items():
            if not partial:
                joint[words] += sum(probabilities)
        return {w: math.log(p) + self.fused(w) + self.end(w) for w, p in joint.items() if p}

    def end(self, words):
        with_end = self.lm.score(" ".join(words))
        return self.weight * (with_end - self.lm.score(" ".join(words), eos=False))


@pytest.mark.parametrize("beam", [2, 5, 17])
def test_pruned_search_equals_the_dictionary_search(lm, beam):
    frames = 14
    log_probs = random_log_probs(6, frames, 4, seed=beam, scale=2.0)
    config = CtcBeamConfig(
        beam=beam, nbest=beam, lm_weight=0.8, word_bonus=0.3, unk_score=0.0, lookahead=False, **EXACT
    )
    search = CtcBeam(config, VOCAB, lexicon(False), lm)
    for row, found in enumerate(search(log_probs, torch.full((6,), frames))):
        expected = DictionaryBeam(beam, lm, 0.8, 0.3)(log_probs[row])
        if not expected:
            assert not any(h.complete for h in found)
            continue
        assert {tuple(h.words): pytest.approx(h.score, abs=1e-7) for h in found} == expected


def plain_prefix_search(log_probs, beam):
    """Prefix search of one utterance on a dictionary: tokens -> (ends in blank, ends in its last token)."""
    beams = {(): (1.0, 0.0)}
    for frame in log_probs.exp().tolist():
        new = defaultdict(lambda: [0.0, 0.0])
        for tokens, (blank, token) in beams.items():
            new[tokens][0] += (blank + token) * frame[0]
            if tokens:
                new[tokens][1] += token * frame[tokens[-1]]
            for edge in range(1, len(frame)):
                base = blank if tokens and tokens[-1] == edge else blank + token
                new[(*tokens, edge)][1] += base * frame[edge]
        beams = {key: tuple(new[key]) for key in sorted(new, key=lambda k: -sum(new[k]))[:beam]}
    return {tokens: math.log(sum(both)) for tokens, both in beams.items()}


def test_prefixes_that_come_back_meet_their_longer_ones_again():
    """Small beams on noise: prefixes fall out while longer ones stay, and return; nothing is there twice."""
    log_probs = random_log_probs(300, 18, 4, seed=21, scale=1.0)
    found = CtcBeam(CtcBeamConfig(beam=6, nbest=6, **EXACT), VOCAB)(log_probs, torch.full((300,), 18))
    for row, hypotheses in enumerate(found):
        expected = plain_prefix_search(log_probs[row], 6)
        assert len(hypotheses) == len(expected)
        assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-8) for h in hypotheses} == expected


@pytest.mark.parametrize("kind", ["free", "lexicon", "separated", "open", "token"])
def test_batch_equals_single_utterances_whatever_the_padding(lm, kind):
    log_probs = random_log_probs(5, 30, 4, seed=11, scale=2.0).float()
    lengths = torch.tensor([30, 7, 0, 19, 30])
    config = CtcBeamConfig(
        beam=8, nbest=4, lm_weight=0.5, unk_score=-1.0, lm_unit="token" if kind == "token" else "word"
    )
    used = lexicon(kind == "separated") if kind in ("lexicon", "separated") else None
    search = CtcBeam(config, VOCAB, used, None if kind == "free" else lm)
    together = search(log_probs, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert search(log_probs[row : row + 1, :length], lengths[row : row + 1])[0] == together[row]
    for row, length in enumerate(lengths.tolist()):
        log_probs[row, length:] = math.nan
    assert search(log_probs, lengths) == together
    assert search(log_probs.flip(0), lengths.flip(0))[::-1] == together


def test_ties_are_broken_the_same_way_every_time():
    log_probs = torch.zeros(3, 6, 4).log_softmax(-1)
    search = CtcBeam(CtcBeamConfig(beam=5, nbest=5, **EXACT), VOCAB)
    first = search(log_probs, torch.tensor([6, 6, 6]))
    assert first[0] == first[1] == first[2] == search(log_probs[:1], torch.tensor([6]))[0]
    assert len(first[0]) == 5 and len({tuple(h.tokens) for h in first[0]}) == 5


def test_extreme_scores_do_not_underflow():
    """2000 frames in which all that the lexicon allows has probability e^-60 a frame."""
    log_probs = torch.full((1, 2000, 4), -60.0, dtype=torch.float64)
    log_probs[..., 3] = 0.0  # no word has it
    log_probs[:, 999, 0] = -math.inf
    config = CtcBeamConfig(beam=4, word_bonus=-50.0, **EXACT)
    search = CtcBeam(config, VOCAB, Lexicon(["a"], [(0, (1,))]))
    (best,) = search(log_probs, torch.tensor([2000]))[0]
    paths = 1000 * 1001  # first and last frame of the word around frame 999
    assert best.words == ["a"] and best.ctc == pytest.approx(-60.0 * 2000 + math.log(paths), abs=1e-6)


def test_token_pruning_and_special_tokens():
    log_probs = torch.log(torch.tensor([[[0.1, 0.5, 0.3, 0.1]]]))
    words = {tuple(h.tokens) for h in search_all(log_probs, token_top=2, token_threshold=math.inf)}
    assert words == {(), (1,), (2,)}
    words = {tuple(h.tokens) for h in search_all(log_probs, token_threshold=math.log(2))}
    assert words == {(), (1,), (2,)}
    words = {tuple(h.tokens) for h in search_all(log_probs, token_threshold=0.1)}
    assert words == {(), (1,)}
    special = CtcBeam(CtcBeamConfig(nbest=9), ["<blank>", "<unk>", "b", "<sos/eos>"])(
        log_probs, torch.tensor([1])
    )
    assert {tuple(h.tokens) for h in special[0]} == {(), (2,)}


def search_all(log_probs, **options):
    return CtcBeam(CtcBeamConfig(nbest=9, **options), VOCAB)(log_probs, torch.tensor([1]))[0]


def test_skipping_sure_blanks_keeps_repeats_apart():
    """`a`, then many sure blanks, then `a` again; the score changes by no more than the blanks' own."""
    spike = [[0.02, 0.9, 0.04, 0.04]]
    probs = torch.tensor(spike + [[0.99997, 1e-5, 1e-5, 1e-5]] * 40 + spike)
    log_probs = probs.log()[None].double()
    lengths = torch.tensor([42])
    full = CtcBeam(CtcBeamConfig(nbest=3, **EXACT), VOCAB)(log_probs, lengths)[0]
    short = CtcBeam(CtcBeamConfig(nbest=3, blank_skip=0.9999, **EXACT), VOCAB)(log_probs, lengths)[0]
    assert full[0].tokens == short[0].tokens == [1, 1]
    assert full[0].score == pytest.approx(short[0].score, abs=0.01)


def test_an_utterance_that_ends_inside_a_word_says_so():
    log_probs = torch.full((1, 2, 4), -20.0)
    log_probs[0, :, 1] = 0.0
    only = Lexicon(["aba"], [(0, (1, 2, 1))])
    search = CtcBeam(CtcBeamConfig(beam=1), VOCAB, only)
    (best,) = search(log_probs, torch.tensor([2]))[0]
    assert best.words == [] and not best.complete


def test_times_are_those_of_the_best_path():
    path = [0, 1, 1, 0, 1, 2, 0]
    log_probs = torch.full((1, 7, 4), -8.0)
    for frame, token in enumerate(path):
        log_probs[0, frame, token] = 0.0
    search = CtcBeam(CtcBeamConfig(times=True), VOCAB)
    best = search(log_probs.log_softmax(-1), torch.tensor([7]))[0][0]
    assert [tuple(span) for span in best.spans] == [(1, 1, 3), (1, 4, 5), (2, 5, 6)]


def test_lookahead_changes_the_order_of_pruning_but_not_scores(lm):
    log_probs = random_log_probs(1, 8, 4, seed=4)
    both = []
    for lookahead in (True, False):
        config = CtcBeamConfig(beam=3000, nbest=50, unk_score=0.0, lookahead=lookahead, **EXACT)
        both.append(CtcBeam(config, VOCAB, lexicon(True), lm)(log_probs, torch.tensor([8]))[0])
    assert [h.words for h in both[0]] == [h.words for h in both[1]]
    assert [h.score for h in both[0]] == pytest.approx([h.score for h in both[1]])


def test_a_closed_vocabulary_leaves_out_words_unknown_to_the_model(lm):
    words = Lexicon(["a", "zz"], [(0, (1,)), (1, (2,))])
    log_probs = torch.log(torch.tensor([[[0.05, 0.15, 0.75, 0.05]]]))
    closed = CtcBeam(CtcBeamConfig(unk_score=-math.inf, nbest=9), VOCAB, words, lm)
    assert closed.unknown == ["zz"]
    assert {tuple(h.words) for h in closed(log_probs, torch.tensor([1]))[0]} == {(), ("a",)}
    opened = CtcBeam(CtcBeamConfig(unk_score=0.0, nbest=9), VOCAB, words, lm)
    assert ("zz",) in {tuple(h.words) for h in opened(log_probs, torch.tensor([1]))[0]}


def test_config_loads_and_refuses(tmp_path):
    file = tmp_path / "beam.yaml"
    file.write_text("beam: 100\nunk_score: -.inf\nlm_unit: token\ntoken_top: 20\n")
    assert load_config(CtcBeamConfig, file) == CtcBeamConfig(
        beam=100, unk_score=-math.inf, lm_unit="token", token_top=20
    )
    for wrong in ("beam=0", "nbest=51", "unk_score=1.0", "lm_unit=letter", "blank_skip=0.1", "beams=3"):
        with pytest.raises(ProblemsError, match=wrong.split("=")[0]):
            load_config(CtcBeamConfig, file, [wrong] if wrong != "nbest=51" else ["beam=50", wrong])


def test_input_that_does_not_fit_is_refused(lm):
    search = CtcBeam(CtcBeamConfig(), VOCAB)
    with pytest.raises(InputError, match=r"expected \(B, T, 4\)"):
        search(torch.zeros(1, 3, 5), torch.tensor([3]))
    with pytest.raises(InputError, match="between 0 and 3 frames"):
        search(torch.zeros(1, 3, 4), torch.tensor([4]))
    with pytest.raises(InputError, match="utterance 1 of the batch are NaN"):
        search(torch.tensor([[[0.0] * 4], [[math.nan] * 4]]), torch.tensor([1, 1]))
    with pytest.raises(InputError, match="give a lexicon"):
        CtcBeam(CtcBeamConfig(), ["<blank>", "a", "b"], lm=lm)
    assert search(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.long)) == []
