"""What a model says of a batch, looked at before it is searched."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechkit.errors import BadSample
from speechkit.layers.masks import padding_mask


def refuse_nan(heads: dict[str, tuple[Tensor, Tensor]], ids: Sequence[str]) -> None:
    """Looks for outputs that are no numbers, which searches would take for silence.

    Args:
        heads: values `(B, T, V)` and lengths `(B,)` of each; what has no frames is not looked at.
        ids: of the utterances.

    Raises:
        BadSample: there are some within an utterance.
    """
    for name, (values, lengths) in heads.items():
        if values.dim() < 3 or not values.numel() or not values.is_floating_point():
            continue
        beyond = padding_mask(lengths.to(values.device), values.size(1))
        wrong = (values.flatten(2).amax(2).isnan() & ~beyond).any(1).nonzero()
        if len(wrong):
            raise BadSample(
                ids[int(wrong[0])],
                "the model's outputs are NaN",
                f"look at its features ({name}), and at the losses of the model's training",
            )
