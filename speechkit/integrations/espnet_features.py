"""What turns a waveform into the features of a model of ESPnet, in our terms.

Names and defaults: ESPnet 202511, espnet2/asr/frontend/default.py and espnet2/layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechkit.errors import InputError

Values = dict[str, Any]

NAMED = {"n_fft": "fft", "win_length": "window", "hop_length": "shift", "n_mels": "bins", "htk": "htk"}
NAMED |= {"fmin": "low_freq", "fmax": "high_freq"}
"""Options of ESPnet's log-mels -> ours."""

ONLY = {"window": "hann", "center": True, "normalized": False, "onesided": True, "apply_stft": True}
ONLY |= {"frontend_conf": None, "multi_channel": False}
"""Options that ours have no choice of."""


def feature_values(whole: Mapping[str, Any]) -> tuple[Values | None, int | None, str | None]:
    """What turns a waveform into the features of a model.

    Args:
        whole: ESPnet's config.yaml.

    Returns:
        Values of our `features`, or None where they are not ours to make; their number, or None where it is
        not said; and a remark.

    Raises:
        InputError: a frontend that is a network of its own.
    """
    for part in ("preencoder", "postencoder"):
        if whole.get(part):
            raise InputError(f"{part}={whole[part]}: is not supported")
    size, normalise = whole.get("input_size"), _normalisation(whole)
    if size is not None:
        if size == 80 and normalise != "mean":
            said = "80 features from outside are taken to be Kaldi's log-mels"
            return {"name": "fbank", "normalise": normalise}, 80, said
        return None, size, f"its {size} features came from outside: dump the same for decoding"
    if whole.get("frontend", "default") != "default":
        raise InputError(f"frontend={whole['frontend']}: is not supported; log-mel features are")
    conf = dict(whole.get("frontend_conf") or {})
    rate = _hertz(conf.pop("fs", 16000))
    odd = [f"{k}={v}" for k, v in conf.items() if k not in NAMED and (k not in ONLY or v != ONLY[k])]
    if odd:
        raise InputError(f"frontend_conf with {', '.join(odd)}: is not supported")
    values = {ours: conf[theirs] for theirs, ours in NAMED.items() if conf.get(theirs) is not None}
    for edge in ("low_freq", "high_freq"):
        values |= {edge: float(values[edge])} if edge in values else {}
    return {"name": "logmel", "rate": rate, "normalise": normalise, **values}, values.get("bins", 80), None


def _normalisation(whole: Mapping[str, Any]) -> str:
    """Of each utterance."""
    if whole.get("normalize") != "utterance_mvn":
        return "none"
    conf = whole.get("normalize_conf") or {}
    if not conf.get("norm_means", True):
        raise InputError("utterance_mvn with norm_means=false: is not supported")
    return "utterance" if conf.get("norm_vars", False) else "mean"


def _hertz(rate: Any) -> int:
    """`16k` or a number."""
    text = str(rate).strip().lower()
    try:
        return round(float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1))
    except ValueError:
        raise InputError(f"frontend_conf: fs={rate} is no sampling rate") from None
