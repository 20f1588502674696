"""The transducer loss, forward and backward: time and peak memory over V, against the form with all logits.

    python test/bench/bench_transducer.py                    # V = 500, B = 16, T = 300, U = 50
    python test/bench/bench_transducer.py --given            # of given logits: no joint network
    python test/bench/bench_transducer.py --vocab 500,5000,30522 --batch 8 --frames 400 --tokens 60
    python test/bench/bench_transducer.py --numba --pruned 5 # warprnnt_numba too, and a pruned joint network

Every way gets the same projected frames and states (or logits), of equal lengths unless `--ragged`, in a
process of its own, whose peak memory beyond what was there before the step is given. `products` is the time
of the three matrix products that no form with all nodes can do without (one forward, two backward) at the
rate of a large one in the same run. `--scale` is that of the output layer's weights: small ones spread the
paths over the lattice, as before training, large ones leave few nodes visited; their share is printed. Times
are those of the fastest of `--rounds`, by the clock and of the processor (which other programs disturb less;
meant for `--threads 1`).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.losses.joint_transducer import joint_transducer_loss  # noqa: E402
from speechkit.losses.label_windows import additive_loss, label_windows  # noqa: E402
from speechkit.losses.logits_transducer import logits_transducer_loss  # noqa: E402

NOTHING = -1e30


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", default="500")
    sizes = {"batch": 16, "frames": 300, "tokens": 50, "joint": 640, "threads": 2, "rounds": 3}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--scale", type=float, default=0.03, help="of the output layer's weights")
    parser.add_argument("--ragged", action="store_true", help="lengths from a third to all")
    parser.add_argument("--given", action="store_true", help="the loss of given logits alone")
    parser.add_argument("--numba", action="store_true")
    parser.add_argument("--pruned", type=int, help="labels a frame of a pruned joint network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--largest", type=float, default=3.0, help="GB of logits that the naive form may have"
    )
    parser.add_argument("--only", help="one way, for its peak memory")
    return parser.parse_args()


class Problem:
    """Networks' outputs and targets.

    Args:
        o: options.
        vocab: V.
    """

    def __init__(self, o: argparse.Namespace, vocab: int) -> None:
        torch.manual_seed(0)
        shares = torch.linspace(1, 1 / 3, o.batch) if o.ragged else torch.ones(o.batch)
        self.lengths, self.sizes = (shares * o.frames).long(), (shares * o.tokens).long()
        shapes = {(o.batch, o.frames, o.joint): 0.5, (o.batch, o.tokens + 1, o.joint): 0.5}
        shapes.update({(vocab, o.joint): o.scale, (vocab,): o.scale})
        self.parts = [(scale * torch.randn(shape)).to(o.device) for shape, scale in shapes.items()]
        self.tokens = torch.randint(1, vocab, (o.batch, o.tokens)).to(o.device)
        self.pruned = o.pruned
        self.given = self.joined() if o.given else None
        if o.given:
            self.parts = [self.given]
        elif o.pruned:
            self.parts += [part.clone() for part in (self.parts[2], self.parts[2])]
        for part in self.parts:
            part.requires_grad_()

    def joined(self) -> Tensor:
        """`(B, T, U + 1, V)` logits of the whole batch."""
        frames, states, weight, bias = self.parts[:4]
        return (frames[:, :, None] + states[:, None]).tanh() @ weight.t() + bias

    @property
    def logits(self) -> Tensor:
        """Those that are given, or from the networks."""
        return self.joined() if self.given is None else self.given

    @property
    def targets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and both lengths."""
        return self.tokens, self.lengths, self.sizes


def ours(problem: Problem) -> Tensor:
    """In parts."""
    if problem.given is not None:
        return logits_transducer_loss(problem.given, *problem.targets)[0].sum()
    return joint_transducer_loss(*problem.parts[:4], *problem.targets)[0].sum()


def pruned(problem: Problem) -> Tensor:
    """Both joint networks; the value is that of the full one within windows."""
    frames, states, weight, bias, a, c = problem.parts
    simple, found = additive_loss(frames, states, *problem.targets, (a, c, bias))
    windows = label_windows(found, problem.lengths, problem.sizes, problem.pruned)
    losses, _ = joint_transducer_loss(frames, states, weight, bias, *problem.targets, windows=windows)
    return losses.sum() + simple.sum() - simple.detach().sum()


def naive(problem: Problem) -> Tensor:
    """Log-softmax of all logits, then the recursion over diagonals by autograd."""
    log_probs = problem.logits.log_softmax(-1)
    batch, frames, rows, _ = log_probs.shape
    index = problem.tokens[:, None, :, None].expand(-1, frames, -1, -1)
    blank, label = log_probs[..., 0], log_probs[:, :, :-1].gather(3, index)[..., 0]
    label = torch.nn.functional.pad(label, (0, 1), value=NOTHING)
    alphas = [blank.new_full((batch, rows), NOTHING).index_fill(1, torch.tensor([0]), 0.0)]
    u = torch.arange(rows)
    for d in range(1, frames + rows - 1):
        t = d - u
        left, below = (t >= 1) & (t <= frames), (t >= 0) & (t < frames) & (u >= 1)
        from_left = alphas[-1] + blank[:, (t - 1).clamp(0, frames - 1), u]
        shifted = torch.nn.functional.pad(alphas[-1][:, :-1], (1, 0), value=NOTHING)
        from_below = shifted + label[:, t.clamp(0, frames - 1), (u - 1).clamp(min=0)]
        alphas.append(torch.logaddexp(from_left.where(left, NOTHING), from_below.where(below, NOTHING)))
    lattice, rows_of = torch.stack(alphas, 1), torch.arange(batch)
    ends, tops = problem.lengths - 1, problem.sizes
    return -(lattice[rows_of, ends + tops, tops] + blank[rows_of, ends, tops]).sum()


