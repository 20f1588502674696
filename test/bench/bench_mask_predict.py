"""Mask-Predict through Adapter-BERT: ten iterations against one pass, and the seconds of each iteration.

    python test/bench/bench_mask_predict.py [--utterances 16] [--tokens 12] [--frames 150] [--length-beam 1]
                                            [--dim 128] [--layers 3] [--vocab 1000] [--threads 1]

What is timed begins behind the acoustic encoder: adapters' keys and values of all frames, then the passes
through BERT, its adapters and its output layer. Both ways take turns, so that whatever else the machine does
meets both; medians over the rounds. Weights are random, and so are the frames; the lengths differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.config import load_config  # noqa: E402
from speechkit.encoders.bert import BertAssets  # noqa: E402
from speechkit.models import adapter_bert  # noqa: E402
from speechkit.models.assets import Assets  # noqa: E402
from speechkit.search import mask_predict  # noqa: E402
from speechkit.text.bert_vocab import NEEDED, BertVocab  # noqa: E402
from speechkit.text.tokenizer import build_tokenizer  # noqa: E402
from speechkit.text.wordpiece_cut import Rules  # noqa: E402

Heads = dict[str, tuple[Tensor, Tensor]]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"utterances": 16, "tokens": 12, "frames": 150, "dim": 128, "layers": 3, "vocab": 1000}
    for name, value in {**sizes, "iterations": 10, "threads": 1, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--length-beam", type=int, default=1, choices=(1, 3, 5))
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def make_model(o: argparse.Namespace) -> nn.Module:
    """An Adapter-BERT with an encoder that is not asked."""
    pieces = [f"w{number}" for number in range(o.vocab)]
    vocab = BertVocab([*NEEDED, *pieces], Rules(), pieces)
    values = {"model_type": "bert", "vocab_size": len(vocab.vocab), "hidden_size": o.dim}
    values |= {"num_hidden_layers": o.layers, "num_attention_heads": max(o.dim // 64, 1)}
    values |= {"intermediate_size": 4 * o.dim}
    wanted = [f"encoder.dim={o.dim}", "encoder.layers=1", f"encoder.heads={max(o.dim // 64, 1)}"]
    wanted += ["units=retokenised", f"adapters.heads={max(o.dim // 64, 1)}"]
    config = load_config(adapter_bert.Config, overrides=[*wanted, f"adapters.feed_forward={4 * o.dim}"])
    torch.manual_seed(0)
    assets = Assets(build_tokenizer("char", pieces[:100]), None, BertAssets(values, vocab))
    return adapter_bert.build(config, assets).eval().to(o.device)


def make_heads(o: argparse.Namespace) -> tuple[Heads, Tensor]:
    """Frames, and how many tokens each utterance is expected to have: ragged, in proportion."""
    shares = torch.linspace(1, 0.5, o.utterances)
    frames = (shares * o.frames).long().clamp(min=1).to(o.device)
    torch.manual_seed(1)
    acoustic = torch.randn(o.utterances, o.frames, o.dim).to(o.device)
    return {"acoustic": (acoustic, frames)}, (shares * o.tokens).long().clamp(min=1).to(o.device)


def fill(
    model: nn.Module, heads: Heads, expected: Tensor, config: mask_predict.Config
) -> tuple[float, list[float]]:
    """Seconds of everything, and of each pass through BERT."""
    passes, cuda = [], expected.is_cuda

    def now() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    begin = now()
    predict = model.predictor(heads, config.length_beam)

    def timed(ids: Tensor, lengths: Tensor) -> Tensor:
        started = now()
        log_probs = predict(ids, lengths)
        passes.append(now() - started)
        return log_probs

    lengths = mask_predict.length_candidates(expected, config.length_beam, model.longest)
    mask = len(model.units.vocab)
    mask_predict.mask_predict(timed, lengths, config, mask, mask + 1)
    return now() - begin, passes


@torch.no_grad()
def main() -> None:
    """Prints a line a way of decoding, and one a pass."""
    o = options()
    torch.set_num_threads(o.threads)
    model, (heads, expected) = make_model(o), make_heads(o)
    ways = {n: mask_predict.Config(iterations=n, length_beam=o.length_beam) for n in (1, o.iterations)}
    found: dict[int, list[tuple[float, list[float]]]] = {n: [] for n in ways}
    for config in ways.values():
        fill(model, heads, expected, config)  # the first one pays for memory
    for _ in range(o.rounds):
        for n, config in ways.items():
            found[n].append(fill(model, heads, expected, config))
    print(", ".join(f"{name} {value}" for name, value in vars(o).items()))
    for n, runs in found.items():
        ratio = statistics.median(run[0] / one[0] for run, one in zip(runs, found[1]))
        seconds = statistics.median(run[0] for run in runs)
        print(f"{n:3} iterations {1000 * seconds:9.1f} ms   {ratio:5.1f} x one pass")
    for k, taken in enumerate(zip(*(passes for _, passes in found[o.iterations]))):
        print(f"    pass {k:3}   {1000 * statistics.median(taken):9.1f} ms")


if __name__ == "__main__":
    main()
