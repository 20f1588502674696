"""What BERT's branch reads, and what it is to answer at each position: the truth with noise, or CTC's tokens.

A hypothesis is rarely as long as the truth, and cross entropy goes position by position; the paper (Zheng et
al., 2021) does not say how they meet. Here each token of the hypothesis answers with the true token that it
is aligned with; inserted tokens have no answer, and deleted ones are left to the CTC loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speechkit.config import check_range
from speechkit.data.batch import Padded
from speechkit.encoders.bert import bert_sequences
from speechkit.fusion.conditional_mlm import Noise, add_noise
from speechkit.fusion.sampling_decay import SamplingDecay
from speechkit.layers.masks import padding_mask
from speechkit.search.token_alignment import align_tokens

if TYPE_CHECKING:
    from speechkit.text.bert_vocab import BertVocab

IGNORE = -100
"""Target of a position that no loss looks at."""


@dataclass
class Config:
    """What BERT's branch reads in training."""

    sampling: SamplingDecay = field(default_factory=SamplingDecay)
    """When it reads the truth and when the hypothesis."""

    noise: Noise = "abnet"
    """How the truth is hidden; see `speechkit.fusion.conditional_mlm.add_noise`."""

    align: Literal["levenshtein", "pad_trunc", "skip"] = "levenshtein"
    """Answers to a hypothesis: by alignment; by position, cut or lengthened by [MASK] to the length of the
    truth; by position, and none where the lengths differ."""

    mask_below: float = 0.0
    """Tokens of the hypothesis of which CTC is less sure than this probability become [MASK], in recognition
    too, as in Mask-CTC (Higuchi et al., 2020): what BERT knows decides there. 0 hides none, as published."""

    inserted: Literal["ignore", "drop"] = "ignore"
    """Tokens of the hypothesis that stand for none of the truth: no loss looks at them, or the answer is that
    nothing is there ([UNK], which is not written)."""

    def __post_init__(self) -> None:
        check_range("mask_below", self.mask_below, 0, 1)

    def unsure(self, confidences: Tensor) -> Tensor:
        """`(B, M)` bool, True where `[MASK]` is to stand, for log confidences."""
        return confidences.exp() < self.mask_below


class LinguisticInput(NamedTuple):
    """Sequences for BERT without [CLS] and [SEP], in linguistic ids.

    Attributes:
        tokens: `(B, M)`, 0 beyond the lengths.
        masked: `(B, M)` bool, True where `[MASK]` stands instead of the token.
        lengths: `(B,)` int64.
        cmlm: `(B, M)` targets of the conditional masked language model, `IGNORE` elsewhere.
        ce: `(B, M)` targets of the cross entropy on the fused output, `IGNORE` elsewhere.
        clock: `(B, M)` float, places on the clock of `speechkit.search.two_vocabularies.Recognised`.
        partners: `(B, M)` int64, the token of the hypothesis that each stands for; -1 for none.
    """

    tokens: Tensor
    masked: Tensor
    lengths: Tensor
    cmlm: Tensor
    ce: Tensor
    clock: Tensor
    partners: Tensor

    def bert_ids(self, lookup: Tensor, vocab: BertVocab) -> tuple[Tensor, Tensor]:
        """The same in BERT's own ids, in [CLS] and [SEP]; position i of `tokens` is i + 1 here.

        Args:
            lookup: `(V',)`, see `BertVocab.lookup`.
            vocab: for the ids of the special tokens.

        Returns:
            `(B, M + 2)`, [PAD] beyond the lengths, and lengths `(B,)`.
        """
        return bert_sequences(self.tokens, self.lengths, lookup, vocab, self.masked)

    def clock_of_all(self) -> Tensor:
        """`(B, M + 2)`, the clock with [CLS] one before the first token and [SEP] one after the last."""
        inside = ~padding_mask(self.lengths, self.clock.size(1))
        last = self.clock.masked_fill(~inside, -1).amax(1) if self.clock.size(1) else self.clock.sum(1) - 1
        edge = self.clock.new_full((len(self.clock), 1), -1)
        whole = torch.cat([edge, self.clock, edge], 1)
        return whole.scatter(1, self.lengths[:, None] + 1, last[:, None] + 1)

    def scores_of(self, heard: Tensor) -> Tensor:
        """What CTC makes of each token's frames, 0 where it heard none: `(B, M, V')`.

        Args:
            heard: `(B, M', V')` of the tokens of the hypothesis.
        """
        heard = F.pad(heard, (0, 0, 0, 1))
        places = self.partners.where(
            (self.partners >= 0) & (self.partners < heard.size(1)), heard.size(1) - 1
        )
        return heard.gather(1, places[..., None].expand(-1, -1, heard.size(2)))

    def to(self, device: torch.device) -> LinguisticInput:
        """The same on a device."""
        return LinguisticInput(*(values.to(device) for values in self))

    def reread(self, log_probs: Tensor) -> LinguisticInput:
        """The most probable answers instead of the tokens, for another pass through BERT.

        Args:
            log_probs: `(B, M, V')` of the cross-entropy output, without the positions of [CLS] and [SEP].
        """
        best = log_probs.argmax(-1).masked_fill(padding_mask(self.lengths, self.tokens.size(1)), 0)
        return self._replace(tokens=best, masked=torch.zeros_like(self.masked))

    def all_masked(self) -> LinguisticInput:
        """Nothing but [MASK] to read, as many as there are tokens: what BERT adds without knowing a word."""
        return self._replace(masked=~padding_mask(self.lengths, self.tokens.size(1)))


