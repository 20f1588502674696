"""What a system did with one utterance between its frames and its tokens, to be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Look:
    """Gates, attention, alignments and firing of one utterance; all on the CPU.

    Attributes:
        tokens: what stands at each of the M positions of the linguistic side, such as "[CLS]" or "##s".
        frames: T of the speech encoder.
        frame_gates: name -> `(T,)` gates, the mean over dimensions.
        token_gates: name -> `(M,)`.
        attention: name -> `(M, T)` weights, the mean over heads; each token's sum to 1 where tokens read
            frames, each frame's where frames read tokens.
        shares: name -> `(M, T)` weights of frames for each token, to be drawn as curves over time.
        alpha: `(T,)` weights of integrate-and-fire, scaled so that they sum to the number of tokens.
    """

    tokens: list[str]
    frames: int
    frame_gates: dict[str, Tensor] = field(default_factory=dict)
    token_gates: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    shares: dict[str, Tensor] = field(default_factory=dict)
    alpha: Tensor | None = None

    def add_gate(self, name: str, values: Tensor, frames: bool) -> None:
        """Keeps `(1, T, D)` gates of frames, or `(1, M, D)` of tokens."""
        kept = values[0].detach().float().mean(-1).cpu()
        if frames:
            self.frame_gates[name] = kept[: self.frames]
        else:
            self.token_gates[name] = kept[: len(self.tokens)]

    def tokens_read(self, name: str, weights: Tensor) -> None:
        """Keeps `(1, H, M, T)` weights of tokens that read frames."""
        kept = weights[0].detach().float().mean(0).cpu()
        self.attention[name] = kept[: len(self.tokens), : self.frames]

    def frames_read(self, name: str, weights: Tensor) -> None:
        """Keeps `(1, H, T, M)` weights of frames that read tokens."""
        self.tokens_read(name, weights.transpose(2, 3))

    def add_pictures(self, pictures: dict[str, Tensor]) -> None:
        """Keeps what a Wav-BERT's modules show: `acoustic.*` is of frames, all else of tokens.

        Args:
            pictures: of `EmbeddingAttention` and `RepresentationAggregation`.
        """
        for name, values in pictures.items():
            side, what = name.split(".")
            if what == "gate":
                self.add_gate(side, values, frames=side == "acoustic")
            elif side == "acoustic":
                self.frames_read(side, values)
            else:
                self.tokens_read(side, values)
