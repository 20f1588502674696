"""Product quantization with Gumbel noise (Jang et al., 2017; Baevski et al., 2020, section 2 and eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.config import check_range


@dataclass
class Config:
    """Codebooks and their temperature; the defaults are wav2vec 2.0 Base (Large ends at 0.1)."""

    groups: int = 2
    """G, codebooks; a codeword has one entry of each."""

    entries: int = 320
    """V, entries of a codebook."""

    dim: int | None = None
    """Dimension of a codeword, a multiple of `groups`; null takes that which targets are projected to."""

    temperature_start: float = 2.0
    """Temperature of the first update."""

    temperature_end: float = 0.5
    """Lowest temperature."""

    temperature_decay: float = 0.999995
    """Factor of the temperature at each update."""

    temperature_updates: int | None = None
    """Update at which the lowest temperature is reached, in the place of `temperature_decay`: for short runs,
    such as 0.7 x loop.max_updates."""

    def __post_init__(self) -> None:
        check_range("groups", self.groups, 1)
        check_range("entries", self.entries, 1)
        if self.entries**self.groups >= 2**63:
            raise ValueError(f"entries={self.entries} and groups={self.groups} make more than 2^63 codewords")
        if self.dim is not None and (self.dim < 1 or self.dim % self.groups):
            raise ValueError(f"dim={self.dim} must be a multiple of groups={self.groups}")
        check_range("temperature_end", self.temperature_end, 1e-3)
        check_range("temperature_start", self.temperature_start, self.temperature_end)
        check_range("temperature_decay", self.temperature_decay, 0, 1)
        if self.temperature_updates is not None:
            check_range("temperature_updates", self.temperature_updates, 1)

    def temperature(self, update: int) -> float:
        """`max(start * decay^update, end)`; `update` counts optimiser updates from 0."""
        start, end, decay = self.temperature_start, self.temperature_end, self.temperature_decay
        if self.temperature_updates is not None:
            decay = (end / start) ** (1 / self.temperature_updates)
            if update >= self.temperature_updates:
                return end
        return max(start * decay**update, end)


@dataclass
class Quantized:
    """What the quantizer makes of N frames.

    Attributes:
        vectors: `(N, D)` codewords, rows of the codebooks to the last bit.
        codes: `(N, G)` int64, the chosen entry of each codebook.
        probabilities: `(N, G, V)` fp32 softmax of the logits without noise or temperature.
    """

    vectors: Tensor
    codes: Tensor
    probabilities: Tensor


class GumbelQuantizer(nn.Module):
    """Frames to codewords; computes in fp32 under autocast too.

    Args:
        config: see `Config`.
        input_dim: C of the frames.
        dim: D, the dimension of a codeword.
    """

    def __init__(self, config: Config, input_dim: int, dim: int) -> None:
        super().__init__()
        self.groups, self.entries = config.groups, config.entries
        self.weight_proj = nn.Linear(input_dim, self.groups * self.entries)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)
        shape = (1, self.groups * self.entries, dim // self.groups)
        self.codevectors = nn.Parameter(torch.empty(shape).uniform_())

    def forward(self, x: Tensor, temperature: float) -> Quantized:
        """Quantizes.

        In training an entry is the largest after Gumbel noise, and the gradient that of the softmax of
        the noisy logits over the temperature (straight-through); in evaluation there is no noise.

        Args:
            x: `(N, C)` frames.
            temperature: of the softmax that the gradient goes through.
        """
        with torch.autocast(x.device.type, enabled=False):
            logits = self.weight_proj(x.to(self.weight_proj.weight.dtype))
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            logits = logits.unflatten(-1, (self.groups, self.entries))
            probabilities = logits.softmax(-1)
            if not self.training:
                codes = logits.argmax(-1)
                return Quantized(self.lookup(codes), codes, probabilities)
            noisy = (logits + self.noise(logits)) / temperature
            codes = noisy.argmax(-1)
            books = self.codevectors.detach().view(self.groups, self.entries, -1).to(noisy.dtype)
            soft = torch.einsum("ngv,gvd->ngd", noisy.softmax(-1), books).flatten(1)
            vectors = self.lookup(codes) + (soft - soft.detach())  # the bracket is 0 and has the gradient
            return Quantized(vectors, codes, probabilities)

    def noise(self, logits: Tensor) -> Tensor:
        """Gumbel noise `-log(-log u)` of the logits' shape and dtype, from the global generator."""
        return -(-torch.rand_like(logits).log()).log()

    def lookup(self, codes: Tensor) -> Tensor:
        """Codewords: `(..., G)` int64 entries to `(..., D)`."""
        first = torch.arange(self.groups, device=codes.device) * self.entries
        rows = self.codevectors[0].index_select(0, (codes + first).flatten())
        return rows.view(*codes.shape[:-1], self.groups * rows.size(1))

    def words(self, codes: Tensor) -> Tensor:
        """One number for each codeword: `(..., G)` int64 to `(...)`, mixed radix, below V^G."""
        number = codes[..., 0]
        for group in range(1, self.groups):
            number = number * self.entries + codes[..., group]
        return number
