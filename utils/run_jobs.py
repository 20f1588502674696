"""What the job runners share: Kaldi's calling convention, and running one job with its log.

    runner [options] [JOB=first:last] log/name.JOB.log command [arguments ...]

`JOB` (any identifier) is replaced by the job's number in the log's name and in every argument. The arguments
are passed to the program as they are: no shell ever reads them again. A lone `|` argument (written `\\|` in
a recipe) makes a pipeline of programs, as with Kaldi's run.pl; other shell syntax has to be asked for:
`bash -c '... > file'`. Standard library only, so that the runners work before and outside the environment.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

SHELL_WORDS = {">", ">>", "<", "<<", "2>", "2>&1", "&>", "&", "&&", "||", ";"}
WITHOUT_VALUE = {"-V"}
TWO_VALUES = {"-pe"}


class CommandLineError(Exception):
    """A command line that cannot be understood: exit status 2."""


@dataclass(frozen=True)
class Jobs:
    """One call of a runner.

    Args:
        options: `--mem 4G` as {"mem": "4G"}; dashes inside a name become underscores.
        extra: single-dash options with their values, for a queue's own submit command.
        name: the identifier to replace, usually JOB; empty when there is a single job without one.
        first: number of the first job.
        last: number of the last job.
        log: the log's path, with `name` in it.
        argv: the command with its arguments, with `name` in them.
    """

    options: dict[str, str]
    extra: list[str]
    name: str
    first: int
    last: int
    log: str
    argv: list[str]

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)

    def fill(self, text: str, number: int) -> str:
        return text.replace(self.name, str(number)) if self.name else text

    def log_of(self, number: int) -> str:
        return self.fill(self.log, number)

    def integer(self, option: str, default: int, least: int = 1) -> int:
        """The option's value; raises CommandLineError when it is no integer or below `least`."""
        value = self.options.get(option, str(default))
        if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
            raise CommandLineError(
                f"--{option.replace('_', '-')} must be an integer >= {least}, got '{value}'"
            )
        return int(value)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: str) -> Jobs:
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def parse(arguments: list[str]) -> Jobs:
    """Reads a runner's command line; options may stand on both sides of JOB=1:n.

    Raises:
        CommandLineError: for anything that is not understood.
    """
    rest = list(arguments)
    options: dict[str, str] = {}
    extra: list[str] = []
    name, first, last = "", 1, 1
    while rest:
        if rest[0].startswith("-"):
            _take_option(rest, options, extra)
        elif match := re.fullmatch(r"([A-Za-z_]\w*)=(\d{1,9})(?::(\d{1,9}))?", rest[0]):
            if name:
                raise CommandLineError(f"a second job range: {rest[0]}")
            rest.pop(0)
            name, first, last = match[1], int(match[2]), int(match[3] or match[2])
        else:
            break
    if len(rest) < 2:
        raise CommandLineError("usage: [options] [JOB=first:last] log/name.JOB.log command [arguments ...]")
    jobs = Jobs(options, extra, name, first, last, rest[0], rest[1:])
    _check(jobs)
    return jobs


def _take_option(rest: list[str], options: dict[str, str], extra: list[str]) -> None:
    switch = rest.pop(0)
    count = 0 if switch in WITHOUT_VALUE else 2 if switch in TWO_VALUES else 1
    if len(rest) < count:
        raise CommandLineError(f"option {switch} needs a value")
    values = [rest.pop(0) for _ in range(count)]
    if any(value.startswith("--") for value in values):
        raise CommandLineError(f"option {switch} needs a value, got the option '{values[0]}'")
    if switch == "-tc":  # GridEngine's name for it
        switch = "--max-jobs-run"
    if switch.startswith("--"):
        options[switch[2:].replace("-", "_")] = values[0]
    else:
        extra += [switch, *values]


def _check(jobs: Jobs) -> None:
    if jobs.first < 1 or jobs.last < jobs.first:
        raise CommandLineError(f"job range {jobs.name}={jobs.first}:{jobs.last} must be 1 <= first <= last")
    if jobs.name not in jobs.log and jobs.last > jobs.first:
        raise CommandLineError(
            f"{len(jobs.numbers)} jobs would write one log: put {jobs.name} into '{jobs.log}'"
        )
    if not jobs.name and "JOB" in Path(jobs.log).name.split("."):
        raise CommandLineError(f"the log is called '{jobs.log}', but no JOB=1:n is given")
    if shell := SHELL_WORDS.intersection(jobs.argv):
        raise CommandLineError(f"'{min(shell)}' is shell syntax; write bash -c '...' around the command")
    if not all(_pipeline(jobs.argv)):
        raise CommandLineError("a pipeline has an empty part")


