"""Seconds of decoding with Wav-BERT's single pass, and with BERT rescoring of a CTC beam.

    python test/bench/bench_fused.py [--layers 12] [--dim 768] [--vocab 4000] [--beam 5] [--nbest 5]

    cd egs/mini_en/asr1
    python ../../../test/bench/bench_fused.py --data dump/dev --ctc exp/ctc/seed1 \\
        --wavbert exp/wavbert/seed1 --bert exp/bert_folder/seed1/bert \\
        [--lexicon data/lm/words --lm data/lm/4gram.arpa]

Without folders, systems of Base's size are made up: random weights, pieces that CTC and BERT share, and
posteriors in which every piece has a few rivals. With folders, trained systems decode real utterances. The
two ways take turns, and no score is remembered from the turn before. Given are medians over the turns of the
whole and of what comes after the acoustic encoder.
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
from speechkit.decoding import DecodeConfig  # noqa: E402
from speechkit.decoding.recognizer import Recognizer  # noqa: E402
from speechkit.decoding.resources import Resources  # noqa: E402
from speechkit.encoders import bert  # noqa: E402
from speechkit.lm.masked import MaskedLM  # noqa: E402
from speechkit.models import ctc, wavbert  # noqa: E402
from speechkit.train.run import RunConfig  # noqa: E402

Ways = dict[str, tuple[Recognizer, list[Batch]]]
"""Name -> what decodes, and what it decodes."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "ctc", "wavbert", "bert", "lexicon", "lm"):
        parser.add_argument(f"--{name}", help="of trained systems; the first four together, or none")
    sizes = {"layers": 12, "dim": 768, "vocab": 4000, "beam": 5, "nbest": 5, "threads": 1, "rounds": 3}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", default="6,5,4,4,3,2", help="durations of made-up utterances")
    parser.add_argument("--rate", type=float, default=4.0, help="made-up pieces a second")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    o = parser.parse_args()
    if len({bool(getattr(o, name)) for name in ("data", "ctc", "wavbert", "bert")}) > 1:
        parser.error("--data, --ctc, --wavbert and --bert: all of them or none")
    return o


def searches(o: argparse.Namespace) -> dict[str, DecodeConfig]:
    """How the two search."""
    beam = ["search.name=rescore", f"search.beam={o.beam}", f"search.nbest={o.nbest}"]
    fused = ["search.name=fused", "search.unit=word"]
    found = {"BERT rescoring": beam, "Wav-BERT": fused}
    return {name: load_config(DecodeConfig, overrides=values) for name, values in found.items()}


def trained(o: argparse.Namespace) -> Ways:
    """Opens experiments, and reads all batches of a data directory."""
    rescoring, fused = searches(o).values()
    files = {"lexicon": o.lexicon, "lm": o.lm, "bert": o.bert}
    opened = {
        "BERT rescoring": Recognizer.load(o.ctc, rescoring, **files, device=o.device),
        "Wav-BERT": Recognizer.load(o.wavbert, fused, device=o.device),
    }
    return {name: (recognizer, list(recognizer.batches(o.data)[1])) for name, recognizer in opened.items()}


def made_up(o: argparse.Namespace) -> Ways:
    """Systems of random weights that all hear the same."""
    assets = make_assets(o.vocab, o.dim, o.layers)
    batch = make_batch([float(s) for s in o.seconds.split(",")], o.rate, assets)
    encoder, found = encoder_options(o.dim, o.layers), {}
    torch.manual_seed(0)
    lm = MaskedLM(bert.build(bert.Config(), assets.bert).eval().to(o.device), assets.bert.vocab)
    for (name, config), module in zip(searches(o).items(), (ctc, wavbert)):
        model = module.build(load_config(module.Config, overrides=encoder), assets).eval()
        model.head = tell(model, batch, o.dim, len(assets.tokenizer))
        if module is wavbert:
            model.head2 = model.head
        resources = Resources(model.to(o.device), assets)
        if module is ctc:
            resources.bert_path = Path("made up")
            resources.masked_lm = lm
        found[name] = Recognizer(model, RunConfig(), resources, config, Path()), [batch]
    return found


class Stopwatch:
    """Adds up the seconds that a module takes."""

    def __init__(self, module: nn.Module, device: str) -> None:
        self.seconds, self.begin, self.device = 0.0, 0.0, device
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def now(self) -> float:
        """Seconds, when all that was asked for is done."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _start(self, *_: object) -> None:
        self.begin = self.now()

    def _stop(self, *_: object) -> None:
        self.seconds += self.now() - self.begin


def decode(recognizer: Recognizer, batches: list[Batch], watch: Stopwatch) -> tuple[float, float]:
    """Seconds of everything, and of what comes after the encoder."""
    recognizer.resources.forget()
    watch.seconds, begin = 0.0, watch.now()
    for batch in batches:
        recognizer.search(recognizer.encode(batch))
    whole = watch.now() - begin
    return whole, whole - watch.seconds


def main() -> None:
    """Prints a line a system, and how they compare."""
    o = options()
    torch.set_num_threads(o.threads)
    ways = trained(o) if o.data else made_up(o)
    watches = {name: Stopwatch(recognizer.model.encoder, o.device) for name, (recognizer, _) in ways.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(o.rounds + 1):
        for name, (recognizer, batches) in ways.items():
            found = decode(recognizer, batches, watches[name])
            if turn:  # the first one reads files and pays for memory
                taken[name].append(found)
    print(", ".join(f"{name} {value}" for name, value in vars(o).items() if value is not None))
    for name, values in taken.items():
        whole, after = (statistics.median(column) for column in zip(*values))
        print(f"  {name:16} {whole:8.3f} s, after the encoder {after:8.3f} s")
    whole, after = (
        statistics.median(a[k] / b[k] for a, b in zip(taken["BERT rescoring"], taken["Wav-BERT"]))
        for k in (0, 1)
    )
    print(f"  Wav-BERT is {whole:.1f} times as fast, {after:.1f} times after the encoder")


if __name__ == "__main__":
    main()
