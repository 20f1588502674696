#!/usr/bin/env python3
"""Runs jobs through Slurm, called like Kaldi's slurm.pl (see run_jobs.py for the convention).

    run_slurm.py [--mem 4G] [--num-threads N] [--gpu N] [--time T] [--max-jobs-run N]
                 [--config conf/slurm.conf] [JOB=1:8] log/name.JOB.log command ...

One `sbatch` array; this program waits for it. Each job writes its own exit status into a file; a job that
left the queue without one is lost, and named. `conf/slurm.conf`, when there, says how options become
sbatch's, in the format of Kaldi's slurm.pl: `command sbatch ...`, `option gpu=0 -p cpu`,
`option gpu=* -p gpu --gres=gpu:$0`, `default gpu=0`. Single-dash options go to sbatch as they are.

Variables: SPEECHKIT_SLURM_POLL (seconds between looks at the queue, default 5), SPEECHKIT_SLURM_GRACE
(seconds that an exit file may take over the network after its job left the queue, default 60).
Exit status: 0 all jobs succeeded, 1 some failed or were lost, 2 command line not understood.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import run_jobs
from run_jobs import CommandLineError, Jobs, die_on_signals, parse, report

RUNNER = "run_slurm.py"

DEFAULT_CONFIG = """\
command sbatch
option mem=0
option mem=* --mem=$0
option num_threads=* --cpus-per-task=$0
option time=* --time=$0
option gpu=0
option gpu=* --gres=gpu:$0
"""


def submit_command(jobs: Jobs) -> list[str]:
    """sbatch with the options that the configuration file makes of ours.

    Raises:
        CommandLineError: when the file cannot be read or says nothing about an option.
    """
    path = Path(jobs.options.get("config", "conf/slurm.conf"))
    if "config" in jobs.options and not path.is_file():
        raise CommandLineError(f"--config {path}: no such file")
    text = path.read_text(encoding="utf-8") if path.is_file() else DEFAULT_CONFIG
    command: list[str] = []
    rules: dict[tuple[str, str], str] = {}
    options = {name: value for name, value in jobs.options.items() if name not in ("config", "max_jobs_run")}
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"\s*#.*", "", line).strip()
        if not line:
            continue
        if match := re.fullmatch(r"command (.+)", line):
            command = shlex.split(match[1])
        elif match := re.fullmatch(r"option (\w+)=(\S+)\s*(.*)", line):
            rules[match[1], match[2]] = match[3]
        elif match := re.fullmatch(r"default (\w+)=(\S+)", line):
            options.setdefault(match[1], match[2])
        else:
            raise CommandLineError(f"{path}:{number}: cannot read '{line}'")
    if not command:
        raise CommandLineError(f"{path}: has no line 'command sbatch ...'")
    for name, value in options.items():
        rule = rules.get((name, value), rules.get((name, "*")))
        if rule is None:
            raise CommandLineError(f"{path}: does not say what --{name.replace('_', '-')} {value} means")
        command += [word.replace("$0", value) for word in shlex.split(rule)]
    return command + jobs.extra


def submit(jobs: Jobs, folder: Path) -> str:
    """Writes the job script and submits it; returns Slurm's job id."""
    command = submit_command(jobs)
    specification, script = folder / "jobs.json", folder / "job.sh"
    jobs.save(specification)
    one_job = shlex.join([sys.executable, str(Path(run_jobs.__file__).resolve()), str(specification)])
    script.write_text(
        f"#!/bin/bash\ncd {shlex.quote(os.getcwd())} || exit 1\n"
        "number=${SLURM_ARRAY_TASK_ID:-1}\n"
        f'exec {one_job} "$number" {shlex.quote(str(folder))}/exit."$number"\n'
    )
    command += ["--parsable", f"--job-name={Path(jobs.argv[0]).name}"]
    command += [f"--output={folder}/{'slurm.%a.out' if jobs.name else 'slurm.out'}"]
    if jobs.name:
        limit = f"%{jobs.integer('max_jobs_run', 1)}" if "max_jobs_run" in jobs.options else ""
        command += [f"--array={jobs.first}-{jobs.last}{limit}"]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode or not re.match(r"\d+", done.stdout):
        raise RuntimeError(
            f"sbatch failed (status {done.returncode}): {(done.stderr or done.stdout).strip()}"
        )
    return re.match(r"\d+", done.stdout)[0]


def queued(jobs: Jobs, job_id: str) -> set[int] | None:
    """Numbers of the jobs that Slurm still holds; None when Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={job_id}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        # A finished job is forgotten after some minutes; any other complaint says nothing about the job.
        return set() if "invalid job id" in done.stderr.lower() else None
    ids = done.stdout.split()
    return {int(one.rpartition("_")[2]) if "_" in one else jobs.first for one in ids}


def wait(jobs: Jobs, job_id: str, folder: Path) -> dict[int, str]:
    """Waits until every job has an exit file or is lost; returns the failed ones with how they ended."""
    poll = float(os.environ.get("SPEECHKIT_SLURM_POLL", "5"))
    grace = float(os.environ.get("SPEECHKIT_SLURM_GRACE", "60"))
    open_jobs, failures = set(jobs.numbers), {}
    gone_since: dict[int, float] = {}
    while True:
        held = queued(jobs, job_id)
        os.listdir(folder)  # makes a network file system look again
        for number in sorted(open_jobs):
            exit_file = folder / f"exit.{number}"
            if exit_file.exists():
                open_jobs.discard(number)
                status = exit_file.read_text().strip()
                if status != "0":
                    failures[number] = f"failed (exit status {status})"
            elif held is None or number in held:
                gone_since.pop(number, None)
            elif time.monotonic() - gone_since.setdefault(number, time.monotonic()) > grace:
                open_jobs.discard(number)
                failures[number] = (
                    f"was lost: it left the queue without an exit status{state(job_id, jobs, number)}"
                )
        if not open_jobs:
            return failures
        time.sleep(poll)


def state(job_id: str, jobs: Jobs, number: int) -> str:
    """What Slurm's accounting says of a lost job, such as `, Slurm says OUT_OF_MEMORY`; may be nothing."""
    one = f"{job_id}_{number}" if jobs.name else job_id
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={one}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    said = done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""
    return f", Slurm says {said}" if said else ""


def run(jobs: Jobs) -> dict[int, str]:
    """Submits the jobs and waits; an interrupted wait cancels them."""
    log_folder = Path(jobs.log).resolve().parent
    (log_folder / "q").mkdir(parents=True, exist_ok=True)
    # A fresh folder for each call: an exit file of an earlier run can never be taken for this one's.
    folder = Path(tempfile.mkdtemp(prefix=f"{Path(jobs.log).name}.", dir=log_folder / "q"))
    job_id = submit(jobs, folder)
    try:
        return wait(jobs, job_id, folder)
    except KeyboardInterrupt:
        subprocess.run(["scancel", job_id], stdin=subprocess.DEVNULL)
        raise


def main() -> int:
    try:
        jobs = parse(sys.argv[1:])
        die_on_signals()
        return report(RUNNER, jobs, run(jobs))
    except CommandLineError as error:
        print(f"{RUNNER}: error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"{RUNNER}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{RUNNER}: interrupted; the jobs were cancelled", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