def numba(problem: Problem) -> Tensor:
    """warprnnt_numba."""
    from warprnnt_numba import RNNTLossNumba

    return RNNTLossNumba(blank=0, reduction="sum")(problem.logits, *(x.int() for x in problem.targets)).sum()


Way = Callable[[Problem], Tensor]
WAYS: dict[str, Way] = {"ours": ours, "pruned": pruned, "naive": naive, "numba": numba}


def step(problem: Problem, way: str) -> tuple[float, float, float]:
    """Seconds of forward and backward by the clock and of the processor, and the loss."""
    for part in problem.parts:
        part.grad = None
    begin, busy = time.perf_counter(), time.process_time()
    loss = WAYS[way](problem)
    loss.backward()
    if loss.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin, time.process_time() - busy, float(loss.detach())


def memory(device: str, forget: bool = False) -> float:
    """GB at most in use, since the start or the last time that this was to be forgotten."""
    if device != "cpu":
        if forget:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e9
    if forget:
        Path("/proc/self/clear_refs").write_text("5")  # Linux
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024e-9


def rates(o: argparse.Namespace) -> tuple[float, float]:
    """Operations a second of a large matrix product, by the clock and of the processor."""
    a, b = (torch.randn(2048, 2048, device=o.device) for _ in range(2))
    clock, processor = [], []
    for _ in range(5):
        begin, busy = time.perf_counter(), time.process_time()
        (a @ b).sum().item()
        clock.append(time.perf_counter() - begin)
        processor.append(time.process_time() - busy)
    return 2 * 2048**3 / min(clock), 2 * 2048**3 / min(processor)


def measure(o: argparse.Namespace, vocab: int, way: str) -> tuple[float, ...]:
    """Seconds twice, the loss, and GB beyond what was there before, of a way in this process."""
    problem = Problem(o, vocab)
    for part in problem.parts:
        if not o.given:
            part.grad = torch.zeros_like(part)  # gradients belong to the model
    before = memory(o.device, forget=True)
    found = [step(problem, way) for _ in range(o.rounds)]
    seconds = (min(values) for values in list(zip(*found))[:2])
    return *seconds, found[0][2], memory(o.device) - before


def visited(o: argparse.Namespace, vocab: int) -> float:
    """Share of the nodes that the backward pass looks at: those that more paths visit than rounding hides."""
    problem = Problem(argparse.Namespace(**{**vars(o), "batch": 1, "given": False}), vocab)
    with torch.no_grad():
        node = joint_transducer_loss(*problem.parts[:4], *problem.targets)[1].node
    return float((node > torch.finfo(node.dtype).eps).float().mean())


def main() -> None:
    """Prints a line a way and vocabulary."""
    o = options()
    torch.set_num_threads(o.threads)
    if o.only:
        print(*measure(o, int(o.vocab), o.only))
        return
    print(", ".join(f"{name} {value}" for name, value in vars(o).items() if value not in (None, False)))
    speeds = rates(o)
    print(f"a matrix product runs at {speeds[0] / 1e9:.0f} GFLOP/s")
    ways = ["ours", *(["pruned"] if o.pruned else []), "naive", *(["numba"] if o.numba else [])]
    for vocab in map(int, o.vocab.split(",")):
        problem = Problem(argparse.Namespace(**{**vars(o), "given": False}), vocab)
        nodes = int((problem.lengths * (problem.sizes + 1)).sum())
        products = [3 * 2 * nodes * o.joint * vocab / speed for speed in speeds]
        whole = 4e-9 * o.batch * o.frames * (o.tokens + 1) * vocab
        print(
            f"V {vocab}: all logits would be {whole:.2f} GB; products {products[0]:.2f} s, of the processor "
            f"{products[1]:.2f} s; of the first utterance's nodes {visited(o, vocab):.0%} are visited"
        )
        for way in ways:
            if way not in ("ours", "pruned") and whole > o.largest:
                print(f"  {way:6} left out: too large")
                continue
            rest = [a for a in sys.argv[1:] if a != "--numba"]
            command = [sys.executable, __file__, *rest, "--vocab", str(vocab), "--only", way]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            clock, processor, loss, peak = map(float, out.split())
            print(
                f"  {way:6} {clock:8.2f} s = {clock / products[0]:5.2f} x products; of the processor "
                f"{processor:8.2f} s = {processor / products[1]:5.2f} x;  {peak:6.2f} GB;  loss {loss:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
