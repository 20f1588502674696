"""The transducer loss, forward and backward: time and peak memory over V, against the form with all logits.

    python test/bench/bench_transducer.py                    # V = 500, B = 16, T = 300, U = 50
    python test/bench/bench_transducer.py --vocab 500,5000,30522 --batch 8 --frames 400 --tokens 60 \\
        --joint 640
    python test/bench/bench_transducer.py --numba            # warprnnt_numba too, where installed

Every way gets the same projected frames and states, of equal lengths unless `--ragged`, in a process of its
own, whose peak memory beyond what was there before the step is given. `products` is the time of the matrix
products alone (forward; again and twice in the backward pass) at the rate of a large one in the same run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.losses.joint_transducer import joint_transducer_loss  # noqa: E402

NOTHING = -1e30


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", default="500")
    sizes = {"batch": 16, "frames": 300, "tokens": 50, "joint": 320, "threads": 2, "rounds": 3}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ragged", action="store_true", help="lengths from a third to all")
    parser.add_argument("--numba", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--largest", type=float, default=3.0, help="GB of logits that the naive form may have"
    )
    parser.add_argument("--only", help="one way, for its peak memory")
    return parser.parse_args()


class Problem:
    """Networks' outputs and targets.

    Args:
        o: sizes.
        vocab: V.
    """

    def __init__(self, o: argparse.Namespace, vocab: int) -> None:
        torch.manual_seed(0)
        shares = torch.linspace(1, 1 / 3, o.batch) if o.ragged else torch.ones(o.batch)
        self.lengths, self.sizes = (shares * o.frames).long(), (shares * o.tokens).long()
        shapes = ((o.batch, o.frames, o.joint), (o.batch, o.tokens + 1, o.joint), (vocab, o.joint), (vocab,))
        self.parts = [(0.3 * torch.randn(shape)).to(o.device).requires_grad_() for shape in shapes]
        self.tokens = torch.randint(1, vocab, (o.batch, o.tokens)).to(o.device)

    def logits(self) -> Tensor:
        """`(B, T, U + 1, V)` of the whole batch."""
        frames, states, weight, bias = self.parts
        return (frames[:, :, None] + states[:, None]).tanh() @ weight.t() + bias


def ours(problem: Problem) -> Tensor:
    """In pieces."""
    return joint_transducer_loss(*problem.parts, problem.tokens, problem.lengths, problem.sizes)[0].sum()


def naive(problem: Problem) -> Tensor:
    """Log-softmax of all logits, then the recursion over diagonals by autograd."""
    log_probs = problem.logits().log_softmax(-1)
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

    lengths, sizes = (x.int() for x in (problem.lengths, problem.sizes))
    return RNNTLossNumba(blank=0, reduction="sum")(problem.logits(), problem.tokens.int(), lengths, sizes)


WAYS: dict[str, Callable[[Problem], Tensor]] = {"ours": ours, "naive": naive, "numba": numba}


def step(problem: Problem, way: str) -> tuple[float, float]:
    """Seconds of forward and backward, and the loss."""
    for part in problem.parts:
        part.grad = None
    begin = time.perf_counter()
    loss = WAYS[way](problem)
    loss.backward()
    if loss.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin, float(loss.detach())


def memory(device: str) -> float:
    """GB at most in use so far."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def rate(o: argparse.Namespace) -> float:
    """Operations a second of a large matrix product."""
    a, b = (torch.randn(2048, 2048, device=o.device) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        (a @ b).sum().item()
        best = min(best, time.perf_counter() - begin)
    return 2 * 2048**3 / best


def measure(o: argparse.Namespace, vocab: int, way: str) -> tuple[float, float, float]:
    """Seconds, the loss, and GB beyond what was there before, of a way in this process."""
    problem = Problem(o, vocab)
    for part in problem.parts:
        part.grad = torch.zeros_like(part)  # gradients belong to the model
    before = memory(o.device)
    found = [step(problem, way) for _ in range(o.rounds)]
    return statistics.median(s for s, _ in found), found[0][1], memory(o.device) - before


def main() -> None:
    """Prints a line a way and vocabulary."""
    o = options()
    torch.set_num_threads(o.threads)
    if o.only:
        print(*measure(o, int(o.vocab), o.only))
        return
    print(", ".join(f"{name} {value}" for name, value in vars(o).items() if value is not None))
    speed = rate(o)
    print(f"a matrix product runs at {speed / 1e9:.0f} GFLOP/s")
    for vocab in map(int, o.vocab.split(",")):
        problem = Problem(o, vocab)
        nodes = int((problem.lengths * (problem.sizes + 1)).sum())
        products = 4 * 2 * nodes * o.joint * vocab / speed
        whole = 4e-9 * o.batch * o.frames * (o.tokens + 1) * vocab
        print(f"V {vocab}: all logits would be {whole:.2f} GB; products {products:.2f} s")
        for way in ("ours", "naive", *(["numba"] if o.numba else [])):
            if way != "ours" and whole > o.largest:
                print(f"  {way:6} left out: too large")
                continue
            rest = [a for a in sys.argv[1:] if a != "--numba"]
            command = [sys.executable, __file__, *rest, "--vocab", str(vocab), "--only", way]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, loss, peak = map(float, out.split())
            print(
                f"  {way:6} {seconds:8.2f} s  {seconds / products:5.2f} x products  {peak:6.2f} GB  "
                f"loss {loss:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
