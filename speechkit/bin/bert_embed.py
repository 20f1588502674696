"""`speechkit bert-embed`: the embeddings that a BERT gives the tokens of texts, on disk for trainings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechkit.bin.__main__ import true_or_false
from speechkit.stamp import Stamp

if TYPE_CHECKING:
    from speechkit.text.tokenizer import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--bert", required=True, help="Hugging Face folder, or a hub name that is in transformers' cache")
    add("--tokenizer", type=Path, required=True, help="wordpiece tokenizer of that BERT")
    add("--text", type=Path, nargs="+", required=True, help="texts: lines `utterance words...`")
    add("--out", type=Path, required=True, help="folder to write, for model.transfer.store")
    add(
        "--layers", type=int, nargs="+", default=[-1], help="blocks that are averaged (default: the last one)"
    )
    add("--device", default="cpu", help="such as cuda")
    add("--force", type=true_or_false, default=False, help="make it again even when nothing changed")


def run(args: argparse.Namespace) -> int | None:
    """Embeds every different sentence once."""
    from speechkit.errors import InputError, UsageError
    from speechkit.integrations.bert import locate, open_embedder
    from speechkit.lm.bert_embeddings import Config
    from speechkit.lm.embedding_store import write_store
    from speechkit.text.reading import read_text
    from speechkit.text.tokenizer import load_tokenizer

    folder = locate(args.bert)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin"))]
    inputs = [*args.text, args.tokenizer / "tokenizer.json", *files]
    stamp = Stamp(args.out, "bert-embed", [args.layers], inputs, args.force)
    if stamp.fresh():
        return None
    tokenizer = load_tokenizer(args.tokenizer)
    if tokenizer.kind != "wordpiece":
        raise InputError(
            f"{args.tokenizer}: of kind {tokenizer.kind}; embeddings are of a BERT's pieces: --kind wordpiece"
        )
    units = tokenizer.units
    try:
        config = Config(args.layers, units.specials)
    except ValueError as error:
        raise UsageError(f"--layers: {error}") from None
    embedder = open_embedder(folder, config, units.vocab)
    embedder.bert.to(args.device)
    texts = ((path, *pair) for path in dict.fromkeys(args.text) for pair in read_text(path).items())
    ids = (_word_ids(tokenizer, embedder.bert.positions - 2, *text) for text in texts)
    count = write_store(args.out, ids, embedder, {"bert": str(folder)})
    stamp.write()
    print(
        f"speechkit bert-embed: {args.out}: {count} sentences, {embedder.dim} values a token", file=sys.stderr
    )
    return None


def _word_ids(tokenizer: Tokenizer, room: int, path: Path, utterance: str, text: str) -> list[int]:
    """BERT's ids of a text, without [CLS] and [SEP]; InputError when they are more than there is room for."""
    from speechkit.errors import InputError

    units, ids = tokenizer.units, tokenizer.encode(text)
    words = ids[len(units.before) : len(ids) - len(units.after)]
    if len(words) > room:
        raise InputError(
            f"{path}: utterance {utterance}: {len(words)} word pieces, and the BERT has room for {room}; "
            "split it"
        )
    return [units.bert_ids[k] for k in words]
