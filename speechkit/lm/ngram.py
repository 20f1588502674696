"""An n-gram model as arrays, so that scoring one word for thousands of hypotheses is one call.

Every n-gram is a node of a trie whose root is the empty context. A node knows its log probability,
its back-off weight and its suffix (the n-gram without its first word). Nodes are numbered by order, and
within an order by (node of the first words, last word), so the keys `node * V + word` of all n-grams are
one sorted array in which a binary search finds the n-gram one word longer than a node. The state of a
hypothesis is the node of the longest context that the model knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL = (UNK, BOS, EOS)


@dataclass
class Level:
    """The n-grams of one order, sorted by `(prefix, word)`.

    Attributes:
        prefix: `(N,)` index of the first n-1 words in the level below (0 for unigrams).
        word: `(N,)` id of the last word.
        suffix: `(N,)` index of the last n-1 words in the level below, -1 when that n-gram is absent.
        log10: `(N,)` float32 log10 probability.
        backoff: `(N,)` float32 log10 back-off weight.
    """

    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    log10: np.ndarray
    backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.word)


class NgramLM:
    """A back-off n-gram model.

    Args:
        words: vocabulary; `<unk>`, `<s>` and `</s>` are among them; unigram i is words[i].
        levels: one `Level` an order; every prefix exists.

    Attributes:
        order: the longest n-gram.
        root: state of the empty context.
        begin: state after `<s>`.
    """

    root = 0

    def __init__(self, words: Sequence[str], levels: Sequence[Level]) -> None:
        self.words, self.levels, self.order = list(words), list(levels), len(levels)
        self.index = {word: number for number, word in enumerate(self.words)}
        self.unk, self.bos, self.eos = (self.index[word] for word in SPECIAL)
        starts = np.cumsum([1, *map(len, levels)])
        self._log10 = np.concatenate([[0.0], *(level.log10 for level in levels)])
        self._backoff = np.concatenate([[0.0], *(level.backoff for level in levels)])
        parent = np.concatenate(
            [np.zeros(len(levels[0]), np.int64), *(s + v.prefix for s, v in zip(starts, levels[1:]))]
        )
        word = np.concatenate([level.word for level in levels]).astype(np.int64)
        self._keys = parent * len(self.words) + word
        self._suffix = _suffixes(self, levels, starts)
        self._state = self._minimal_states(np.bincount(parent, minlength=len(self._log10)) > 0, starts)
        self.begin = int(self._state[1 + self.bos])

    def _minimal_states(self, is_context: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Node -> the shortest context that scores every continuation the same.

        An n-gram that nothing continues only backs off; without a weight, so does its suffix at once.
        """
        needed = is_context | (self._backoff != 0)
        needed[starts[self.order - 1] :] = False  # no n-gram is longer than the order
        state = np.arange(len(needed))
        for start, end in zip(starts[:-1], starts[1:]):
            nodes = np.arange(start, end)
            state[nodes] = np.where(needed[nodes], nodes, state[self._suffix[nodes]])
        return state

    def _child(self, nodes: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Nodes `(N,)` one word longer, -1 where the model has no such n-gram."""
        keys = nodes * len(self.words) + words
        place = np.minimum(self._keys.searchsorted(keys), len(self._keys) - 1)
        return np.where(self._keys.take(place) == keys, place + 1, -1)

    def ids(self, words: Iterable[str]) -> np.ndarray:
        """`(N,)` int64 ids; the id of `<unk>` for words outside the vocabulary."""
        return np.array([self.index.get(word, self.unk) for word in words], dtype=np.int64)

    def advance(self, states: np.ndarray | Tensor, words: np.ndarray | Tensor) -> tuple:
        """Scores one more word for each of N hypotheses.

        Args:
            states: `(N,)` int64 nodes, as `begin`, `root` or returned by an earlier call.
            words: `(N,)` int64 word ids.

        Returns:
            log10 probabilities `(N,)` float64 and new states `(N,)` int64: numpy arrays for arrays,
            tensors on the same device for tensors (the look-up itself runs on the CPU).
        """
        if isinstance(states, Tensor):
            scores, new = self.advance(states.cpu().numpy(), words.cpu().numpy())
            return torch.from_numpy(scores).to(states.device), torch.from_numpy(new).to(states.device)
        node = np.array(states, dtype=np.int64)
        words = np.asarray(words, dtype=np.int64)
        child, scores = self._child(node, words), np.zeros(len(node))
        todo = (child < 0).nonzero()[0]
        while todo.size:  # at most order - 1 rounds: every word has a unigram
            shorter = node.take(todo)
            scores[todo] += self._backoff.take(shorter)
            node[todo] = shorter = self._suffix.take(shorter)
            child[todo] = found = self._child(shorter, words.take(todo))
            todo = todo[found < 0]
        scores += self._log10.take(child)
        return scores, self._state.take(child)

    def best_log10(self) -> np.ndarray:
        """`(V,)` an upper bound of every word's log10 probability over all contexts."""
        best = np.full(len(self.words), -np.inf)
        for level in self.levels:
            np.maximum.at(best, level.word, level.log10)
        # Back-off weights above 1 (other toolkits write some) can lift a word over all its n-grams.
        return best if (self._backoff <= 0).all() else np.zeros(len(best))

    def score(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """log10 probability of a sentence of words separated by white space.

        Args:
            sentence: the words; unknown ones score as `<unk>`.
            bos: start after `<s>`, otherwise from the empty context.
            eos: include the end of the sentence.
        """
        words = [*self.ids(sentence.split()), *([self.eos] if eos else [])]
        state, total = np.array([self.begin if bos else self.root]), 0.0
        for word in words:
            score, state = self.advance(state, np.array([word]))
            total += float(score[0])
        return total

    def score_sentences(self, sentences: Sequence[str]) -> Scores:
        """Scores many sentences together, each from `<s>` to `</s>`."""
        rows = [np.append(self.ids(sentence.split()), self.eos) for sentence in sentences]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        lengths = np.array([len(rows[i]) for i in order], dtype=np.int64)
        padded = np.zeros((len(rows), lengths.max(initial=0)), dtype=np.int64)
        for row, i in enumerate(order):
            padded[row, : len(rows[i])] = rows[i]
        log10, known = np.zeros(len(rows)), np.zeros(len(rows))
        states = np.full(len(rows), self.begin)
        for position in range(padded.shape[1]):
            active = int((lengths > position).sum())
            words = padded[:active, position]
            scores, states = self.advance(states[:active], words)
            log10[:active] += scores
            known[:active] += np.where(words == self.unk, 0.0, scores)
        back = np.argsort(order)
        oov = np.array([int((row == self.unk).sum()) for row in rows], dtype=np.int64)
        counts = np.array([len(row) for row in rows], dtype=np.int64)
        return Scores(log10[back], known[back], counts, oov)

    def perplexity(self, sentences: Sequence[str]) -> float:
        """10 to the minus mean log10 over all words and ends of sentences, unknown words included."""
        return self.score_sentences(sentences).perplexity()


@dataclass
class Scores:
    """Scores of N sentences.

    Attributes:
        log10: `(N,)` log10 probability, `</s>` included.
        known: `(N,)` the same without the terms of unknown words.
        counts: `(N,)` words, `</s>` included.
        oov: `(N,)` words outside the vocabulary.
    """

    log10: np.ndarray
    known: np.ndarray
    counts: np.ndarray
    oov: np.ndarray

    def perplexity(self, with_oov: bool = True) -> float:
        """Perplexity of all sentences together, with or without the unknown words' own terms."""
        total = self.log10.sum() if with_oov else self.known.sum()
        count = self.counts.sum() - (0 if with_oov else self.oov.sum())
        return float(10 ** (-total / count)) if count else float("nan")


def _suffixes(lm: NgramLM, levels: Sequence[Level], starts: np.ndarray) -> np.ndarray:
    """Suffix node of every node: the longest one that the model has (a pruned model may lack some)."""
    suffix = np.zeros(len(lm._log10), dtype=np.int64)
    for order in range(2, lm.order + 1):
        level, start, below = levels[order - 1], starts[order - 1], starts[order - 2]
        nodes = start + np.arange(len(level))
        suffix[nodes] = below + level.suffix
        todo = nodes[level.suffix < 0]
        words, context = level.word[level.suffix < 0], below + level.prefix[level.suffix < 0]
        while todo.size:
            context = suffix[context]
            child = lm._child(context, words)
            suffix[todo] = child
            missing = child < 0
            todo, words, context = todo[missing], words[missing], context[missing]
    return suffix
