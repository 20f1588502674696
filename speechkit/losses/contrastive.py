"""The contrastive loss of wav2vec 2.0 (Baevski et al., 2020, eq. 3) on flat lists of frames.

Distractors are drawn by hashing, so that those of an utterance depend on its key and mask alone. They
are gathered from the similarities of all frames of an utterance, never as vectors: less work than
K copies of them, and a backward pass that sums in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.hashing import mix
from speechkit.layers.masks import Packing

SALT = 0xC0417
SAME, CROSS, CODES = range(3)  # purposes of draws


@dataclass
class Config:
    """Distractors and the similarity."""

    negatives: int = 100
    """K, distractors from other masked frames of the same utterance, drawn with replacement."""

    cross_sample_negatives: int = 0
    """Distractors from all masked frames of the batch, in addition."""

    codebook_negatives: int = 0
    """Distractors that are random codewords, in addition; needs a quantizer."""

    negatives_from_everywhere: bool = False
    """Draw from all frames in the place of the masked ones (UniSpeech)."""

    temperature: float = 0.1
    """kappa, what cosines are divided by."""

    def __post_init__(self) -> None:
        for name in ("negatives", "cross_sample_negatives", "codebook_negatives"):
            check_range(name, getattr(self, name), 0)
        if self.total < 1:
            raise ValueError("negatives=0: a contrastive loss needs at least one distractor")
        check_range("temperature", self.temperature, 1e-4)

    @property
    def total(self) -> int:
        """Distractors of a frame."""
        return self.negatives + self.cross_sample_negatives + self.codebook_negatives


@dataclass(frozen=True)
class Draw:
    """Frames to predict, and what to tell them from; int64 tensors.

    With distractors from other utterances, the whole batch counts as one group.

    Attributes:
        rows: `(U,)` frames to predict in each group, N in all; on the CPU, as `sizes` is.
        sizes: `(U,)` candidates in each group, P in all.
        own: `(N,)` place of the true one among the candidates of its group.
        others: `(N, K)` places of distractors there, never `own`.
        seeds: `(N,)` uint64 numpy array for further draws.
    """

    rows: Tensor
    sizes: Tensor
    own: Tensor
    others: Tensor
    seeds: np.ndarray

    def to(self, device: torch.device) -> Draw:
        """The same on a device, but for what is counted on the CPU."""
        return replace(self, own=self.own.to(device), others=self.others.to(device))

    @property
    def packings(self) -> tuple[Packing, Packing]:
        """Where the groups lie among the frames to predict, and among the candidates."""
        device = self.own.device
        return Packing(self.rows).to(device), Packing(self.sizes).to(device)


def draw_distractors(mask: Tensor, lengths: Tensor, keys: Tensor, config: Config) -> Draw:
    """Draws distractors, each evenly from all candidates but the true one.

    Args:
        mask: `(B, T)` bool on the CPU, True at frames to predict: none or at least 2 of an utterance.
        lengths: `(B,)` frames on the CPU.
        keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.
        config: how many, from where.
    """
    utterance, frame = (index.numpy() for index in mask.nonzero(as_tuple=True))
    rows = mask.sum(1).numpy()
    rank = np.arange(len(frame)) - (rows.cumsum() - rows)[utterance]
    own, sizes = (frame, lengths.numpy()) if config.negatives_from_everywhere else (rank, rows)
    seeds = mix(keys.numpy()[utterance], SALT, rank)
    others = _others(mix(seeds, SAME), own, sizes[utterance], config.negatives)
    if config.cross_sample_negatives:
        first = (sizes.cumsum() - sizes)[utterance]
        own, others = own + first, others + first[:, None]
        rows, sizes = np.array([rows.sum()]), np.array([sizes.sum()])
        cross = _others(mix(seeds, CROSS), own, sizes.repeat(len(own)), config.cross_sample_negatives)
        others = np.concatenate([others, cross], axis=1)
    return Draw(*map(torch.from_numpy, (rows, sizes, own, others)), seeds)


def _others(seeds: np.ndarray, own: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """`(N, count)` int64, even over `0 ... sizes - 1` without `own`."""
    draws = mix(seeds[:, None], np.arange(count)) % (sizes[:, None] - 1).astype(np.uint64)
    draws = draws.astype(np.int64)
    return draws + (draws >= own[:, None])


def draw_codes(draw: Draw, count: int, groups: int, entries: int) -> Tensor:
    """`(N, count, groups)` int64 random codewords."""
    numbers = mix(mix(draw.seeds, CODES)[:, None], np.arange(count * groups)) % np.uint64(entries)
    return torch.from_numpy(numbers.astype(np.int64)).view(-1, count, groups).to(draw.own.device)


def contrastive_logits(
    predictions: Tensor, candidates: Tensor, draw: Draw, words: Tensor, temperature: float
) -> Tensor:
    """Cosines over the temperature, in fp32 under autocast too.

    Args:
        predictions: `(N, F)` of the frames to predict.
        candidates: `(P, F)` targets.
        draw: which belongs to which.
        words: `(P,)` int64, equal for equal candidates: a distractor equal to the true one gets -inf.
        temperature: kappa.

    Returns:
        `(N, 1 + K)`, the true one first.
    """
    rows, pool = draw.packings
    if rows.total == 0:
        return predictions.new_zeros(0, 1 + draw.others.size(1)) + 0 * predictions.sum()
    with torch.autocast(predictions.device.type, enabled=False):
        all_cosines = rows.unpack(_unit(predictions)) @ pool.unpack(_unit(candidates)).transpose(1, 2)
        columns = torch.cat([draw.own[:, None], draw.others], dim=1)
        logits = rows.pack(all_cosines).gather(1, columns) / temperature
    found = _words_at(columns, draw, rows, words)
    equal = found[:, 1:] == found[:, :1]
    return torch.cat([logits[:, :1], logits[:, 1:].masked_fill(equal, -torch.inf)], dim=1)


def own_words(draw: Draw, words: Tensor) -> Tensor:
    """`(N,)` numbers of the true candidates."""
    return _words_at(draw.own[:, None], draw, draw.packings[0], words).squeeze(1)


def _words_at(columns: Tensor, draw: Draw, rows: Packing, words: Tensor) -> Tensor:
    """`(N, ...)` numbers of candidates given by their places in their groups."""
    first = (draw.sizes.cumsum(0) - draw.sizes).to(columns.device).index_select(0, rows.utterance)
    return words.index_select(0, (columns + first[:, None]).flatten()).view(columns.shape)


def codebook_logits(predictions: Tensor, vectors: Tensor, equal: Tensor, temperature: float) -> Tensor:
    """The same for distractors that are codewords.

    Args:
        predictions: `(N, F)`.
        vectors: `(N, K, F)` projected codewords.
        equal: `(N, K)` bool, True where one is the true one.
        temperature: kappa.

    Returns:
        `(N, K)`.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        cosines = (_unit(vectors) @ _unit(predictions)[:, :, None]).squeeze(2)
        return (cosines / temperature).masked_fill(equal, -torch.inf)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1 in fp32; a zero vector stays zero."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.nn.functional.normalize(x, dim=-1, eps=1e-8)


def contrastive_loss(logits: Tensor) -> Tensor:
    """`(N,)` losses in nats of `(N, 1 + K)` logits, the true one first: `log(1 + K)` at chance."""
    return logits.logsumexp(1) - logits[:, 0]


def correct(logits: Tensor) -> Tensor:
    """`(N,)` bool: the true one is above every distractor.

    False also when all distractors equal the true one or score the same: a collapsed model, in which
    there is nothing to tell apart, has accuracy 0.
    """
    best = logits[:, 1:].max(1).values
    return (logits[:, 0] > best) & (best > -torch.inf)
