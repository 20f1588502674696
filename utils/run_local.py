#!/usr/bin/env python3
"""Runs jobs on this machine, called like Kaldi's run.pl (see run_jobs.py for the convention).

    run_local.py [--max-jobs-run N] [--num-threads N] [--gpu N] [JOB=1:8] log/name.JOB.log command ...

At most --max-jobs-run jobs run at a time (default: cores / --num-threads, or GPUs / --gpu). With
--num-threads the jobs get OMP_NUM_THREADS, with --gpu each gets GPUs of its own by CUDA_VISIBLE_DEVICES.
Options meant for a queue (--mem, --time, --config, -l ...) are accepted and have no effect here.
Exit status: 0 all jobs succeeded, 1 some failed (each is named), 2 command line not understood.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import SimpleQueue

from run_jobs import CommandLineError, Jobs, die_on_signals, parse, report, run_job

RUNNER = "run_local.py"


def gpus() -> list[str]:
    """Indices of the GPUs that jobs may use."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(index) for index, line in enumerate(listed.splitlines()) if line.startswith("GPU")]


def lanes(jobs: Jobs) -> list[dict[str, str]]:
    """The extra environment of each lane; as many jobs run at a time as there are lanes."""
    threads, wanted = jobs.integer("num_threads", 1), jobs.integer("gpu", 0, least=0)
    limit = jobs.integer("max_jobs_run", len(jobs.numbers))
    environment = {"OMP_NUM_THREADS": str(threads)} if "num_threads" in jobs.options else {}
    if not wanted:
        cores = len(os.sched_getaffinity(0))
        count = limit if "max_jobs_run" in jobs.options else max(1, cores // threads)
        return [environment] * min(count, len(jobs.numbers))
    free = gpus()
    groups = [free[start : start + wanted] for start in range(0, len(free) - wanted + 1, wanted)]
    if not groups:
        print(
            f"{RUNNER}: warning: --gpu {wanted}, but {len(free)} GPUs found; running one job at a time",
            file=sys.stderr,
        )
        return [environment]
    return [{**environment, "CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups[:limit]]


def run(jobs: Jobs) -> dict[int, str]:
    """Runs all jobs; returns the failed ones with how they ended."""
    free = SimpleQueue()
    for lane in (available := lanes(jobs)):
        free.put(lane)
    started: list[subprocess.Popen] = []

    def one(number: int) -> int:
        lane = free.get()
        try:
            return run_job(jobs, number, lane, started)
        finally:
            free.put(lane)

    with ThreadPoolExecutor(len(available)) as pool:
        futures = {number: pool.submit(one, number) for number in jobs.numbers}
        try:
            wait(futures.values())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures.values()):
                stop(started)
                time.sleep(0.05)
            raise
    return {number: why for number, future in futures.items() if (why := reason(future))}


def stop(processes: list[subprocess.Popen]) -> None:
    """Ends the processes with everything they started."""
    for process in list(processes):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def reason(future: Future) -> str:
    """Why a finished job failed; empty when it did not."""
    if error := future.exception():
        return f"could not run ({error})"
    status = future.result()
    return f"failed (exit status {status})" if status else ""


def main() -> int:
    try:
        jobs = parse(sys.argv[1:])
        die_on_signals()
        return report(RUNNER, jobs, run(jobs))
    except CommandLineError as error:
        print(f"{RUNNER}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{RUNNER}: interrupted; the running jobs were stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
