"""The Transformer decoder (Vaswani et al., 2017), with the norm before each part.

Token by token every block keeps the keys and values of the tokens so far; those of the frames are made once,
for all hypotheses of an utterance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.decoders.causal_attention import Cache, CausalAttention
from speechkit.layers.conformer_block import FeedForward, Shape
from speechkit.layers.cross_attention import CrossAttention
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing, padding_mask, zero_padding
from speechkit.layers.positions import SinusoidalPositions, sinusoids

Memory = tuple[Tensor, ...]
"""What hides padding, `(B, 1, 1, T)` of zeros and -inf; then keys and values `(B, H, T, d)` of each block."""


@dataclass
class Config:
    """Transformer decoder; the defaults are for hours of speech."""

    name: str = "transformer"
    """The decoder's kind."""

    dim: int = 144
    """Model dimension D, and that of phi."""

    layers: int = 3
    """Number of blocks."""

    heads: int = 4
    """Attention heads, a divisor of `dim`."""

    feed_forward: int = 576
    """Inner dimension of the feed-forward parts."""

    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Of the feed-forward parts."""

    dropout: float = 0.1
    """Probability of dropping a value after each part and inside the feed-forward parts."""

    attention_dropout: float = 0.0
    """Probability of dropping an attention weight; more than 0 is slow on a CPU."""

    norm_eps: float = 1e-5
    """Added to the variance in layer norms; 1e-12 in ESPnet's checkpoints."""

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "feed_forward"):
            check_range(name, getattr(self, name), 1)
        check_range("norm_eps", self.norm_eps, 0, 1)
        for name in ("dropout", "attention_dropout"):
            check_range(name, getattr(self, name), 0, 1, open_high=True)
        self.shape()

    def shape(self) -> Shape:
        """The sizes that the parts of a block share."""
        sizes = self.dim, self.heads, self.feed_forward, self.activation
        return Shape(
            *sizes, "sinusoidal", self.dropout, self.attention_dropout, False, norm_eps=self.norm_eps
        )


