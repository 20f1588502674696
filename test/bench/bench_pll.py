"""Pseudo-log-likelihoods of N-best lists: batched, one masked copy at a time, and a loop around transformers.

    python test/bench/bench_pll.py [--utterances 32] [--nbest 5] [--pieces 12] [--dim 128] [--layers 3]
                                   [--vocab 1000] [--threads 1] [--device cpu]

The lists are as a beam search makes them: the hypotheses of an utterance differ in a few pieces. All three
get the same weights and ids. Seconds are the best of several runs of scoring alone; the table also says how
far apart the scores are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

from speechkit.encoders import bert
from speechkit.encoders.bert import Bert, BertAssets
from speechkit.lm.masked import TOKENS, pseudo_log_likelihood
from speechkit.text.bert_vocab import NEEDED, BertVocab
from speechkit.text.wordpiece_cut import Rules


def make_bert(dim: int, layers: int, pieces: int) -> Bert:
    """A BERT with random weights."""
    vocab = [*NEEDED, *(f"w{number}" for number in range(pieces))]
    config = {
        **{"model_type": "bert", "vocab_size": len(vocab), "hidden_size": dim, "num_hidden_layers": layers},
        **{"num_attention_heads": max(dim // 64, 1), "intermediate_size": 4 * dim},
    }
    torch.manual_seed(0)
    assets = BertAssets(config, BertVocab(vocab, Rules(), vocab[len(NEEDED) :]))
    return bert.build(bert.Config(), assets).eval()


def make_lists(utterances: int, nbest: int, pieces: int, vocab: int) -> list[list[int]]:
    """Hypotheses of about so many pieces; all but the first of an utterance have one to three changed."""
    generator = torch.Generator().manual_seed(1)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    lists = []
    for length in draw(max(pieces // 2, 1), pieces * 3 // 2 + 1, utterances):
        first = draw(1, vocab, length)
        lists.append(first)
        for changes in draw(1, 4, nbest - 1):
            other = list(first)
            for place, piece in zip(draw(0, length, changes), draw(1, vocab, changes)):
                other[place] = piece
            lists.append(other)
    return lists


@torch.no_grad()
def with_transformers(model: Bert, sequences: list[list[int]]) -> list[float]:
    """transformers' model called for every masked copy, the whole sequence through its head."""
    table, totals = model.bert_ids.tolist(), []
    for sequence in sequences:
        ids = torch.tensor([[model.cls_id, *(table[k] for k in sequence), model.sep_id]])
        ids, total = ids.to(model.bert_ids.device), 0.0
        for i, piece in enumerate(sequence):
            masked = ids.clone()
            masked[0, i + 1] = model.mask_id
            logits = model.model(input_ids=masked).logits[0, i + 1]
            total += float(logits[model.bert_ids].log_softmax(-1)[piece])
        totals.append(total)
    return totals


def best_of(runs: int, score: Callable[[], list[float]], cuda: bool) -> tuple[float, list[float]]:
    """Seconds of the fastest run, and what it found."""
    seconds, found = float("inf"), []
    for _ in range(runs):
        begin = time.perf_counter()
        found = score()
        if cuda:
            torch.cuda.synchronize()
        seconds = min(seconds, time.perf_counter() - begin)
    return seconds, found


def main() -> None:
    """Prints a line a way of scoring."""
    parser = argparse.ArgumentParser()
    sizes = {"utterances": 32, "nbest": 5, "pieces": 12, "dim": 128, "layers": 3, "vocab": 1000}
    for name, value in {**sizes, "threads": 1, "runs": 3, "tokens": TOKENS}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = make_bert(args.dim, args.layers, args.vocab).to(args.device)
    lists = make_lists(args.utterances, args.nbest, args.pieces, args.vocab)
    ways = {
        "batched": lambda: pseudo_log_likelihood(model, lists, args.tokens),
        "one copy at a time": lambda: [pseudo_log_likelihood(model, [ids], 1)[0] for ids in lists],
        "transformers, one copy at a time": lambda: with_transformers(model, lists),
    }
    print(json.dumps({**vars(args), "hypotheses": len(lists), "masked copies": sum(map(len, lists))}))
    first, reference = best_of(args.runs, ways["batched"], args.device != "cpu")
    print(f"{'batched':34} {first:8.3f} s")
    for name in list(ways)[1:]:
        seconds, found = best_of(args.runs, ways[name], args.device != "cpu")
        apart = max(abs(a - b) for a, b in zip(reference, found))
        print(f"{name:34} {seconds:8.3f} s  {seconds / first:5.1f} times as long, {apart:.1e} apart")


if __name__ == "__main__":
    main()
