"""Decoding: what ties a trained model, a search and a data directory together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from speechkit.config import check_range, from_dict, kind, to_dict
from speechkit.errors import ProblemsError

SEARCHES = {
    "attention_beam": "speechkit.decoding.attention_beam",
    "ctc_greedy": "speechkit.decoding.ctc_greedy",
    "ctc_beam": "speechkit.decoding.ctc_beam",
    "fused": "speechkit.decoding.fused",
    "mask_predict": "speechkit.decoding.mask_predict",
    "rescore": "speechkit.decoding.rescore",
    "transducer_beam": "speechkit.decoding.transducer_beam",
    "transducer_greedy": "speechkit.decoding.transducer_greedy",
}
"""Search name -> module with `Config` and `build(config, resources) -> Searcher`."""


@dataclass
class DecodeConfig:
    """How a model's outputs become text."""

    search: object = kind(SEARCHES, "ctc_greedy")
    """The search and its options."""
    seconds: float = 200.0
    """Audio per batch, seconds, padding included."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Search options to tune, each with the values to try; needs --tune-on."""
    tune_utterances: int | None = None
    """Tune on that many utterances, evenly spread over the tuning set; None takes all."""
    tune_by: str = "words"
    """What the best options err in least: words, or characters (without spaces: for Chinese and its like)."""
    precision: str = "fp32"
    """fp32 or bf16 (autocast)."""

    def __post_init__(self) -> None:
        check_range("seconds", self.seconds, 1)
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision} must be fp32 or bf16")
        if self.tune_by not in ("words", "characters"):
            raise ValueError(f"tune_by={self.tune_by} must be words or characters")
        for key, values in self.grid.items():
            if not hasattr(self.search, key):
                raise ValueError(f"grid.{key}: the search {self.search.name} has no such option")
            if not values:
                raise ValueError(f"grid.{key}: no values to try")
        self.grid = {key: [self._option(key, value) for value in values] for key, values in self.grid.items()}

    def _option(self, key: str, value: Any) -> Any:
        """A value to try, of the option's type: 1 is a weight of 1.0, and 1.5 no beam."""
        try:
            return getattr(from_dict(type(self.search), to_dict(self.search) | {key: value}), key)
        except ProblemsError as error:
            raise ValueError(f"grid.{error.problems[0].message}") from None