class DecoderBlock(nn.Module):
    """Attention to the tokens, attention to the frames, feed-forward, each around a residual.

    Args:
        shape: sizes.
        memory_dim: D of the frames.
    """

    def __init__(self, shape: Shape, memory_dim: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_context, self.norm_feed_forward = (shape.norm() for _ in range(3))
        self.attention = CausalAttention(shape.dim, shape.heads, shape.attention_dropout)
        self.context = CrossAttention(shape.dim, memory_dim, shape.heads, shape.attention_dropout)
        self.feed_forward = FeedForward(shape)
        self.dropout = FrameDropout(shape.dropout)

    def forward(self, x: Tensor, packing: Packing, memory: Tensor, heard: Packing) -> Tensor:
        """All tokens at once.

        Args:
            x: `(N, D)` packed tokens.
            packing: where the sequences lie.
            memory: `(M, memory_dim)` packed frames.
            heard: where they lie.

        Returns:
            `(N, D)`.
        """
        x = x + self.dropout(self.attention(self.norm_attention(x), packing), packing)
        x = x + self.dropout(self.context(self.norm_context(x), packing, memory, heard), packing)
        return self._feed(x, packing)

    def step(
        self, x: Tensor, seen: Tensor, heard: tuple[Tensor, Tensor, Tensor], cache: Cache
    ) -> tuple[Tensor, Cache]:
        """One more token for each hypothesis.

        Args:
            x: `(N, D)`.
            seen: which tokens each sees, see `CausalAttention.step`.
            heard: what hides padding, and keys and values of the frames, see `Memory`.
            cache: of this block.

        Returns:
            `(N, D)`, and the cache with these tokens.
        """
        packing = Packing(torch.ones(len(x), dtype=torch.int64, device=x.device))
        found, cache = self.attention.step(self.norm_attention(x), seen, cache)
        x = x + self.dropout(found, packing)
        x = x + self.dropout(self._listen(self.norm_context(x), *heard), packing)
        return self._feed(x, packing), cache

    def _feed(self, x: Tensor, packing: Packing) -> Tensor:
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x), packing), packing)

    def _listen(self, x: Tensor, hidden: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of `(N, D)`, an equal number of hypotheses for each utterance of the keys."""
        q = self.context.query(x).view(len(keys), -1, *keys.shape[1::2]).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=hidden)
        return self.context.out(out.transpose(1, 2).reshape(x.shape))


class State(NamedTuple):
    """What N hypotheses have become.

    Attributes:
        places: `(N, L)` where in the caches the tokens stand that each has read.
        tokens: in the caches, of each utterance.
        caches: of each block.
    """

    places: Tensor
    tokens: int
    caches: list[Cache]


class TransformerDecoder(nn.Module):
    """See `speechkit.decoders`.

    Args:
        config: see `Config`.
        vocab_size: V.
        input_dim: D of the encoder's frames.
    """

    def __init__(self, config: Config, vocab_size: int, input_dim: int) -> None:
        super().__init__()
        shape = config.shape()
        self.output_dim, self.heads = config.dim, config.heads
        self.embedding = nn.Embedding(vocab_size, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)  # of unit variance once it is scaled
        self.positions = SinusoidalPositions(config.dim)
        self.dropout = FrameDropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(shape, input_dim) for _ in range(config.layers))
        self.norm = shape.norm()
        self.output = nn.Linear(config.dim, vocab_size)

    def forward(self, tokens: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        """`(B, U)` tokens, frames `(B, T, D)` and `(B,)` lengths to phi `(B, U, output_dim)`."""
        packing, heard = Packing(torch.full_like(lengths, tokens.size(1))), Packing(lengths)
        memory = heard.pack(frames)
        x, _ = self.positions(self.embedding(packing.pack(tokens)), packing)
        x = self.dropout(x, packing)
        for block in self.blocks:
            x = block(x, packing, memory, heard)
        return packing.unpack(self.norm(x))

    def maps(self, tokens: Tensor, frames: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Where each token looks in each block, `(B, H, U, T)`."""
        found: list[Tensor] = []
        watched = [
            block.context.register_forward_hook(lambda module, given, _: found.append(module.maps(*given)))
            for block in self.blocks
        ]
        try:
            self(tokens, frames, lengths)
        finally:
            for hook in watched:
                hook.remove()
        return {f"block {number}": weights for number, weights in enumerate(found, start=1)}

    # ---- token by token ---------------------------------------------------------------------------------

    def remember(self, frames: Tensor, lengths: Tensor) -> Memory:
        """Keys and values of the frames for each block; see `Memory`."""
        frames = zero_padding(frames, lengths)
        if not frames.size(1):
            frames = F.pad(frames, (0, 0, 0, 1))
        beyond = padding_mask(lengths, frames.size(1))
        parts = [frames.new_zeros(beyond.shape).masked_fill(_but_one(beyond), float("-inf"))[:, None, None]]
        for block in self.blocks:
            both = block.context.remember(frames).masked_fill(beyond[:, :, None, None, None], 0)
            parts += [part.transpose(1, 2).contiguous() for part in both.unbind(2)]
        return tuple(parts)

    def start(self, memory: Memory) -> State:
        """Empty caches."""
        keys = memory[1]
        empty = keys.new_zeros(len(keys), self.heads, 0, self.output_dim // self.heads)
        places = torch.zeros(len(keys), 0, dtype=torch.int64, device=keys.device)
        return State(places, 0, [Cache(empty, empty) for _ in self.blocks])

    def step(self, tokens: Tensor, rows: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """See `speechkit.decoders.Decoder`."""
        place = torch.tensor([state.places.size(1)], device=tokens.device)
        x = self.embedding(tokens) * self.positions.scale
        x = self.dropout(x + sinusoids(place.to(x.dtype), x.size(1)), Packing(torch.ones_like(tokens)))
        count, caches = len(memory[0]), _of_utterances(state, rows, len(memory[0]))
        own = state.tokens + torch.arange(len(tokens), device=rows.device) % (len(tokens) // count)
        places = torch.cat([state.places.index_select(0, rows), own[:, None]], 1)
        size = state.tokens + len(tokens) // count
        seen = x.new_full((len(tokens), size), float("-inf")).scatter(1, places, 0.0)
        seen = seen.view(count, 1, -1, size)
        for i, block in enumerate(self.blocks):
            x, caches[i] = block.step(x, seen, (memory[0], *memory[1 + 2 * i : 3 + 2 * i]), caches[i])
        return self.norm(x), State(places, size, caches)


def _of_utterances(state: State, rows: Tensor, count: int) -> list[Cache]:
    """The caches of the utterances that `(N,)` rows belong to, which are so many."""
    before = len(state.caches[0].keys)
    if before == count:
        return list(state.caches)
    left = rows.view(count, -1)[:, 0] // (len(state.places) // before)
    return [Cache(*(kept.index_select(0, left) for kept in cache)) for cache in state.caches]


def _but_one(beyond: Tensor) -> Tensor:
    """Padding `(B, T)` without the first column: an utterance of no frames looks at one of zeros."""
    return beyond & (torch.arange(beyond.size(1), device=beyond.device) > 0)


def build(config: Config, vocab_size: int, input_dim: int) -> TransformerDecoder:
    """The decoder for V tokens and an encoder of D.

    Raises:
        InputError: the heads do not divide the dimension.
    """
    return TransformerDecoder(config, vocab_size, input_dim)
