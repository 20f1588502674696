"""What a recipe's systems ask to be run: restartable commands, in the order of what they need."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from glob import glob
from itertools import product
from pathlib import Path

from speechkit.errors import InputError
from speechkit.files import read_json, write_json
from speechkit.systems import System, Systems

ON_THIS_HOST = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1")
"""torchrun's --standalone without a lookup of the name localhost, which containers may lack."""
TUNING_SEED = 0


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


def train_jobs(
    systems: Systems,
    chosen: dict[str, System],
    seeds: int | None,
    exp: Path,
    processes: int = 1,
    stage: int = 5,
) -> list[Job]:
    """One job for each system of the stage and seed that has something to train, each of so many processes.

    A system of commands has a job a command, each needing the one before.
    """
    jobs = []
    for name, system in chosen.items():
        if system.stage != stage:
            continue
        for seed in _seeds(systems, system, seeds):
            label, folder = f"{name}/seed{seed}", exp / name / f"seed{seed}"
            needs = tuple(f"{need}/seed{seed}" for need in _needs(system) if need in chosen)
            if system.train:
                options = [*system.options, *(_chosen(exp / name) if system.tune else [])]
                command = _train_command(systems, system, exp, folder, processes)
                command = _filled([*command, f"seed={seed}", *options], seed)
                jobs.append(Job(label, command, folder / "train.log", needs))
            elif system.commands:
                jobs += _command_jobs(system.commands, label, folder, seed, needs)
    return jobs


def _needs(system: System) -> list[str]:
    return [*system.needs, *([system.init_encoder] if system.init_encoder else [])]


def _train_command(systems: Systems, system: System, exp: Path, folder: Path, processes: int) -> list[str]:
    command = ["speechkit"]
    if processes > 1:
        command = ["torchrun", *ON_THIS_HOST, "--nproc-per-node", str(processes), "-m", "speechkit.bin"]
    command += ["train", "--config", system.train]
    command += ["--train", *_there(system.train_sets or systems.train_sets)]
    command += ["--dev", *_there([system.dev_set or systems.dev_set])]
    if system.stage == 5 or system.tokenizer:
        command += ["--tokenizer", system.tokenizer or systems.tokenizer]
    command += ["--exp", str(folder)]
    cmvn = system.cmvn or systems.cmvn
    command += ["--cmvn", cmvn] if cmvn not in (None, "none") else []
    if system.init_encoder:
        command += ["--init-encoder", str(exp / system.init_encoder / "seed{seed}")]
    return command


def _there(sets: list[str]) -> list[str]:
    """Data directories, patterns replaced by what matches them now; one without a match stays."""
    return [path for pattern in sets for path in (sorted(glob(pattern)) or [pattern])]


def _command_jobs(
    commands: list[str], label: str, folder: Path, seed: int, needs: tuple[str, ...]
) -> list[Job]:
    """The last job bears the system's name, so that others can need it."""
    jobs = []
    for number, line in enumerate(commands, 1):
        name = label if number == len(commands) else f"{label}/{number}"
        log = folder / "log" / f"command_{number}.log"
        jobs.append(Job(name, _filled(shlex.split(line), seed), log, needs))
        needs = (name,)
    return jobs


def _filled(words: list[str], seed: int) -> list[str]:
    return [word.replace("{seed}", str(seed)) for word in words]


# ---- options chosen on the dev set --------------------------------------------------------------------


def tune_jobs(systems: Systems, chosen: dict[str, System], exp: Path, processes: int = 1) -> list[Job]:
    """One training for each combination of a tuned system's grid, of a seed that no result has."""
    jobs = []
    for name, system in chosen.items():
        for options, folder in _trials(system, exp / name):
            command = _train_command(systems, system, exp, folder, processes)
            # What it starts from has no such seed: the first one's serves.
            command = _filled([*command, f"seed={TUNING_SEED}", *system.options, *options], 1)
            needs = tuple(f"{need}/seed1" for need in _needs(system) if need in chosen)
            jobs.append(Job(f"{name}/tune/{folder.name}", command, folder / "train.log", needs))
    return jobs


