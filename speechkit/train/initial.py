"""Starting from weights of other checkpoints, with an account of every parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from speechkit.errors import InputError
from speechkit.layers.adapters import ADAPTER_NAMES
from speechkit.text.tokenizer import Tokenizer, load_tokenizer
from speechkit.train.checkpoint import find_checkpoint, load_weights


@dataclass
class Config:
    """Initial weights."""

    params: list[str] = field(default_factory=list)
    """`source:source_prefix:prefix` each: a checkpoint folder or .safetensors file, the names to take there,
    and what replaces the prefix here; empty prefixes take everything."""
    allow: list[str] = field(default_factory=list)
    """Globs of names that may be missing, unexpected or of another shape; anything else is an error. Also
    `model.encoder.<option>`, `features.<option>` and `cmvn` that may differ from those of `encoder`."""
    encoder: str | None = None
    """Checkpoint or experiment folder that the encoder is taken from: the weights, and, below the YAML file
    and the command line, `model.encoder` and `features` (`--init-encoder` sets this)."""


@dataclass
class Report:
    """What became of every name."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shape: list[str] = field(default_factory=list)

    @property
    def shape_names(self) -> list[str]:
        """The names of `shape` without the shapes."""
        return [text.split(":")[0] for text in self.shape]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} loaded"]
        for kind in ("missing", "unexpected", "shape"):
            names = getattr(self, kind)
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            parts.append(f"{len(names)} {kind}" + (f" ({shown})" if names else ""))
        return "; ".join(parts)


def _split(rule: str) -> tuple[Path, str, str]:
    parts = rule.rsplit(":", 2)
    if len(parts) != 3 or not parts[0]:
        raise InputError(f"init.params: '{rule}': expected source:source_prefix:prefix")
    path = Path(parts[0])
    return (path / "model.safetensors" if path.is_dir() else path), parts[1], parts[2]


@torch.no_grad()
def load_initial(
    model: nn.Module, config: Config, tokenizer: Tokenizer | None = None
) -> list[tuple[str, Report]]:
    """Copies weights into a model.

    Args:
        model: what is initialised.
        config: from where.
        tokenizer: of the model, which an output layer that is taken over must agree with.

    Returns:
        Each source with its report.

    Raises:
        InputError: a name is missing, unexpected, or of another shape, and not on the allow-list; or the
            output layer is for other tokens.
    """
    own = model.state_dict()
    reports = []
    if config.encoder is not None:
        folder = find_checkpoint(Path(config.encoder))
        averaged = folder / "ema.safetensors"
        path = averaged if averaged.exists() else folder / "model.safetensors"
        report = _load(own, load_weights(path), "encoder.", "encoder.")
        _check(f"init.encoder: {folder}", report, config.allow, may_miss=ADAPTER_NAMES)
        reports.append((f"encoder from {folder}", report))
    for rule in config.params:
        path, source, target = _split(rule)
        report = _load(own, load_weights(path), source, target)
        if tokenizer is not None and "head.weight" in [*report.loaded, *report.shape_names]:
            _check_tokens(f"init.params: '{rule}'", path.parent / "assets" / "tokenizer", tokenizer)
        _check(f"init.params: '{rule}'", report, config.allow)
        reports.append((rule, report))
    return reports


def _check(what: str, report: Report, allow: list[str], may_miss: Sequence[str] = ()) -> None:
    """Raises InputError for what is on no list: new adapters may be missing, trained ones not left out."""
    wrong = [
        f"{name} ({kind})"
        for kind in ("missing", "unexpected", "shape")
        for name in getattr(report, kind)
        for patterns in ([*allow, *may_miss] if kind == "missing" else allow,)
        if not any(fnmatchcase(name.split(":")[0], pattern) for pattern in patterns)
    ]
    if wrong or not report.loaded:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        shown = ", ".join(wrong[:5]) + more if wrong else "nothing fits"
        raise InputError(f"{what}: {shown}; list what may differ in init.allow")


def _check_tokens(what: str, folder: Path, tokenizer: Tokenizer) -> None:
    """Refuses the output layer of a checkpoint that knows other tokens, or these in another order."""
    if not folder.exists():
        return
    there, here = load_tokenizer(folder).vocab, tokenizer.vocab
    if there != here:
        row = next(
            (i for i, pair in enumerate(zip(there, here)) if pair[0] != pair[1]), min(len(there), len(here))
        )
        pair = " and ".join(repr(v[row]) if row < len(v) else "nothing" for v in (there, here))
        raise InputError(
            f"{what}: its output layer is for {len(there)} other tokens than these {len(here)} (row {row} is "
            f"{pair}); use its tokenizer ({folder}), or take the encoder alone with --init-encoder"
        )


def _load(own: dict[str, Tensor], weights: dict[str, Tensor], source: str, target: str) -> Report:
    """Copies under the prefixes; names in the report are the model's, or the file's when unexpected."""
    report = Report()
    for name, value in own.items():
        if not name.startswith(target):
            continue
        found = weights.get(source + name[len(target) :])
        if found is None:
            report.missing.append(name)
        elif found.shape != value.shape:
            report.shape.append(f"{name}: {tuple(found.shape)} for {tuple(value.shape)}")
        else:
            value.copy_(found)
            report.loaded.append(name)
    report.unexpected += [n for n in weights if n.startswith(source) and target + n[len(source) :] not in own]
    return report
