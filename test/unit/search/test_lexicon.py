"""Lexicons from files and tokenizers, and their tries."""

import numpy as np
import pytest

from speechkit.search.lexicon import Lexicon, Trie, read_lexicon
from speechkit.text.tokenizer import build_tokenizer

VOCAB = ["<blank>", "<unk>", "▁", "a", "b", "n"]


def spelt(trie):
    """Every word's token sequences, by walking all edges from the root."""
    found, stack = [], [(0, ())]
    while stack:
        node, tokens = stack.pop()
        for edge in range(trie.first[node], trie.first[node] + trie.count[node]):
            path = (*tokens, int(trie.token[edge]))
            if trie.word[edge] >= 0:
                assert trie.target[edge] == 0
                found.append((int(trie.word[edge]), path))
            else:
                stack.append((int(trie.target[edge]), path))
    return sorted(found)


def test_file_with_two_spellings_and_words_outside_the_vocabulary(tmp_path):
    (tmp_path / "lexicon.txt").write_text("ban b a n\na a\n\nban b a b\nzoo z o o\n")
    lexicon = read_lexicon(tmp_path / "lexicon.txt", VOCAB)
    assert lexicon.words == ["ban", "a"] and lexicon.dropped == ["zoo"] and lexicon.separator == 2
    assert lexicon.spellings == [(0, (4, 3, 5)), (1, (3,)), (0, (4, 3, 4))]
    assert spelt(Trie(lexicon)) == [(0, (4, 3, 4, 2)), (0, (4, 3, 5, 2)), (1, (3, 2))]


def test_spellings_that_mark_words_need_no_separator(tmp_path):
    vocab = ["<blank>", "▁", "▁ba", "n", "▁a"]
    (tmp_path / "lexicon.txt").write_text("ban ▁ba n\na ▁a\n")
    lexicon = read_lexicon(tmp_path / "lexicon.txt", vocab)
    assert lexicon.separator is None
    assert spelt(Trie(lexicon)) == [(0, (2, 3)), (1, (4,))]


def test_a_word_that_begins_another_has_both_edges():
    trie = Trie(Lexicon(["a", "ab", "b", "bee"], [(0, (3,)), (1, (3, 4)), (2, (4,)), (3, (4,))]))
    assert spelt(trie) == [(0, (3,)), (1, (3, 4)), (2, (4,)), (3, (4,))]
    at_root = zip(trie.token[: trie.count[0]].tolist(), trie.word[: trie.count[0]].tolist())
    assert sorted(at_root) == [(3, -1), (3, 0), (4, 2), (4, 3)]


def test_best_below_is_the_best_word_under_each_node():
    trie = Trie(Lexicon(["ab", "an", "b"], [(0, (3, 4)), (1, (3, 5)), (2, (4,))]))
    best = trie.best_below(np.array([-3.0, -1.0, -2.0]))
    assert best[0] == -1.0 and best.tolist()[1:] == [-1.0]


def test_from_words_with_a_character_tokenizer():
    tokenizer = build_tokenizer("char", ["ban nab a"])
    lexicon = Lexicon.from_words(["nab", "a", "zoo", "nab"], tokenizer)
    assert lexicon.words == ["nab", "a"] and lexicon.dropped == ["zoo"]
    assert tokenizer.vocab[lexicon.separator] == "▁"
    assert [tokenizer.decode(ids) for _, ids in lexicon.spellings] == ["nab", "a"]


@pytest.mark.parametrize("kind, size", [("bpe", 26), ("unigram", 19)])
def test_from_words_with_pieces(kind, size):
    text = ["the banana and the nab", "a ban and a band", "bananas on the band"] * 5
    tokenizer = build_tokenizer(kind, text, size=size)
    lexicon = Lexicon.from_words(["banana", "the", "band"], tokenizer)
    assert lexicon.separator is None and len(lexicon.words) == 3
    assert [tokenizer.decode(ids) for _, ids in lexicon.spellings] == ["banana", "the", "band"]
