"""Seconds for a training step of Wav-BERT, over those of a wav2vec 2.0 CTC step and of a BERT MLM step.

    python test/bench/bench_wavbert_step.py [--seconds 6,5,4,4,3,2] [--layers 12] [--vocab 4000] [--threads 2]

The batch is the same for the three: noise, and random word pieces that CTC and BERT share. All have Base's
sizes with fewer blocks where asked, a frozen convolutional feature encoder, dropout, and AdamW over all that
is trained; CTC's posteriors are made up, because the hypotheses of random weights have a token a frame. They
take turns within one process, so that whatever else the machine does meets all of them; the ratio is the
median over the turns. `--truth 0` lets BERT read CTC's hypotheses, which are then aligned.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from made_up import encoder_options, make_assets, make_batch, tell
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.config import load_config  # noqa: E402
from speechkit.data.batch import Batch  # noqa: E402
from speechkit.models import ctc, masked_lm, wavbert  # noqa: E402
from speechkit.models.assets import Assets  # noqa: E402


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", default="6,5,4,4,3,2", help="durations of the utterances of a batch")
    add("--rate", type=float, default=4.0, help="word pieces a second")
    add("--layers", type=int, default=12, help="blocks of each side")
    add("--dim", type=int, default=768)
    add("--vocab", type=int, default=4000, help="word pieces that CTC and BERT share")
    add("--truth", type=float, default=0.5, help="share of utterances of which BERT reads the truth")
    add("--clock", action="store_true", help="attention with a clock")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=5)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--bf16", action="store_true")
    return parser.parse_args()


def make_models(o: argparse.Namespace, assets: Assets, batch: Batch) -> dict[str, nn.Module]:
    """Wav-BERT, and the two that it is made of."""
    encoder = encoder_options(o.dim, o.layers)
    clocks = [f"{part}.clock={str(o.clock).lower()}" for part in ("embedding_attention", "aggregation")]
    share = [f"linguistic.sampling.{end}={o.truth}" for end in ("high", "low")]
    torch.manual_seed(0)
    models = {
        "Wav-BERT": wavbert.build(load_config(wavbert.Config, overrides=[*encoder, *clocks, *share]), assets),
        "wav2vec 2.0 CTC": ctc.build(load_config(ctc.Config, overrides=encoder), assets),
        "BERT MLM": masked_lm.build(load_config(masked_lm.Config), assets),
    }
    for model in list(models.values())[:2]:
        model.head = tell(model, batch, o.dim, len(assets.tokenizer))
    return models


class Trainer:
    """One system with its optimiser; `step` returns seconds."""

    def __init__(self, model: nn.Module, o: argparse.Namespace) -> None:
        self.model, self.o = model.to(o.device).train(), o
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in parameters)
        self.optimiser = torch.optim.AdamW(parameters, 1e-6, fused=True)

    def step(self, batch: Batch, update: int) -> float:
        """Trains on the batch once."""
        start = time.perf_counter()
        with torch.autocast(self.o.device, dtype=torch.bfloat16, enabled=self.o.bf16):
            terms = self.model.loss(batch, update)
            weights = self.model.weights
            loss = sum(weights[k] * value / count for k, (value, count) in terms.items() if weights.get(k))
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.o.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def main() -> None:
    """Prints a line a system, and the ratio."""
    o = options()
    torch.set_num_threads(o.threads)
    assets = make_assets(o.vocab, o.dim, o.layers)
    batch = make_batch([float(s) for s in o.seconds.split(",")], o.rate, assets).to(o.device)
    texts = Batch(batch.ids, batch.keys, None, {"bert_tokens": batch["bert_tokens"]})
    trainers = {name: Trainer(model, o) for name, model in make_models(o, assets, batch).items()}
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(o.rounds + 1):
        for name, trainer in trainers.items():
            seconds = trainer.step(texts if name == "BERT MLM" else batch, turn)
            if turn:  # the first one pays for memory
                taken[name].append(seconds)
    print(", ".join(f"{name} {value}" for name, value in vars(o).items()))
    for name, values in taken.items():
        millions = trainers[name].size / 1e6
        print(f"  {name:16} {statistics.median(values):8.3f} s   {millions:7.1f} million weights trained")
    whole, *parts = taken.values()
    ratios = [a / (b + c) for a, b, c in zip(whole, *parts)]
    print(f"  Wav-BERT takes {statistics.median(ratios):.2f} times the sum of the others")


if __name__ == "__main__":
    main()
