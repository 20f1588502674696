"""`speechkit matrix`: expands conf/systems.yaml into jobs and runs them in parallel lanes."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import InputError, UsageError
from speechkit.jobs import Job, choose_options, decode_jobs, score_jobs, train_jobs, tune_jobs
from speechkit.systems import System, Systems, read_systems, select

STAGES = {4: "pre-train", 5: "train", 6: "decode", 7: "score"}
DEFAULT_RUNNER = str(Path(__file__).resolve().parents[2] / "utils" / "run_local.py")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--systems", default="conf/systems.yaml", help="the systems to compare")
    parser.add_argument(
        "--stage",
        type=int,
        required=True,
        choices=STAGES,
        help=", ".join(f"{number} {name}" for number, name in STAGES.items()),
    )
    parser.add_argument("--methods", help="comma-separated systems; all when not given")
    parser.add_argument("--seeds", type=int, help="seeds per system; the file's number when not given")
    parser.add_argument("--lanes", type=int, default=1, help="jobs at a time; cores are divided among them")
    parser.add_argument(
        "--processes", type=int, default=1, help="training processes per job, on as many devices"
    )
    parser.add_argument("--work", default=".", help="folder below which data and exp lie")
    parser.add_argument(
        "--force", type=true_or_false, default=False, help="pass --force true to decodes and scores"
    )
    parser.add_argument(
        "--cer-spaces",
        type=true_or_false,
        help="stage 7: whether CER counts spaces (as speechkit score says)",
    )
    parser.add_argument("--dry-run", type=true_or_false, default=False, help="print the commands only")


def run(args: argparse.Namespace) -> int:
    """Runs or prints the jobs of one stage; InputError names every job that failed, with its log."""
    if min(args.lanes, args.processes, args.seeds or 1) < 1:
        raise UsageError("--lanes, --processes and --seeds must be at least 1")
    systems = read_systems(args.systems, args.work)
    chosen, exp = select(systems, args.methods), Path(args.work) / "exp"
    if args.stage == 5 and (trials := tune_jobs(systems, chosen, exp, args.processes)):
        _run_or_print(trials, args)
        if not args.dry_run:
            choose_options(systems, chosen, exp)
    jobs = _jobs(systems, chosen, exp, args)
    _run_or_print(jobs, args)
    if not args.dry_run:
        print(f"speechkit matrix: {len(jobs)} jobs of stage {args.stage} done", file=sys.stderr)
    return 0


def _jobs(systems: Systems, chosen: dict[str, System], exp: Path, args: argparse.Namespace) -> list[Job]:
    if args.stage in (4, 5):
        return train_jobs(systems, chosen, args.seeds, exp, args.processes, args.stage)
    jobs = (decode_jobs if args.stage == 6 else score_jobs)(systems, chosen, args.seeds, exp)
    further = ["--force", "true"] if args.force else []
    if args.stage == 7 and args.cer_spaces is not None:
        further += ["--cer-spaces", str(args.cer_spaces).lower()]
    return [replace(job, command=[*job.command, *further]) for job in jobs]


def _run_or_print(jobs: list[Job], args: argparse.Namespace) -> None:
    if args.dry_run:
        for job in jobs:
            print(shlex.join(job.command))
        return
    failed = run_jobs(jobs, args.lanes, args.processes if args.stage in (4, 5) else 1)
    if failed:
        raise InputError("failed: " + "; ".join(f"{job.name} (see {job.log})" for job in failed))


def run_jobs(jobs: list[Job], lanes: int, processes: int = 1) -> list[Job]:
    """Runs jobs as their needs are met, `lanes` at a time; returns those that failed or could not start."""
    threads = max(1, (os.cpu_count() or 1) // (lanes * processes))
    waiting, running, done, failed = list(jobs), {}, set(), []
    known = {job.name for job in jobs}
    with ThreadPoolExecutor(lanes) as pool:
        while waiting or running:
            broken = {job.name for job in failed}
            failed += [job for job in waiting if broken & set(job.needs)]
            waiting = [job for job in waiting if job not in failed]
            ready = [job for job in waiting if all(need in done or need not in known for need in job.needs)]
            for job in ready[: lanes - len(running)]:
                waiting.remove(job)
                running[pool.submit(_run, job, threads)] = job
            if not running:
                return failed + [job for job in waiting if job not in failed]
            finished: set[Future] = wait(running, return_when=FIRST_COMPLETED).done
            for future in finished:
                job = running.pop(future)
                (failed.append(job) if future.result() else done.add(job.name))
    return failed


def _run(job: Job, threads: int) -> int:
    """Runs one job through the recipe's runner; shows the end of its log when it fails."""
    runner = shlex.split(os.environ.get(job.runner, "") or DEFAULT_RUNNER)
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    job.log.parent.mkdir(parents=True, exist_ok=True)
    print(f"speechkit matrix: {job.name}: {shlex.join(job.command)}", file=sys.stderr, flush=True)
    begin = time.monotonic()
    status = subprocess.run([*runner, str(job.log), *job.command], env=environment, check=False).returncode
    minutes = (time.monotonic() - begin) / 60
    print(f"speechkit matrix: {job.name}: status {status}, {minutes:.1f} min", file=sys.stderr, flush=True)
    if status and job.log.exists():
        lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        print("\n".join(f"  {job.log}: {line}" for line in lines), file=sys.stderr)
    return status
