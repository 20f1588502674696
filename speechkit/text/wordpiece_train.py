"""A WordPiece vocabulary for a BERT that is trained here: whole words, or pieces merged by frequency."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.text.wordpiece_cut import CLS, MASK, PAD, SEP, SPECIAL, UNKNOWN, Cutter, Rules

SPECIALS = (PAD, UNKNOWN, CLS, SEP, MASK)
"""In the order of their ids; `[PAD]` is 0 as in transformers' defaults."""


def train_vocab(
    texts: Iterable[str],
    rules: Rules,
    size: int | None = None,
    min_count: int = 1,
    whole_words: bool = False,
) -> list[str]:
    """Learns the tokens of a BERT.

    Args:
        texts: training text, a sentence each, normalised.
        rules: what happens to a text before it is cut; capitals and accents as they are written by default.
        size: most tokens, special ones included; None for as many as the text gives.
        min_count: words, or pairs of pieces to merge, that are seen less often are left out.
        whole_words: a token is a word, and any other word is `[UNK]`; the most frequent words when `size` is
            too small for all. Otherwise single characters and what is merged from them (Sennrich et al.,
            2016), most frequent pairs first, up to whole words.

    Returns:
        Tokens in the order of their ids: special ones first. The same for the same texts in any order.

    Raises:
        InputError: no word, or `size` is too small.
    """
    counts = _count(texts, rules)
    if not counts:
        raise InputError("the text has no word")
    if whole_words:
        words = [word for word, count in _frequent_first(counts) if count >= min_count]
        kept = words if size is None else words[: max(0, size - len(SPECIALS))]
        if not kept:
            raise InputError(f"no word is left with size={size} and min_count={min_count}")
        return [*SPECIALS, *kept]
    return _merged(counts, size, min_count)


def _count(texts: Iterable[str], rules: Rules) -> Counter[str]:
    """How often each of BERT's words comes; special tokens that stand in the text are none of them."""
    words = Cutter(SPECIALS, rules).words
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words(text))
    return Counter({word: count for word, count in counts.items() if not SPECIAL.fullmatch(word)})


def _frequent_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _merged(counts: Counter[str], size: int | None, min_count: int) -> list[str]:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.trainers import WordPieceTrainer

    # The library numbers pieces as it meets them in a hash table, and breaks ties by number. Named before,
    # the characters have the same numbers in every run, and so do all that is merged from them.
    characters = sorted({character for word in counts for character in word})
    inner = sorted({f"##{character}" for word in counts for character in word[1:]})
    given = [*SPECIALS, *characters, *inner]
    if size is not None and size < len(given):
        raise InputError(
            f"size={size}: {len(characters)} characters, {len(inner)} of them inside words, and "
            f"{len(SPECIALS)} special tokens need at least {len(given)}"
        )
    # Each merge adds one token, and no word of n characters needs more than n - 1.
    enough = len(given) + sum(map(len, counts))
    trainer = WordPieceTrainer(
        vocab_size=size or enough,
        min_frequency=min_count,
        special_tokens=given,
        continuing_subword_prefix="##",
        show_progress=False,
    )
    model = Tokenizer(WordPiece(unk_token=UNKNOWN))
    model.pre_tokenizer = WhitespaceSplit()
    lines = (word for word, count in _frequent_first(counts) for _ in range(count))
    model.train_from_iterator(lines, trainer)
    ids = model.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def write_vocab(folder: Path, vocab: list[str], rules: Rules) -> None:
    """Writes vocab.txt and tokenizer_config.json, as transformers' `BertTokenizer` reads them."""
    write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in vocab))
    write_tokenizer_config(folder, rules)


def write_tokenizer_config(folder: Path, rules: Rules) -> None:
    """Writes tokenizer_config.json."""
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": rules.lower_case,
        "strip_accents": rules.strip_accents,
        "tokenize_chinese_chars": rules.chinese,
        "unk_token": UNKNOWN,
        "sep_token": SEP,
        "pad_token": PAD,
        "cls_token": CLS,
        "mask_token": MASK,
    }
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
