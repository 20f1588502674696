"""Tiny transducers for tests: networks of random weights, and what searches ask of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.decoders import joint, prediction_lstm, prediction_stateless, prediction_transformer

FRAME_DIM = 5


class Networks:
    """A prediction and a joint network as searches see them."""

    def __init__(self, kind: str, vocab: int, combine: str = "add", sharpness: float = 3.0) -> None:
        torch.manual_seed(7)
        if kind == "lstm":
            config = prediction_lstm.Config(cells=6, embedding=4, layers=2, dropout=0)
            self.prediction: nn.Module = prediction_lstm.build(config, vocab)
        elif kind == "transformer":
            sizes = {"dim": 6, "layers": 2, "heads": 1, "feed_forward": 8, "context": 3}
            config = prediction_transformer.Config(**sizes, dropout=0)
            self.prediction = prediction_transformer.build(config, vocab)
        else:
            config = prediction_stateless.Config(dim=6, context=2, dropout=0)
            self.prediction = prediction_stateless.build(config, vocab)
        self.joint = joint.Joint(joint.Config(8, combine), FRAME_DIM, 6, vocab)
        for part in (self.prediction, self.joint):
            part.double().eval()
            for parameter in part.parameters():
                parameter.data.mul_(sharpness)
        self.calls = 0

    def start(self, count: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        states, memory = self.prediction.start(count)
        return self.joint.of_states(states), memory

    def step(self, tokens: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.calls += 1
        states, memory = self.prediction.step(tokens, memory)
        return self.joint.of_states(states), memory

    def score(self, frames: Tensor, states: Tensor) -> Tensor:
        return self.joint(frames, states)

    @torch.no_grad()
    def log_prob(self, frames: Tensor, tokens: list[int]) -> float:
        """Of a label sequence, over all its alignments, for unprojected frames `(T, D)`."""
        row = torch.tensor([tokens], dtype=torch.int64).view(1, -1)
        sizes = torch.tensor([len(frames)]), torch.tensor([len(tokens)])
        f, g = self.joint.of_frames(frames[None]), self.joint.of_states(self.prediction(row))
        return -float(self.joint.loss(f, g, row, *sizes)[0])


def draw_frames(batch: int, width: int) -> Tensor:
    """`(B, T, D)` float64."""
    return torch.randn(
        batch, width, FRAME_DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
