"""The systems that a recipe compares, read from its `conf/systems.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from speechkit.config import check_range, load_config
from speechkit.errors import InputError, UsageError, nearest
from speechkit.orderings import Ordering, read_ordering
from speechkit.system_variants import completed, repeated


@dataclass
class Decode:
    """One way of decoding, named `how` in results."""

    config: str
    """YAML of `speechkit decode`."""
    unit: Literal["word", "phone"] = "word"
    """What is scored, as `speechkit score --unit` says."""
    lexicon: str | None = None
    """Words and their spellings; None leaves the search unconstrained."""
    lm: str | None = None
    """ARPA language model, or the folder of a neural one; None for none."""
    bert: str | None = None
    """Folder of the BERT that rescores, or (without a slash) a name of Hugging Face's hub, or None."""
    text: str | None = None
    """Which text its language model or BERT has seen, for the report."""
    tune_on: str | None = None
    """Data set on which the config's grid is searched; never a test set."""
    needs: list[str] = field(default_factory=list)
    """Systems that it is left out without, such as the one that makes its BERT."""


@dataclass
class Tune:
    """A search on the dev set before a system is trained with its seeds."""

    grid: dict[str, list[Any]]
    """Option of the training YAML -> its values; each combination is trained once, with seed 0."""
    metric: str = "wer"
    """The dev value of the finished model that is best when lowest, such as cer or loss."""

    def __post_init__(self) -> None:
        if not self.grid or not all(self.grid.values()):
            raise ValueError("grid: needs at least one option, and each at least one value")


@dataclass
class System:
    """One trained model and the ways it is decoded."""

    title: str
    """A short description for the table."""
    like: str | None = None
    """System above this one that it is a variant of: what is not said here is as there, `paper` aside; its
    `options` come after those."""
    each: dict[str, list[str]] = field(default_factory=dict)
    """Words and their values: there is a system of each combination, and `{word}` in the name and in all
    that is said here stands for its value."""
    stage: Literal[4, 5] = 5
    """4: pre-training, which has a tokenizer only if it names one, and is not decoded; 5: training or
    fine-tuning."""
    train: str | None = None
    """YAML of `speechkit train`; None for a system that only decodes another's model, or runs `commands`."""
    options: list[str] = field(default_factory=list)
    """`key=value` overrides of that YAML."""
    tune: Tune | None = None
    """Options that are chosen on the dev set first."""
    init_encoder: str | None = None
    """System whose encoder of the same seed this one starts from."""
    commands: list[str] = field(default_factory=list)
    """Instead of `train`: lines that are run one after the other (by no shell), such as those that make the
    labels of the next pre-training."""
    train_sets: list[str] = field(default_factory=list)
    """Data directories to train on; empty takes the recipe's. A pattern stands for all that match it."""
    dev_set: str | None = None
    """Data directory to validate on, or a pattern; None takes the recipe's."""
    tokenizer: str | None = None
    """Tokenizer folder; None takes the recipe's."""
    cmvn: str | None = None
    """CMVN statistics, in which `{work}` and `{seed}` may stand; None takes the recipe's, `none` gives none,
    for an encoder that brings its own."""
    needs: list[str] = field(default_factory=list)
    """Systems that must be there first, with the same seed."""
    decodes: list[str] = field(default_factory=list)
    """Names from the recipe's `decodes`."""
    test_sets: list[str] = field(default_factory=list)
    """Those of the recipe's test sets that it is decoded on; empty takes all."""
    seeds: int | None = None
    """Number of seeds (1 ... n), which the command line can only lower; None takes the recipe's."""
    budgets: list[str] = field(default_factory=list)
    """Names from the recipe's `budgets`: there is a system of each, `<name>_<budget>`."""
    curve: str | None = None
    """The curve that it is a point of, in the report's table and picture over labelled speech; of a
    system with budgets its title."""
    minutes: float | None = None
    """Its labelled speech in minutes: where on the curve it lies."""
    against: str | None = None
    """System that the point is compared with: the same network from scratch, say."""
    units: str | None = None
    """What it puts out, for the report; None takes what its tokenizer is made of."""
    text: str | None = None
    """Which text a language model or a BERT inside it has seen, for the report."""
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    """Name from `decodes` -> test set's name -> the number that the paper gives."""

    def __post_init__(self) -> None:
        if self.commands and (self.train or self.tune or self.init_encoder):
            raise ValueError("commands stand instead of train, tune and init_encoder")
        if self.stage == 4 and self.decodes:
            raise ValueError("stage 4 trains nothing that can be decoded")
        if not self.train and not self.like and (self.tune or self.init_encoder):
            raise ValueError("tune and init_encoder need train")
        if (self.curve is None) != (self.minutes is None):
            raise ValueError("curve and minutes go together")
        if self.against is not None and self.curve is None and not self.budgets:
            raise ValueError("against compares a point of a curve: give budgets, or curve and minutes")
        if self.minutes is not None:
            check_range("minutes", self.minutes, 0.001)