def _pipeline(argv: list[str]) -> list[list[str]]:
    """Splits at lone `|` arguments."""
    parts: list[list[str]] = [[]]
    for argument in argv:
        if argument == "|":
            parts.append([])
        else:
            parts[-1].append(argument)
    return parts


def shown(argv: list[str]) -> str:
    """The command as one could paste it into a shell."""
    return " | ".join(shlex.join(part) for part in _pipeline(argv))


def _now() -> str:
    return datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Z %Y")


def run_job(
    jobs: Jobs, number: int, environment: dict[str, str] | None = None, started: list | None = None
) -> int:
    """Runs one job and writes its log: command line, host and date first, exit code and time last.

    Args:
        jobs: the call of the runner.
        number: which job.
        environment: variables to add to our own.
        started: every process is appended to it; each leads a process group of its own.

    Returns:
        The exit status of the first program of the pipeline that failed, or 0, as a shell gives it: 128 + n
        when signal n ended it, 127 when the program does not exist. A program that stops because the next
        one has read enough (SIGPIPE) did not fail.
    """
    log = Path(jobs.log_of(number))
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [jobs.fill(argument, number) for argument in jobs.argv]
    begin = time.monotonic()
    with open(log, "wb", buffering=0) as file:
        header = f"# {shown(argv)}\n# Running on {socket.gethostname()}\n# Started at {_now()}\n#\n"
        file.write(header.encode(errors="surrogateescape"))
        status = _run_pipeline(
            argv, file, {**os.environ, **(environment or {})}, [] if started is None else started
        )
        elapsed = time.monotonic() - begin
        threads = jobs.options.get("num_threads", "1")
        code = f"code {status}; signal {status - 128}" if status > 128 else f"code {status}"
        footer = f"# Accounting: time={elapsed:.0f} threads={threads}\n"
        footer += f"# Ended ({code}) at {_now()}, elapsed time {elapsed:.1f} seconds\n"
        file.write(footer.encode())
    return status


def _run_pipeline(argv: list[str], log: IO[bytes], environment: dict[str, str], started: list) -> int:
    parts = _pipeline(argv)
    running: list[subprocess.Popen] = []
    source, status = None, 0
    for index, part in enumerate(parts):
        try:
            process = subprocess.Popen(
                part,
                stdin=source or subprocess.DEVNULL,
                stdout=subprocess.PIPE if index + 1 < len(parts) else log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            log.write(f"{part[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
            status = 127 if isinstance(error, FileNotFoundError) else 126
            break
        finally:
            if source:  # the reader holds its own copy; with ours open the writer would never see it end
                source.close()
        running.append(process)
        started.append(process)
        source = process.stdout
    if status and source:
        source.close()
    for process in running:
        code = process.wait()
        if code == -signal.SIGPIPE and process is not running[-1]:
            code = 0
        status = status or (128 - code if code < 0 else code)
    return status


def report(runner: str, jobs: Jobs, failures: dict[int, str]) -> int:
    """Names every failed job on standard error, with the end of the first one's log.

    Returns:
        The runner's exit status.
    """
    for number, reason in sorted(failures.items()):
        label = f"{jobs.name} {number}" if jobs.name else "the job"
        print(f"{runner}: {label} {reason}, log is in {jobs.log_of(number)}", file=sys.stderr)
    for number in sorted(failures)[:1]:
        with suppress(OSError):
            lines = Path(jobs.log_of(number)).read_text(errors="replace").splitlines()
            said = [line for line in lines if not line.startswith("#")][-5:]
            print("\n".join(f"  | {line}" for line in said), file=sys.stderr)
    if failures and len(jobs.numbers) > 1:
        print(f"{runner}: {len(failures)} of {len(jobs.numbers)} jobs failed", file=sys.stderr)
    return 1 if failures else 0


def die_on_signals() -> None:
    """SIGTERM and SIGHUP end a runner like Ctrl-C, so that its `finally` blocks stop the jobs."""

    def interrupt(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def main() -> int:
    """`run_jobs.py jobs.json NUMBER EXIT_FILE`: one job of a queue; its status goes into the exit file."""
    specification, number, exit_file = sys.argv[1:]
    jobs = Jobs.load(specification)
    status = run_job(jobs, int(number or 1))
    temporary = Path(f"{exit_file}.tmp")
    temporary.write_text(f"{status}\n")
    temporary.replace(exit_file)
    return status


if __name__ == "__main__":
    sys.exit(main())
