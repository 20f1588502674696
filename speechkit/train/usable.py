"""Which utterances can be trained on, decided before the first update and written to a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from speechkit.data import plan
from speechkit.data.ledger import Ledger
from speechkit.data.manifest import Manifest, Ragged
from speechkit.errors import BadSample, InputError
from speechkit.models.assets import Assets


def encode_texts(
    manifest: Manifest, encode: Callable[[str, str], list[int]]
) -> tuple[Ragged, dict[int, BadSample]]:
    """Token ids of every utterance, encoded once; and those with no token in the vocabulary.

    Args:
        manifest: the utterances, with `text`; those of a directory without any have no token.
        encode: utterance id and text to ids; raises BadSample.
    """
    encoded, bad = [], {}
    absent = manifest.absent.get("text", np.zeros(len(manifest), bool))
    for i in range(len(manifest)):
        if absent[i]:
            encoded.append([])
            continue
        try:
            encoded.append(encode(manifest.ids[i], manifest.tables["text"][i]))
        except BadSample as error:
            encoded.append([])
            bad[i] = error
    return Ragged.of(encoded), bad


def encode_fields(
    fields: Iterable[str], manifest: Manifest, assets: Assets
) -> tuple[dict[str, Ragged], dict[int, BadSample]]:
    """The encoded text of every utterance for each field that is made of text, and those that have none.

    Args:
        fields: names of batch fields.
        manifest: the utterances, with `text`.
        assets: the tokenizer, for `tokens`, and BERT's vocabulary and positions, for `bert_tokens`.

    Raises:
        InputError: BERT's vocabulary is needed and missing.
    """
    encoded, bad = {}, {}
    if "tokens" in fields:
        encoded["tokens"], bad = encode_texts(manifest, assets.tokenizer.encode_utterance)
    if "bert_tokens" in fields:
        if assets.bert is None:
            raise InputError("the model reads text in BERT's word pieces, and there is no BERT vocabulary")
        cut = partial(
            assets.bert.vocab.encode_utterance,
            positions=assets.bert.config.get("max_position_embeddings", 512),
        )
        encoded["bert_tokens"], unreadable = encode_texts(manifest, cut)
        bad |= unreadable
    return encoded, bad


def check_mixing(
    config: plan.Config, manifest: Manifest, sources: np.ndarray, folders: Sequence[str | Path]
) -> None:
    """Refuses a plan that would put speech with and without a table into one micro-batch.

    Args:
        config: of the plan.
        manifest: the utterances; `absent` says which have no such table.
        sources: `(N,)` numbers of what the plan mixes, or keeps apart.
        folders: the data directories, for messages.

    Raises:
        InputError: names two of them, and the option to change.
    """
    for table, absent in manifest.absent.items():
        if not absent.any() or absent.all():
            continue
        without, having = (folders[manifest.sources[int(i)]] for i in (absent.argmax(), absent.argmin()))
        what = f"{without} has no `{table}` and {having} has one"
        if config.source_batches != "single":
            raise InputError(
                f"plan.source_batches={config.source_batches}: utterances of both would be in one "
                f"micro-batch, and {what}; set plan.source_batches=single, or model.mix=mixed"
            )
        if np.intersect1d(sources[absent], sources[~absent]).size:
            raise InputError(
                f"plan.sources={config.sources}: utterances of one language would be in one micro-batch, and "
                f"{what}; set plan.sources=folders"
            )


def repeats(tokens: Ragged) -> np.ndarray:
    """`(N,)` pairs of equal neighbours in each sequence."""
    same = np.zeros(len(tokens.flat) + 1, np.int64)
    same[1:-1] = tokens.flat[1:] == tokens.flat[:-1]
    inner = tokens.offsets[1:-1]
    same[inner[inner < len(tokens.flat)]] = 0  # neighbours in different sequences
    summed = np.concatenate([[0], np.cumsum(same)])
    return summed[tokens.offsets[1:]] - summed[tokens.offsets[:-1]]


def too_many_tokens(tokens: Ragged, frames: np.ndarray) -> np.ndarray:
    """`(N,)` True where CTC has no path: T < U + repeats (Graves et al. 2006, sec. 3.1)."""
    return frames < tokens.lengths + repeats(tokens)


def output_frames(model: object, manifest: Manifest, frames: Callable[[int], int]) -> np.ndarray:
    """`(N,)` frames that the model emits.

    Args:
        model: a `speechkit.models.Model`.
        manifest: the utterances.
        frames: samples at speed 1 to the length of the model's first input, at the fastest speed.
    """
    inputs = torch.tensor([frames(samples) for samples in manifest.samples.tolist()])
    return model.output_lengths(inputs.clamp(min=0)).numpy()


def too_short(manifest: Manifest, frames: np.ndarray, fewest: int) -> dict[int, BadSample]:
    """Positions of the utterances of which the model emits fewer frames, with the reason."""
    short = np.flatnonzero(frames < fewest).tolist()
    reason = f"fewer than {fewest} frames"
    return {
        i: BadSample(manifest.ids[i], reason, f"{frames[i]} of {manifest.samples[i]} samples") for i in short
    }


def too_long(manifest: Manifest, pieces: Ragged, longest: int) -> dict[int, BadSample]:
    """Positions of the utterances with more word pieces than the model has places for, with the reason."""
    long = np.flatnonzero(pieces.lengths > longest).tolist()
    reason, advice = f"more than {longest} word pieces", "split the utterance"
    return {i: BadSample(manifest.ids[i], reason, f"{len(pieces[i])}; {advice}") for i in long}


def choose_texts(
    manifest: Manifest, ledger: Ledger, lengths: np.ndarray, bad: dict[int, BadSample], limits: object = None
) -> np.ndarray:
    """Positions of the usable sentences of text sets; every fate is noted.

    Args:
        manifest: the sentences.
        ledger: of the stage.
        lengths: `(N,)` their tokens.
        bad: sentences that cannot be used for a reason known already.
        limits: `speechkit.data.text_plan.Config` with the fewest and most tokens of a training sentence; None
            for evaluation.
    """
    fewest, most = (limits.min_tokens, limits.max_tokens) if limits is not None else (0, np.inf)
    kept = []
    for i, length in enumerate(lengths.tolist()):
        if i in bad:
            ledger.drop(manifest.ids[i], 0, bad[i].reason, bad[i].detail)
        elif not fewest <= length <= most:
            reason = "min_tokens" if length < fewest else "max_tokens"
            than = "shorter" if length < fewest else "longer"
            ledger.drop(manifest.ids[i], 0, f"{than} than plan.text.{reason}", f"{length} tokens")
        else:
            ledger.keep(manifest.ids[i], 0)
            kept.append(i)
    return np.array(kept, np.int64)


def settle(ledger: Ledger, path: Path, first: bool) -> None:
    """Writes the ledger, tells what was dropped, and refuses when that is too much.

    Args:
        ledger: complete.
        path: its file.
        first: whether this is the first rank, which writes and tells.

    Raises:
        InputError: more was dropped than may be.
    """
    if first:
        ledger.write(path)
        if ledger.dropped:
            print(ledger.summary())
    try:
        ledger.check()
    except InputError as error:
        raise InputError(f"{error}; every utterance is in {path}") from None


def choose(
    manifest: Manifest,
    ledger: Ledger,
    limits: plan.Config | None = None,
    tokens: Ragged | None = None,
    unknown: dict[int, BadSample] | None = None,
    frames: np.ndarray | None = None,
) -> np.ndarray:
    """Positions of the usable utterances; every fate is noted, and it is for the caller to check the ledger.

    Args:
        manifest: the utterances.
        ledger: of the stage; it says how much may be dropped.
        limits: shortest and longest training utterance, and most tokens; None for evaluation.
        tokens: the encoded texts, for a CTC model.
        unknown: utterances that cannot be used for a reason known already, such as no token in the
            vocabulary.
        frames: `(N,)` output frames at the fastest speed, for a CTC model.
    """
    seconds, kept = manifest.seconds, []
    doubled = repeats(tokens) if tokens is not None else None
    blocked = too_many_tokens(tokens, frames) if frames is not None else np.zeros(len(manifest), bool)
    most = limits.max_tokens if limits is not None and tokens is not None else None
    languages = manifest.tables.get("utt2lang")
    for i, (length, no_path) in enumerate(zip(seconds.tolist(), blocked.tolist())):
        reason, detail = "", ""
        if unknown and i in unknown:
            reason, detail = unknown[i].reason, unknown[i].detail
        elif limits is not None and not limits.min_seconds <= length <= limits.max_seconds:
            reason = (
                "shorter than plan.min_seconds"
                if length < limits.min_seconds
                else "longer than plan.max_seconds"
            )
            detail = f"{length:.2f} s"
        elif most is not None and len(tokens[i]) > most:
            reason, detail = "more tokens than plan.max_tokens", f"{len(tokens[i])} tokens"
        elif no_path:
            reason = "more tokens than frames" + (f" ({languages[i]})" if languages is not None else "")
            detail = f"{len(tokens[i])} tokens, {int(doubled[i])} repeats, {int(frames[i])} frames"
        if reason:
            ledger.drop(manifest.ids[i], length, reason, detail)
        else:
            ledger.keep(manifest.ids[i], length)
            kept.append(i)
    return np.array(kept, np.int64)