@dataclass
class Systems:
    """A recipe's comparison.

    `{seed}` in options, commands, paths and decodes stands for the seed, `{budget}` in options and training
    sets for the budget's name, `{work}` in options and commands for the folder below which data and exp lie.
    """

    train_sets: list[str]
    """Data directories after formatting, such as dump/train."""
    dev_set: str
    """Where validation and early stopping look."""
    tokenizer: str
    """Tokenizer folder."""
    test_sets: list[str]
    """Data directories that are decoded and scored."""
    decodes: dict[str, Decode]
    systems: dict[str, System]
    cmvn: str | None = None
    """Global CMVN statistics, or None."""
    seeds: int = 1
    """Seeds per system unless a system or the command line says otherwise."""
    budgets: dict[str, float] = field(default_factory=dict)
    """Name of an amount of labelled speech -> its minutes."""
    baseline: str | None = None
    """`system/how` that the report compares every row with; None takes the first row of each set."""
    paper: str | None = None
    """What the paper's numbers are, such as `CER % of ... (2021), table 2`."""
    orderings: list[str] = field(default_factory=list)
    """What is expected: `system/how < system/how`, with `in far` behind it for a class of words. The report
    tests each."""
    more_orderings: list[str] = field(default_factory=list)
    """Further ones, for a file with a `base` whose orderings stay."""

    def __post_init__(self) -> None:
        self.systems = completed(repeated(self.systems))
        sets = [Path(path).name for path in self.test_sets]
        for how, decode in self.decodes.items():
            for need in decode.needs:
                if need not in self.systems:
                    raise ValueError(
                        f"decodes.{how}.needs: no system '{need}'{nearest(need, list(self.systems))}"
                    )
        for name, system in self.systems.items():
            named = [("decodes", how, self.decodes) for how in system.decodes]
            named += [("test_sets", path, self.test_sets) for path in system.test_sets]
            named += [("budgets", budget, self.budgets) for budget in system.budgets]
            named += [("needs", need, self.systems) for need in system.needs]
            named += [("init_encoder", system.init_encoder, self.systems)] if system.init_encoder else []
            named += [("against", system.against, self.systems)] if system.against else []
            named += [("paper", how, system.decodes) for how in system.paper]
            named += [("paper", name, sets) for numbers in system.paper.values() for name in numbers]
            for key, value, known in named:
                if value not in known:
                    words = {"decodes": "decode", "budgets": "budget", "test_sets": "test set"}
                    what = {**words, "paper": "decode or test set"}.get(key, "system")
                    raise ValueError(
                        f"systems.{name}.{key}: no {what} '{value}'{nearest(value, list(known))}"
                    )
        self._check_orderings()

    def _check_orderings(self) -> None:
        rows = [f"{name}/{how}" for name, system in self.systems.items() for how in system.decodes]
        for ordering in self.expected():
            for row in (ordering.first, ordering.second):
                if row not in rows:
                    raise ValueError(f"orderings: '{ordering.claim}': no row '{row}'{nearest(row, rows)}")

    def expected(self) -> list[Ordering]:
        """The orderings, read."""
        return [*map(read_ordering, [*self.orderings, *self.more_orderings])]


def read_systems(path: str | Path, work: str | Path = ".") -> Systems:
    """Reads `conf/systems.yaml`.

    Args:
        path: the file.
        work: folder that its data paths (sets, tokenizers, lexicons, models of language) are relative to.

    Raises:
        InputError: names the line of what is wrong.
    """
    return _below(_spread(load_config(Systems, path)), Path(work))


def _spread(systems: Systems) -> Systems:
    """The same with a system for each budget in the place of those that have several."""

    def of(name: str | None, budget: str) -> str | None:
        return f"{name}_{budget}" if name and systems.systems[name].budgets else name

    spread = {}
    for name, system in systems.systems.items():
        for budget in system.budgets:
            spread[f"{name}_{budget}"] = replace(
                system,
                title=f"{system.title}, {budget}",
                budgets=[],
                curve=system.title,
                minutes=systems.budgets[budget],
                train_sets=[path.replace("{budget}", budget) for path in system.train_sets],
                options=[option.replace("{budget}", budget) for option in system.options],
                needs=[of(need, budget) for need in system.needs],
                init_encoder=of(system.init_encoder, budget),
                against=of(system.against, budget),
            )
        if not system.budgets:
            spread[name] = system
    try:
        return replace(systems, systems=spread)
    except ValueError as error:
        raise InputError(f"{error}; a system with budgets needs those of the same budget") from None


def _below(systems: Systems, work: Path) -> Systems:
    """The same with every data path below a folder; configurations stay where they are."""

    def move(path: str | None) -> str | None:
        return path and str(work / path)

    def hub_or(path: str | None) -> str | None:
        return move(path) if path and "/" in path else path

    def fill(lines: list[str]) -> list[str]:
        return [line.replace("{work}", str(work)) for line in lines]

    decodes = {
        name: replace(d, lexicon=move(d.lexicon), lm=move(d.lm), bert=hub_or(d.bert), tune_on=move(d.tune_on))
        for name, d in systems.decodes.items()
    }
    moved = {
        name: replace(
            s,
            train_sets=[*map(move, s.train_sets)],
            test_sets=[*map(move, s.test_sets)],
            dev_set=move(s.dev_set),
            tokenizer=move(s.tokenizer),
            cmvn=fill([s.cmvn])[0] if s.cmvn else None,
            options=fill(s.options),
            commands=fill(s.commands),
        )
        for name, s in systems.systems.items()
    }
    return replace(
        systems,
        decodes=decodes,
        systems=moved,
        train_sets=[*map(move, systems.train_sets)],
        dev_set=move(systems.dev_set),
        test_sets=[*map(move, systems.test_sets)],
        tokenizer=move(systems.tokenizer),
        cmvn=move(systems.cmvn),
    )


def select(systems: Systems, methods: str | None) -> dict[str, System]:
    """The systems that a comma-separated list of names and patterns (`ssl_*`) means, in the file's order."""
    if not methods or methods == "all":
        return systems.systems
    patterns = methods.split(",")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in systems.systems):
            raise UsageError(f"--methods: no system '{pattern}'{nearest(pattern, list(systems.systems))}")
    return {
        name: system
        for name, system in systems.systems.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
