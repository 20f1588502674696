"""How well labels agree with phones: purities and mutual information of frames.

Source: Hsu et al., "HuBERT", 2021, section IV-C: phone purity, cluster purity and phone-normalised mutual
information of the joint distribution p(y, z) of phones y and labels z over frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechkit.clustering.labels import Track
from speechkit.errors import InputError

# Two sequences of one utterance whose durations differ by more than this are not of the same audio or rate.
MAX_DIFFERENCE = 0.5


@dataclass(frozen=True)
class Quality:
    """Agreement of labels z with phones y.

    Attributes:
        phone_purity: sum_z max_y p(y, z): frames right if every label stood for its likeliest phone.
        cluster_purity: sum_y max_z p(y, z).
        pnmi: I(y; z) / H(y).
        nmi: I(y; z) / mean of H(y) and H(z).
        phone_entropy: H(y), nats.
        label_entropy: H(z), nats.
        phone_segment: mean length of a run of equal phones, seconds.
        label_segment: mean length of a run of equal labels, seconds.
        phones: different phones.
        labels: different labels.
        frames: compared.
        difference: frames by which the sequences' lengths differed, which were not compared.
        utterances: compared.
    """

    phone_purity: float
    cluster_purity: float
    pnmi: float
    nmi: float
    phone_entropy: float
    label_entropy: float
    phone_segment: float
    label_segment: float
    phones: int
    labels: int
    frames: int
    difference: int
    utterances: int


def joint_quality(counts: np.ndarray) -> dict[str, float]:
    """Purities, entropies (nats) and mutual information of `(Y, Z)` counts of phones and labels."""
    total = counts.sum()
    joint = counts / total
    phones, labels = joint.sum(axis=1), joint.sum(axis=0)
    entropies = [_entropy(phones), _entropy(labels)]
    information = max(0.0, sum(entropies) - _entropy(joint))
    mean = sum(entropies) / 2
    return {
        "phone_purity": int(counts.max(axis=0).sum()) / int(total),
        "cluster_purity": int(counts.max(axis=1).sum()) / int(total),
        "pnmi": information / entropies[0] if entropies[0] > 0 else 0.0,
        "nmi": information / mean if mean > 0 else 0.0,
        "phone_entropy": entropies[0],
        "label_entropy": entropies[1],
    }


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def at_labels(values: np.ndarray, rate: float, count: int, label_rate: float, offset: float) -> np.ndarray:
    """The values that are in force in the middle of each label.

    Args:
        values: `(N,)`, value n holding from n / rate to (n + 1) / rate seconds.
        rate: values a second.
        count: labels.
        label_rate: labels a second.
        offset: seconds to the middle of the first label.

    Returns:
        `(M,)` with M <= count: labels beyond the last value get none.
    """
    middles = offset + np.arange(count) / label_rate
    index = np.floor(middles * rate + 1e-6).astype(np.int64)
    return values[index[index < len(values)]]


def measure(labels: Track, phones: Track) -> Quality:
    """Compares labels with phones, the phones brought to the labels' rate.

    Raises:
        InputError: utterances that only one of them has, or lengths that do not fit together.
    """
    _check(labels, phones)
    pairs, longer = [], 0
    for utterance, row in labels.rows.items():
        spoken = np.array(phones.rows[utterance], dtype=object)
        heard = at_labels(spoken, phones.rate, len(row), labels.rate, labels.offset)
        pairs.append((heard, np.array(row[: len(heard)], dtype=object)))
        longer += abs(len(row) - round(len(spoken) * labels.rate / phones.rate))
    heard, given = (np.concatenate(column) for column in zip(*pairs))
    if not len(heard):
        raise InputError(f"{labels.path}: not one label to compare")
    names, rows = np.unique(heard.astype(str), return_inverse=True)
    kinds, columns = np.unique(given.astype(str), return_inverse=True)
    counts = np.bincount(rows * len(kinds) + columns, minlength=len(names) * len(kinds))
    return Quality(
        **joint_quality(counts.reshape(len(names), len(kinds))),
        phone_segment=_mean_run(phones),
        label_segment=_mean_run(labels),
        phones=len(names),
        labels=len(kinds),
        frames=len(heard),
        difference=longer,
        utterances=len(pairs),
    )


def _check(labels: Track, phones: Track) -> None:
    for one, other in ((labels, phones), (phones, labels)):
        missing = sorted(one.rows.keys() - other.rows.keys())
        if missing:
            raise InputError(
                f"{other.path}: no row for {len(missing)} of the utterances of {one.path}: "
                f"{_some(missing)}; make both for the same set"
            )
    wrong = []
    for utterance, row in labels.rows.items():
        seconds, spoken = len(row) / labels.rate, len(phones.rows[utterance]) / phones.rate
        if abs(seconds - spoken) > MAX_DIFFERENCE:
            wrong.append(f"{utterance} {seconds:.2f} s and {spoken:.2f} s")
    if wrong:
        raise InputError(
            f"{labels.path}: {len(wrong)} utterance(s) of another length than in {phones.path}: "
            f"{_some(wrong)}; is the label rate right ({labels.rate:g} and {phones.rate:g} a second)?"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _mean_run(labels: Track) -> float:
    """Mean duration of a run of equal labels, seconds; runs end with their utterance."""
    runs = sum(1 + sum(a != b for a, b in zip(row, row[1:])) for row in labels.rows.values() if row)
    return sum(map(len, labels.rows.values())) / max(runs, 1) / labels.rate