def inference_input(hypotheses: Padded, limit: int, unsure: Tensor | None = None) -> LinguisticInput:
    """A hypothesis, without targets.

    Args:
        hypotheses: linguistic ids; an empty hypothesis leaves [CLS] and [SEP] alone.
        limit: tokens that BERT has positions for, without [CLS] and [SEP]; what lies beyond is cut off.
        unsure: `(B, M)` bool, tokens that are not believed and become [MASK]; None believes all.
    """
    lengths = hypotheses.lengths.clamp(max=limit)
    tokens = hypotheses.values
    nothing = torch.full_like(tokens, IGNORE)
    masked = nothing > 0 if unsure is None else unsure
    return _cut(LinguisticInput(tokens, masked, lengths, nothing, nothing, *_as_heard(tokens)))


def text_input(config: Config, references: Padded, keys: Tensor, vocab_size: int) -> LinguisticInput:
    """The truth with noise, for text without speech.

    Args:
        config: see `Config`.
        references: true tokens, linguistic ids.
        keys: `(B,)` int64 on the CPU.
        vocab_size: V'.
    """
    tokens, lengths = references.values, references.lengths
    inside = ~padding_mask(lengths, tokens.size(1))
    noised = add_noise(tokens, lengths, keys, vocab_size, config.noise)
    cmlm, ce = tokens.where(inside & noised.chosen, IGNORE), tokens.where(inside, IGNORE)
    clock, partners = _as_heard(tokens)
    return _cut(LinguisticInput(noised.tokens, noised.masked, lengths, cmlm, ce, clock, partners.fill_(-1)))


def training_input(
    config: Config,
    references: Padded,
    hypotheses: Padded,
    keys: Tensor,
    update: int,
    vocab_size: int,
    limit: int,
    unsure: Tensor | None = None,
) -> LinguisticInput:
    """Chooses truth or hypothesis for every utterance, and the targets that go with it.

    The truth with noise answers the conditional MLM at the chosen tokens and the cross entropy at all; a
    hypothesis answers both wherever it has a target.

    Args:
        config: see `Config`.
        references: true tokens, linguistic ids; at most `limit` each.
        hypotheses: greedy tokens of the first CTC output, linguistic ids, on any device.
        keys: `(B,)` int64 on the CPU.
        update: counted from 0.
        vocab_size: V'.
        limit: as for `inference_input`; it cuts hypotheses only.
        unsure: as for `inference_input`.

    Returns:
        See `LinguisticInput`; on the device of the references.
    """
    device = references.values.device
    references, hypotheses = _on_cpu(references), _on_cpu(hypotheses)
    width = max(references.values.size(1), hypotheses.values.size(1))
    truth, sizes = _widened(references, width), references.lengths
    inside = ~padding_mask(sizes, width)
    noised = add_noise(truth, sizes, keys, vocab_size, config.noise)
    cmlm, ce = truth.where(inside & noised.chosen, IGNORE), truth.where(inside, IGNORE)
    partners = align_tokens(hypotheses.values, hypotheses.lengths, truth, sizes).partners
    given = LinguisticInput(noised.tokens, noised.masked, sizes, cmlm, ce, *_heard_at(partners, width))

    picks = config.sampling.picks(keys, update)
    by_token = torch.zeros_like(picks)
    if config.sampling.mix == "token":
        by_token = sizes == hypotheses.lengths
    heard = _heard(config, truth, sizes, hypotheses, limit, partners)
    heard = _either(by_token[:, None], _by_position(truth, sizes, hypotheses), heard)
    if unsure is not None:
        hidden = F.pad(unsure.cpu(), (0, width - unsure.size(1)))
        heard = heard._replace(masked=heard.masked | hidden)
    each = config.sampling.token_picks(keys, update, width) if by_token.any() else picks[:, None]
    chosen = _cut(_either(torch.where(by_token[:, None], each, picks[:, None]), given, heard))
    return chosen.to(device)


