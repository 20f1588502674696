"""Seconds for a training step of UniSpeech over one of wav2vec 2.0's pre-training, on the same batch.

    python test/bench/bench_unispeech.py --threads 2
    python test/bench/bench_unispeech.py --layers 2 --seconds 2,1 --rounds 1

Both have the same encoder, mask and number of distractors; UniSpeech has all frames as candidates, one pass
of the encoder, one call of the quantizer, and CTC over 12 tokens a second and 100 classes. `unlabelled` is
UniSpeech on the batch without tokens. The systems take turns within one process; a ratio is the median over
the turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench_wav2vec2 import Trainer, encoder_config, make_batch  # noqa: E402

from speechkit.data.batch import Batch  # noqa: E402
from speechkit.models import unispeech, wav2vec2_pretraining  # noqa: E402
from speechkit.models.assets import Assets  # noqa: E402

PHONES = 100


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", default="base", help="base or large_lv60")
    add("--layers", type=int, help="fewer blocks than the preset has")
    add("--seconds", default="16,12,9,7,5,4,3,2", help="durations of the utterances of a batch")
    add("--dropout", type=float, default=0.1, help="everywhere: hidden, attention, activation")
    add("--layer-drop", type=float, default=0.0, help="0, so that all steps have the same blocks")
    add("--negatives", choices=("utterance", "masked"), default="utterance")
    add("--only-labelled", action="store_true", help="do not time unlabelled batches")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=5)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--bf16", action="store_true")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor seconds, for a busy machine")
    return parser.parse_args()


def trainer(o: argparse.Namespace, module: object, **changes: object) -> Trainer:
    """A system in training, whose loss is its objective."""
    torch.manual_seed(0)
    base = module.Config(encoder=encoder_config(o), dropout_features=o.dropout, penalty_weight=0.0)
    mask = replace(base.mask, probability=0.5)
    model = module.build(replace(base, mask=mask, **changes), Assets(SimpleNamespace(vocab=range(PHONES))))

    def loss(batch: Batch) -> torch.Tensor:
        terms = model.loss(batch, 0)
        return sum(weight * terms[name][0] for name, weight in model.weights.items() if name in terms)

    return Trainer(model, loss, o)


def main() -> None:
    o = options()
    torch.set_num_threads(o.threads)
    labelled = make_batch(o)
    bare = replace(labelled, fields={"speech": labelled["speech"]})
    everywhere = o.negatives == "utterance"
    pool = replace(unispeech.Config().contrastive, negatives_from_everywhere=everywhere)
    uni = trainer(o, unispeech, contrastive=pool)
    steps = {
        "wav2vec2": (trainer(o, wav2vec2_pretraining), bare),
        "unispeech": (uni, labelled),
        "unlabelled": (uni, bare),
    }
    if o.only_labelled:
        del steps["unlabelled"]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(o.rounds + 1):
        for name, (system, batch) in steps.items():
            seconds = system.step(batch, o.bf16)
            if turn:  # the first one warms up
                times[name].append(seconds)
    print(f"{o.preset}, {o.clock} clock, {o.threads} threads, {o.device}, {'bf16' if o.bf16 else 'fp32'}")
    for name, values in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["wav2vec2"], values))
        print(f"  {name:11s} {statistics.median(values):8.3f} s/step  {ratio:5.2f} x wav2vec2")


if __name__ == "__main__":
    main()
