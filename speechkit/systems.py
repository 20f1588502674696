"""The systems that a recipe compares, read from its `conf/systems.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from speechkit.config import load_config
from speechkit.errors import InputError, UsageError, nearest

ON_THIS_HOST = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1")
"""torchrun's --standalone without a lookup of the name localhost, which containers may lack."""


@dataclass
class Decode:
    """One way of decoding, named `how` in results."""

    config: str
    """YAML of `speechkit decode`."""
    lexicon: str | None = None
    """Words and their spellings; None leaves the search unconstrained."""
    lm: str | None = None
    """ARPA language model, or None."""
    tune_on: str | None = None
    """Data set on which the config's grid is searched; never a test set."""


@dataclass
class System:
    """One trained model and the ways it is decoded."""

    title: str
    """A short description for the table."""
    train: str | None = None
    """YAML of `speechkit train`; None for a system that only decodes another's model."""
    options: list[str] = field(default_factory=list)
    """`key=value` overrides of that YAML."""
    train_sets: list[str] = field(default_factory=list)
    """Data directories to train on; empty takes the recipe's."""
    tokenizer: str | None = None
    """Tokenizer folder; None takes the recipe's."""
    needs: list[str] = field(default_factory=list)
    """Systems that must be trained first."""
    decodes: list[str] = field(default_factory=list)
    """Names from the recipe's `decodes`."""
    seeds: int | None = None
    """Number of seeds (1 ... n); None takes the recipe's."""


@dataclass
class Systems:
    """A recipe's comparison."""

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
    baseline: str | None = None
    """`system/how` that the report compares every row with; None takes the first row."""

    def __post_init__(self) -> None:
        for name, system in self.systems.items():
            for how in system.decodes:
                if how not in self.decodes:
                    raise ValueError(
                        f"systems.{name}.decodes: no decode '{how}'{nearest(how, list(self.decodes))}"
                    )
            for need in system.needs:
                if need not in self.systems:
                    raise ValueError(
                        f"systems.{name}.needs: no system '{need}'{nearest(need, list(self.systems))}"
                    )


@dataclass(frozen=True)
class Job:
    """One restartable command.

    Attributes:
        name: what messages call it.
        command: argv.
        log: where its output goes.
        needs: names of jobs that must have succeeded.
        runner: name of the environment variable (of cmd.sh) that says where it runs.
    """

    name: str
    command: list[str]
    log: Path
    needs: tuple[str, ...] = ()
    runner: str = "train_cmd"


def read_systems(path: str | Path, work: str | Path = ".") -> Systems:
    """Reads `conf/systems.yaml`.

    Args:
        path: the file.
        work: folder that its data paths (sets, tokenizers, lexicons, models of language) are relative to.

    Raises:
        InputError: names the line of what is wrong.
    """
    systems = load_config(Systems, path)
    return systems if Path(work) == Path(".") else _below(systems, Path(work))


def _below(systems: Systems, work: Path) -> Systems:
    """The same with every data path below a folder; configurations stay where they are."""

    def move(path: str | None) -> str | None:
        return path and str(work / path)

    decodes = {
        name: replace(d, lexicon=move(d.lexicon), lm=move(d.lm), tune_on=move(d.tune_on))
        for name, d in systems.decodes.items()
    }
    moved = {
        name: replace(s, train_sets=[*map(move, s.train_sets)], tokenizer=move(s.tokenizer))
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
    """The systems named in a comma-separated list, or all, in the file's order."""
    if not methods or methods == "all":
        return systems.systems
    names = methods.split(",")
    for name in names:
        if name not in systems.systems:
            raise UsageError(f"--methods: no system '{name}'{nearest(name, list(systems.systems))}")
    return {name: system for name, system in systems.systems.items() if name in names}


def train_jobs(
    systems: Systems, chosen: dict[str, System], seeds: int | None, exp: Path, processes: int = 1
) -> list[Job]:
    """One job for each system and seed that has something to train, each of so many processes."""
    jobs, start = [], ["speechkit"]
    if processes > 1:
        start = ["torchrun", *ON_THIS_HOST, "--nproc-per-node", str(processes), "-m", "speechkit.bin"]
    for name, system in chosen.items():
        if system.train is None:
            continue
        for seed in _seeds(systems, system, seeds):
            folder = exp / name / f"seed{seed}"
            command = [*start, "train", "--config", system.train]
            command += ["--train", *(system.train_sets or systems.train_sets), "--dev", systems.dev_set]
            command += ["--tokenizer", system.tokenizer or systems.tokenizer, "--exp", str(folder)]
            command += ["--cmvn", systems.cmvn] if systems.cmvn else []
            needs = tuple(f"{need}/seed{seed}" for need in system.needs if need in chosen)
            jobs.append(
                Job(
                    f"{name}/seed{seed}",
                    [*command, f"seed={seed}", *system.options],
                    folder / "train.log",
                    needs,
                )
            )
    return jobs


def decode_jobs(systems: Systems, chosen: dict[str, System], seeds: int | None, exp: Path) -> list[Job]:
    """One job for each system, seed and way of decoding; it covers all test sets."""
    jobs = []
    for name, system in chosen.items():
        for seed in _seeds(systems, system, seeds):
            folder = exp / name / f"seed{seed}"
            for how in system.decodes:
                decode = systems.decodes[how]
                command = [
                    "speechkit",
                    "decode",
                    "--model",
                    str(folder),
                    "--how",
                    how,
                    "--config",
                    decode.config,
                ]
                command += ["--data", *systems.test_sets]
                for option in ("lexicon", "lm", "tune_on"):
                    if getattr(decode, option):
                        command += [f"--{option.replace('_', '-')}", getattr(decode, option)]
                log = folder / "log" / f"decode_{how}.log"
                jobs.append(Job(f"{name}/seed{seed}/{how}", command, log, runner="decode_cmd"))
    return jobs


def score_jobs(systems: Systems, chosen: dict[str, System], seeds: int | None, exp: Path) -> list[Job]:
    """One job for each test set; InputError when a decode is missing."""
    jobs = []
    for data in systems.test_sets:
        folders = []
        for name, system in chosen.items():
            for seed in _seeds(systems, system, seeds):
                for how in system.decodes:
                    folder = exp / name / f"seed{seed}" / f"decode_{Path(data).name}_{how}"
                    if not (folder / "text").exists():
                        raise InputError(f"{folder}/text: no such file; run stage 6 for '{name}' first")
                    folders.append(str(folder))
        if folders:
            command = ["speechkit", "score", "--data", data, *folders]
            jobs.append(
                Job(
                    f"score {data}",
                    command,
                    exp / "log" / f"score_{Path(data).name}.log",
                    runner="decode_cmd",
                )
            )
    return jobs


def _seeds(systems: Systems, system: System, seeds: int | None) -> range:
    return range(1, (seeds or system.seeds or systems.seeds) + 1)
