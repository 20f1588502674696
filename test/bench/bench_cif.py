"""Seconds for integrate-and-fire, forward and backward: the closed form, the recursion, a dense product.

    python test/bench/bench_cif.py --frames 1000 --threads 1

The recursion is the published one (Dong and Xu, 2020), all utterances at once, a Python step for each frame.
The dense form holds w_ut for all tokens and frames and multiplies. All get the same frames and weights;
tokens and gradients must agree in double precision before anything is timed. The forms take turns, so that
whatever else the machine does meets all of them; ratios are medians over the turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.fusion.cif import dense_weights, integrate, scale  # noqa: E402

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--frames", type=int, default=1000, help="T, of the longest utterance")
    add("--tokens", type=int, default=120, help="U, of the longest utterance")
    add("--batch", type=int, default=8)
    add("--dim", type=int, default=768)
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=5)
    add("--device", default="cpu")
    add("--clock", choices=("wall", "cpu"), default="cpu", help="cpu: processor seconds, for a busy machine")
    return parser.parse_args()


def recursion(x: Tensor, alpha: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Frame after frame: integrate, fire where the sum passes 1, carry the rest; for weights below 1."""
    batch, frames, dim = x.shape
    total, state = alpha.new_zeros(batch), x.new_zeros(batch, dim)
    fired, states = [], []
    for t in range(frames):
        weight, here = alpha[:, t], x[:, t]
        fires = total + weight >= 1
        part = torch.where(fires, 1 - total, weight)
        whole = state + part[:, None].to(x.dtype) * here
        fired.append(fires)
        states.append(whole)
        total = torch.where(fires, weight - part, total + weight)
        state = torch.where(fires[:, None], (weight - part)[:, None].to(x.dtype) * here, whole)
    fired, states = torch.stack(fired, 1), torch.stack(states, 1)
    rows = []
    for row, (length, count) in enumerate(zip(lengths.tolist(), counts.tolist())):
        places = fired[row, :length].nonzero().flatten()[:count]
        tokens = states[row].index_select(0, places)
        if len(places) < count:  # rounding left the last token a hair below 1
            tokens = torch.cat([tokens, state[row : row + 1]])
        rows.append(torch.nn.functional.pad(tokens, (0, 0, 0, int(counts.max()) - len(tokens))))
    return torch.stack(rows)


def dense(x: Tensor, alpha: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """All weights, times the frames."""
    return dense_weights(alpha, lengths, counts).to(x.dtype) @ x


FORMS: dict[str, Form] = {"closed form": integrate, "recursion": recursion, "dense": dense}


def inputs(o: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames, raw weights, and ragged lengths with counts in proportion."""
    generator = torch.Generator().manual_seed(1)
    shares = torch.linspace(1, 0.6, o.batch)
    lengths, counts = (shares * o.frames).long(), (shares * o.tokens).long()
    x = torch.randn(o.batch, o.frames, o.dim, generator=generator)
    raw = torch.rand(o.batch, o.frames, generator=generator)
    return x.to(o.device), raw.to(o.device), lengths.to(o.device), counts.to(o.device)


def step(form: Form, x: Tensor, raw: Tensor, lengths: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
    """Tokens and both gradients of a fixed linear loss; what lies beyond a count does not enter it."""
    x, raw = x.clone().requires_grad_(), raw.clone().requires_grad_()
    tokens = form(x, scale(raw, lengths, counts), lengths, counts)
    pull = torch.linspace(-1, 1, tokens.numel(), device=x.device).view_as(tokens)
    loss = (tokens * pull).sum()
    return tokens.detach(), *torch.autograd.grad(loss, (x, raw))


def main() -> None:
    """Checks that the forms agree, and times them."""
    o = options()
    torch.set_num_threads(o.threads)
    given = inputs(o)
    assert float(scale(given[1], *given[2:]).max()) < 1, "the recursion wants weights below 1: fewer tokens"
    exact = given[0].double(), given[1].double(), *given[2:]
    results = {name: step(form, *exact) for name, form in FORMS.items()}
    for name in ("recursion", "dense"):
        for ours, theirs in zip(results["closed form"], results[name]):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))
    clock = time.process_time if o.clock == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(o.rounds):
        for name, form in FORMS.items():
            started = clock()
            step(form, *given)
            if o.device != "cpu":
                torch.cuda.synchronize()
            taken[name].append(clock() - started)
    print(
        f"B {o.batch}, T {o.frames}, U {o.tokens}, D {o.dim}, {o.threads} threads, {o.device}, {o.clock} time"
    )
    for name, seconds in taken.items():
        ratio = statistics.median(other / own for own, other in zip(taken["closed form"], seconds))
        print(f"{name:12} {1000 * statistics.median(seconds):9.1f} ms   {ratio:6.1f} x the closed form")


if __name__ == "__main__":
    main()
