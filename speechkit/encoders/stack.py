"""The frame of the block encoders: subsampling, positions, blocks, norm, on packed frames."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechkit.encoders import EncoderOutput
from speechkit.encoders.masking import hide
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing


class BlockEncoder(nn.Module):
    """Subsampling, positions, then blocks of equal shape.

    Args:
        subsampling: `(B, T, F)` and lengths to packed `(N, D)` and its Packing.
        positions: see `speechkit.layers.positions`.
        blocks: called as `block(x, packing, positions, context)`.
        dim: D.
        dropout: applied to the input of the first block.
        final_norm: applied to the output of the last block.
        mask_embedding: build the learned vector that replaces masked frames.
        checkpointing: recompute each block in the backward pass instead of storing what is inside.
    """

    takes = "features"

    def __init__(
        self,
        subsampling: nn.Module,
        positions: nn.Module,
        blocks: Iterable[nn.Module],
        dim: int,
        *,
        dropout: FrameDropout,
        final_norm: nn.Module,
        mask_embedding: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.subsampling, self.positions, self.dropout = subsampling, positions, dropout
        self.blocks = nn.ModuleList(blocks)
        self.norm = final_norm
        self.mask_embedding = nn.Parameter(torch.empty(dim).uniform_()) if mask_embedding else None
        self.output_dim = self.local_dim = dim
        self.stride = subsampling.factor
        self.checkpointing = checkpointing
        self.keep_hidden_states = self.keep_local = False

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        return self.subsampling.output_lengths(lengths)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        *,
        mask: Tensor | None = None,
        channel_mask: Tensor | None = None,
        context: Tensor | None = None,
        context_lengths: Tensor | None = None,
    ) -> EncoderOutput:
        """Encodes.

        Args:
            x: `(B, T, F)` features; the padding may hold anything.
            lengths: `(B,)` frames.
            mask: `(B, T')` bool, True at output frames that the mask embedding replaces, or None.
            channel_mask: `(B, D)` bool, True at channels that are 0 in all frames, or None.
            context: `(B, M, context_dim)` sequence that the blocks read, or None.
            context_lengths: `(B,)` of `context`.

        Raises:
            ValueError: `mask` or `context` given to an encoder built without that part.
        """
        x, packing = self.subsampling(x, lengths)
        if packing.total == 0:  # not one frame: every utterance is shorter than the window
            nothing = x.new_zeros(len(lengths), 0, self.output_dim)
            return EncoderOutput(nothing, packing.lengths, local=nothing if self.keep_local else None)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # residuals stay fp32 under autocast
        local = packing.unpack(x) if self.keep_local else None
        x = hide(x, packing, self.mask_embedding, mask, channel_mask)
        x, positions = self.positions(x, packing)
        x = self.dropout(x, packing)
        packed_context = self._pack_context(context, context_lengths)
        states = [x]
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, packing, positions, packed_context, use_reentrant=False)
            else:
                x = block(x, packing, positions, packed_context)
            states.append(x)
        hidden = [packing.unpack(state) for state in states] if self.keep_hidden_states else None
        return EncoderOutput(packing.unpack(self.norm(x)), packing.lengths, hidden, local)

    def _pack_context(self, context: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Packing] | None:
        if context is None:
            return None
        if any(block.context is None for block in self.blocks):
            raise ValueError("a context needs an encoder built with context_dim")
        packing = Packing(lengths)
        return packing.pack(context), packing