def _as_heard(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """`(B, M)` 0, 1, 2 ... twice: clock and partners of a hypothesis itself."""
    places = torch.arange(tokens.size(1), device=tokens.device).repeat(len(tokens), 1)
    return places.float(), places


def _heard_at(partners: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Clock and partners `(B, width)` of the truth: where a token was not heard, between those that were."""
    clock, heard = _as_heard(partners.new_empty(len(partners), width))
    heard.fill_(-1)
    places = np.arange(width)
    for times, tokens, found in zip(clock, heard, partners.numpy()):
        (at,) = (found >= 0).nonzero()
        if len(at):
            times.copy_(torch.from_numpy(np.interp(places, found[at], at)))
            tokens[torch.from_numpy(found[at])] = torch.from_numpy(at)
    return clock, heard


def _heard(
    config: Config, truth: Tensor, sizes: Tensor, hypotheses: Padded, limit: int, partners: Tensor
) -> LinguisticInput:
    """Hypotheses with their targets."""
    align = config.align
    if align == "pad_trunc":
        return _by_position(truth, sizes, hypotheses)
    tokens, lengths = _widened(hypotheses, truth.size(1)), hypotheses.lengths.clamp(max=limit)
    targets = torch.full_like(truth, IGNORE)
    if align == "skip":
        targets = truth.where((sizes == hypotheses.lengths)[:, None], targets)
    else:
        partners = F.pad(partners, (0, truth.size(1) - partners.size(1)), value=-1)
        targets = truth.gather(1, partners.clamp(min=0)).where(partners >= 0, IGNORE)
        if config.inserted == "drop":
            inside = ~padding_mask(lengths, truth.size(1))
            targets = targets.masked_fill(inside & (partners < 0), 0)
    masked = torch.zeros_like(tokens, dtype=torch.bool)
    return LinguisticInput(tokens, masked, lengths, targets, targets, *_as_heard(tokens))


def _by_position(truth: Tensor, sizes: Tensor, hypotheses: Padded) -> LinguisticInput:
    """Hypotheses cut, or lengthened by [MASK], to the length of the truth."""
    width = truth.size(1)
    masked = padding_mask(hypotheses.lengths, width)
    return LinguisticInput(_widened(hypotheses, width), masked, sizes, truth, truth, *_as_heard(truth))


def _on_cpu(padded: Padded) -> Padded:
    """A copy that has arrived: `Padded.to` does not wait, and the values are read at once."""
    return Padded(padded.values.cpu(), padded.lengths.cpu())


def _widened(padded: Padded, width: int) -> Tensor:
    """`(B, width)` values with zeros beyond the lengths."""
    values = F.pad(padded.values, (0, width - padded.values.size(1)))
    return values.masked_fill(padding_mask(padded.lengths, width), 0)


def _either(first: Tensor, a: LinguisticInput, b: LinguisticInput) -> LinguisticInput:
    """The first where told so, `(B, 1)` or, for rows of equal lengths in both, `(B, M)`."""
    lengths = torch.where(first[:, 0], a.lengths, b.lengths) if first.size(1) else a.lengths
    values = {name: torch.where(first, getattr(a, name), getattr(b, name)) for name in _BY_TOKEN}
    return LinguisticInput(lengths=lengths, **values)


_BY_TOKEN = ("tokens", "masked", "cmlm", "ce", "clock", "partners")


def _cut(inputs: LinguisticInput) -> LinguisticInput:
    """As wide as the longest row, with nothing beyond the lengths."""
    width = int(inputs.lengths.max()) if len(inputs.lengths) else 0
    beyond = padding_mask(inputs.lengths, width)
    return LinguisticInput(
        inputs.tokens[:, :width].masked_fill(beyond, 0),
        inputs.masked[:, :width] & ~beyond,
        inputs.lengths,
        inputs.cmlm[:, :width].masked_fill(beyond, IGNORE),
        inputs.ce[:, :width].masked_fill(beyond, IGNORE),
        inputs.clock[:, :width],
        inputs.partners[:, :width].masked_fill(beyond, -1),
    )