def _trials(system: System, folder: Path) -> list[tuple[list[str], Path]]:
    """The options and the folder of each combination."""
    if system.tune is None:
        return []
    grid = [[f"{key}={value}" for value in values] for key, values in system.tune.grid.items()]
    return [([*options], folder / "tune" / ",".join(options)) for options in product(*grid)]


def choose_options(systems: Systems, chosen: dict[str, System], exp: Path) -> None:
    """Writes `tuned.json` of every tuned system: each trial's dev value, and the options of the lowest.

    Raises:
        InputError: a trial is not finished, or its dev values lack the metric.
    """
    for name, system in chosen.items():
        if system.tune is None:
            continue
        metric, rows = system.tune.metric, []
        for options, folder in _trials(system, exp / name):
            dev = read_json(folder / "final" / "run.json")["dev"]
            if metric not in dev:
                raise InputError(
                    f"{folder}/final/run.json: no dev value '{metric}'; there are: {', '.join(dev)}"
                )
            rows.append({"options": options, metric: dev[metric]})
        best = min(rows, key=lambda row: row[metric])
        record = {"set": system.dev_set or systems.dev_set, "seed": TUNING_SEED, "metric": metric}
        write_json(exp / name / "tuned.json", {**record, "trials": rows, "chosen": best["options"]})


def _chosen(folder: Path) -> list[str]:
    path = folder / "tuned.json"
    return read_json(path)["chosen"] if path.exists() else ["<chosen on the dev set>"]


# ---- decoding and scoring -----------------------------------------------------------------------------


def decode_jobs(systems: Systems, chosen: dict[str, System], seeds: int | None, exp: Path) -> list[Job]:
    """One job for each system, seed and way of decoding; it covers all of the system's test sets."""
    jobs = []
    for name, system in chosen.items():
        for seed in _seeds(systems, system, seeds):
            folder = exp / name / f"seed{seed}"
            for how in _decodes(systems, system, chosen):
                decode = systems.decodes[how]
                command = ["speechkit", "decode", "--model", str(folder), "--how", how]
                sets = system.test_sets or systems.test_sets
                command += ["--config", decode.config, "--data", *sets]
                for option in ("lexicon", "lm", "bert", "tune_on"):
                    if getattr(decode, option):
                        command += [f"--{option.replace('_', '-')}", getattr(decode, option)]
                log = folder / "log" / f"decode_{how}.log"
                label = f"{name}/seed{seed}/{how}"
                jobs.append(Job(label, _filled(command, seed), log, runner="decode_cmd"))
    return jobs


def score_jobs(systems: Systems, chosen: dict[str, System], seeds: int | None, exp: Path) -> list[Job]:
    """One job for each test set and unit; InputError when a decode is missing."""
    folders: dict[tuple[str, str], list[str]] = {}
    for name, system in chosen.items():
        runs = product(system.test_sets or systems.test_sets, _seeds(systems, system, seeds))
        for (data, seed), how in product(runs, _decodes(systems, system, chosen)):
            folder = exp / name / f"seed{seed}" / f"decode_{Path(data).name}_{how}"
            if not (folder / "text").exists():
                raise InputError(f"{folder}/text: no such file; run stage 6 for '{name}' first")
            folders.setdefault((data, systems.decodes[how].unit), []).append(str(folder))
    jobs = []
    for (data, unit), decodes in sorted(folders.items(), key=lambda row: systems.test_sets.index(row[0][0])):
        command = ["speechkit", "score", "--data", data, *decodes]
        command += ["--unit", unit] if unit != "word" else []
        log = exp / "log" / f"score_{Path(data).name}.log"
        jobs.append(Job(f"score {data} by {unit}s", command, log, runner="decode_cmd"))
    return jobs


def _decodes(systems: Systems, system: System, chosen: dict[str, System]) -> list[str]:
    """Ways of decoding, without those that need a system that is not chosen."""
    return [how for how in system.decodes if set(systems.decodes[how].needs) <= set(chosen)]


def _seeds(systems: Systems, system: System, seeds: int | None) -> range:
    own = system.seeds or seeds or systems.seeds
    return range(1, (min(seeds, own) if seeds else own) + 1)
