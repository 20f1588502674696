"""Systems with a CTC and a cross-entropy output: the text of the one that is surer of itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.fusion import confidence
from speechkit.search.fused_outputs import FusedOutputs, Output
from speechkit.search.hypothesis import Hypothesis


@dataclass
class Config(confidence.Config):
    """Which output is kept of each utterance."""

    name: str = "fused"
    """The search's kind."""
    head: str = "ctc"
    """A head that the model must have; the outputs that are compared are `ctc2` (or `hpos`) and `ce`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.select == "oracle":
            raise ValueError(
                "select=oracle needs the references; see the oracle error rate of the N-best list"
            )


class Fused:
    """Greedy readings of all outputs, the kept one first; last, for comparison, that of the first CTC."""

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.lexicon_path or resources.lm_path:
            raise InputError("the search fused takes neither --lexicon nor --lm; use search.name=ctc_beam")
        resources.refuse_bert(config.name)
        units = getattr(resources.model, "units", None)
        if units is None:
            raise InputError(
                "search.name=fused: the model has no linguistic output; use ctc_greedy or ctc_beam"
            )
        self.reader = FusedOutputs(config, units)

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        outputs = {
            name: replace(output, confidences=output.confidences.cpu())  # once, not utterance by utterance
            for name, output in self.reader.outputs(heads).items()
        }
        kept = self.reader.keeps_ce(outputs).tolist()
        names, before = list(outputs), self.reader.first(heads)
        found = []
        for i, ce in enumerate(kept):
            order = sorted(names, key=lambda name: (name == self.reader.ce) != ce)
            nbest = [self._hypothesis(name, outputs[name], i) for name in order]
            if before is not None:
                nbest.append(replace(self._hypothesis("ctc", before, i), candidate=False))
            found.append(nbest)
        return found

    def _hypothesis(self, name: str, output: Output, i: int) -> Hypothesis:
        score = float(output.confidences[i])
        words = output.texts[i].split()
        return Hypothesis(output.ids[i], words, score, ctc=0.0, lm=0.0, source=name)

    def text(self, hypothesis: Hypothesis) -> str:
        """The words of the output it came from."""
        return " ".join(hypothesis.words)


def build(config: Config, resources: Resources) -> Fused:
    """The search for a model."""
    return Fused(config, resources)
