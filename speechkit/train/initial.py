"""Starting from weights of other checkpoints, with an account of every parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from speechkit.errors import InputError
from speechkit.train.checkpoint import load_weights


@dataclass
class Config:
    """Initial weights."""

    params: list[str] = field(default_factory=list)
    """`source:source_prefix:prefix` each: a checkpoint folder or .safetensors file, the names to take there,
    and what replaces the prefix here; empty prefixes take everything."""
    allow: list[str] = field(default_factory=list)
    """Globs of names that may be missing, unexpected or of another shape; anything else is an error."""


@dataclass
class Report:
    """What became of every name."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shape: list[str] = field(default_factory=list)

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
def load_initial(model: nn.Module, config: Config) -> list[tuple[str, Report]]:
    """Copies weights into a model.

    Args:
        model: what is initialised.
        config: from where.

    Returns:
        Each rule with its report.

    Raises:
        InputError: a name is missing, unexpected, or of another shape, and not on the allow-list.
    """
    own = model.state_dict()
    reports = []
    for rule in config.params:
        path, source, target = _split(rule)
        report = _load(own, load_weights(path), source, target)
        wrong = [
            f"{name} ({kind})"
            for kind in ("missing", "unexpected", "shape")
            for name in getattr(report, kind)
            if not any(fnmatchcase(name.split(":")[0], pattern) for pattern in config.allow)
        ]
        if wrong or not report.loaded:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            what = ", ".join(wrong[:5]) + more if wrong else "nothing fits"
            raise InputError(f"init.params: '{rule}': {what}; list what may differ in init.allow")
        reports.append((rule, report))
    return reports


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
