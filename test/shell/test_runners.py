"""The job runners: Kaldi's calling convention, logs, exit codes, and no failure that goes unnoticed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCAL, SLURM = ROOT / "utils/run_local.py", ROOT / "utils/run_slurm.py"

# A Slurm of three programs: sbatch starts every array task in the background, and for the task named in
# FAKE_LOSE starts one that is killed before it can say how it ended; squeue lists what still runs.
FAKE = {
    "sbatch": """\
printf '%s\\n' "$*" >"$FAKE_STATE/sbatch.args"
[[ -z ${FAKE_REFUSE:-} ]] || { echo "sbatch: error: Invalid partition specified" >&2; exit 1; }
first=1 last=1 array=false
for argument in "$@"; do
  if [[ $argument == --array=* ]]; then
    array=true range=${argument#--array=} range=${range%\\%*} first=${range%-*} last=${range#*-}
  fi
done
for ((n = first; n <= last; n++)); do
  name=42; $array && name=42_$n
  (
    echo "$name" >"$FAKE_STATE/$name.running"
    if [[ ${FAKE_LOSE:-} == "$n" ]]; then sleep 0.2; else
      $array && export SLURM_ARRAY_TASK_ID=$n
      bash "${@: -1}"
    fi
    rm "$FAKE_STATE/$name.running"
  ) >/dev/null 2>&1 &
done
while ((first <= last)) && ! compgen -G "$FAKE_STATE/42*" >/dev/null; do sleep 0.01; done
echo "42;cluster"
""",
    "squeue": """\
if [[ -n ${FAKE_DOWN:-} && ! -e $FAKE_STATE/was_down ]]; then
  touch "$FAKE_STATE/was_down"
  echo "slurm_load_jobs error: Unable to contact slurm controller" >&2
  exit 1
fi
cat "$FAKE_STATE"/42*.running 2>/dev/null && exit
echo "slurm_load_jobs error: Invalid job id specified" >&2
exit 1
""",
    "sacct": "echo OUT_OF_MEMORY\n",
    "scancel": 'echo "$@" >"$FAKE_STATE/cancelled"\n',
}


@pytest.fixture
def slurm(tmp_path):
    """An environment whose PATH starts with the fake Slurm."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    for name, text in FAKE.items():
        program = tmp_path / "bin" / name
        program.write_text("#!/usr/bin/env bash\n" + text)
        program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "FAKE_STATE": f"{tmp_path}/state",
        "SPEECHKIT_SLURM_POLL": "0.05",
        "SPEECHKIT_SLURM_GRACE": "0.3",
    }


def call(runner, *arguments, cwd, env=None):
    return subprocess.run(
        [runner, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(params=["local", "slurm"])
def runner(request, slurm, tmp_path):
    """Either runner as a function of its arguments, in a folder of its own."""
    program = {"local": LOCAL, "slurm": SLURM}[request.param]
    return lambda *arguments: call(program, *arguments, cwd=tmp_path, env=slurm)


def test_jobs_get_their_number_and_logs_say_everything(runner, tmp_path):
    done = runner(
        "--mem", "1G", "JOB=1:3", "log/a.JOB.log", "printf", r"%s\n", "part JOB of 3", "b'\"$HOME *"
    )
    assert done.returncode == 0, done.stderr
    for number in (1, 2, 3):
        lines = (tmp_path / f"log/a.{number}.log").read_text().splitlines()
        assert lines[0].startswith("# printf ") and f"part {number} of 3" in lines[0]
        assert lines[1].startswith("# Running on ") and lines[2].startswith("# Started at ")
        # The words reach the program as they are: no shell splits, expands or globs them.
        assert lines[4:6] == [f"part {number} of 3", "b'\"$HOME *"]
        assert lines[6] == "# Accounting: time=0 threads=1"
        assert lines[7].startswith("# Ended (code 0) at ") and "elapsed time 0." in lines[7]


def test_one_failure_of_eight_is_named(runner, tmp_path):
    done = runner("JOB=1:8", "log/b.JOB.log", "bash", "-c", "exit $(( JOB == 5 ? 3 : 0 ))")
    assert done.returncode == 1
    assert "JOB 5 failed (exit status 3), log is in log/b.5.log" in done.stderr
    assert "1 of 8 jobs failed" in done.stderr
    assert "# Ended (code 3)" in (tmp_path / "log/b.5.log").read_text()


def test_single_job_without_a_range(runner, tmp_path):
    assert runner("log/c.log", "echo", "JOB").returncode == 0
    assert "\nJOB\n" in (tmp_path / "log/c.log").read_text()
    done = runner("log/c.log", "false")
    assert done.returncode == 1 and "the job failed (exit status 1), log is in log/c.log" in done.stderr


def test_range_that_does_not_start_at_one(runner, tmp_path):
    assert runner("JOB=4:5", "log/d.JOB.log", "echo", "xJOBy").returncode == 0
    assert sorted(path.name for path in (tmp_path / "log").glob("d.*")) == ["d.4.log", "d.5.log"]
    assert "\nx5y\n" in (tmp_path / "log/d.5.log").read_text()


def test_missing_program_and_killed_job(runner, tmp_path):
    done = runner("JOB=1:2", "log/e.JOB.log", "no-such-program", "JOB")
    assert done.returncode == 1 and "JOB 2 failed (exit status 127)" in done.stderr
    assert "no-such-program: No such file" in (tmp_path / "log/e.1.log").read_text()
    done = runner("log/f.log", "bash", "-c", "kill -9 $$")
    assert done.returncode == 1 and "exit status 137" in done.stderr
    assert "(code 137; signal 9)" in (tmp_path / "log/f.log").read_text()


def test_pipelines_run_without_a_shell(runner, tmp_path):
    assert runner("JOB=1:1", "log/g.JOB.log", "echo", "a;b", "|", "tr", "ab", "xJOB").returncode == 0
    assert "\nx;1\n" in (tmp_path / "log/g.1.log").read_text()
    failed = runner("log/h.log", "bash", "-c", "echo x; exit 4", "|", "cat")
    assert failed.returncode == 1 and "exit status 4" in failed.stderr
    # A reader that has enough is no failure of the writer.
    assert runner("log/i.log", "yes", "|", "head", "-1").returncode == 0


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "usage"),
        (["log/x.log"], "usage"),
        (["JOB=1:2", "log/x.log", "true"], "put JOB into"),
        (["JOB=0:2", "log/x.JOB.log", "true"], "1 <= first <= last"),
        (["JOB=3:2", "log/x.JOB.log", "true"], "1 <= first <= last"),
        (["JOB=1:2", "JOB=1:3", "log/x.JOB.log", "true"], "second job range"),
        (["log/x.JOB.log", "true"], "no JOB=1:n"),
        (["log/x.log", "echo", ">", "file"], "shell syntax"),
        (["log/x.log", "echo", "|"], "empty part"),
        (
            ["--max-jobs-run", "0", "JOB=1:2", "log/x.JOB.log", "true"],
            "--max-jobs-run must be an integer >= 1",
        ),
        (["--max-jobs-run", "two", "JOB=1:2", "log/x.JOB.log", "true"], "--max-jobs-run must be"),
        (["--mem", "--gpu", "log/x.log", "true"], "option --mem needs a value"),
    ],
)
def test_bad_command_lines(runner, tmp_path, arguments, says):
    done = runner(*arguments)
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path).glob("log/x*"))


def test_local_respects_max_jobs_run(tmp_path):
    script = "echo >> running; test $(wc -l < running) -le 2; ok=$?; sleep 0.1; sed -i 1d running; exit $ok"
    done = call(LOCAL, "--max-jobs-run", 1, "JOB=1:4", "l.JOB.log", "bash", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    serial = time.monotonic()
    call(LOCAL, "--max-jobs-run", 4, "JOB=1:4", "s.JOB.log", "sleep", 0.5, cwd=tmp_path)
    assert time.monotonic() - serial < 1.5, "four sleeps of 0.5 s at a time take 0.5 s, one by one 2 s"


def test_local_gives_threads_and_gpus(tmp_path):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "3,5,7,9"}
    arguments = ("--gpu", 2, "--num-threads", 3, "JOB=1:4", "g.JOB.log")
    show = ("bash", "-c", "sleep 0.1; echo gpus=$CUDA_VISIBLE_DEVICES threads=$OMP_NUM_THREADS")
    assert call(LOCAL, *arguments, *show, cwd=tmp_path, env=env).returncode == 0
    said = [path.read_text().splitlines()[4] for path in sorted(tmp_path.glob("g.*"))]
    assert sorted(said) == ["gpus=3,5 threads=3"] * 2 + ["gpus=7,9 threads=3"] * 2


def test_local_stops_its_jobs_when_terminated(tmp_path):
    script = "sleep 60 & echo $! > pid; wait"
    process = subprocess.Popen([LOCAL, "JOB=1:3", "k.JOB.log", "bash", "-c", script], cwd=tmp_path)
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    time.sleep(0.2)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_slurm_names_the_job_that_vanished(slurm, tmp_path):
    env = {**slurm, "FAKE_LOSE": "6"}
    done = call(SLURM, "JOB=1:8", "log/v.JOB.log", "echo", "JOB", cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert "JOB 6 was lost: it left the queue without an exit status, Slurm says OUT_OF_MEMORY" in done.stderr
    assert "1 of 8 jobs failed" in done.stderr
    assert not any(f"JOB {number} " in done.stderr for number in (1, 2, 3, 4, 5, 7, 8))


def test_slurm_stage_of_a_recipe_stops_at_a_lost_job(slurm, tmp_path):
    recipe = tmp_path / "run.sh"
    recipe.write_text(
        "set -euo pipefail\nstage=1\nstop_stage=2\n"
        f". {ROOT}/utils/recipe.sh\ndecode_cmd='{SLURM} --mem 1G'\n"
        'if stage 1 "decode"; then\n  $decode_cmd JOB=1:8 log/w.JOB.log true\nfi\n'
        'if stage 2 "score"; then\n  touch scored\nfi\nfinish\n'
    )
    env = {**slurm, "FAKE_LOSE": "3"}
    done = subprocess.run(
        ["bash", "run.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "JOB 3 was lost" in done.stderr and "stage 1 (decode) failed" in done.stderr
    assert not (tmp_path / "scored").exists()


def test_slurm_lost_exit_file_is_a_failure_though_the_log_looks_well(slurm, tmp_path):
    """The job ends with status 0, but its exit file disappears: that is not success."""
    script = "(sleep 0.15; rm -f log/q/y.JOB.log.*/exit.2) & true"
    env = {**slurm, "SPEECHKIT_SLURM_POLL": "0.5"}
    done = call(
        SLURM, "JOB=2:2", "log/y.JOB.log", "bash", "-c", script.replace("JOB", "?OB"), cwd=tmp_path, env=env
    )
    assert done.returncode == 1 and "JOB 2 was lost" in done.stderr


def test_slurm_earlier_exit_files_do_not_count(slurm, tmp_path):
    assert call(SLURM, "JOB=1:2", "log/z.JOB.log", "true", cwd=tmp_path, env=slurm).returncode == 0
    again = call(SLURM, "JOB=1:2", "log/z.JOB.log", "true", cwd=tmp_path, env={**slurm, "FAKE_LOSE": "2"})
    assert again.returncode == 1 and "JOB 2 was lost" in again.stderr


def test_slurm_refusal_and_absence(slurm, tmp_path):
    refused = call(SLURM, "log/r.log", "true", cwd=tmp_path, env={**slurm, "FAKE_REFUSE": "1"})
    assert refused.returncode == 1 and "Invalid partition specified" in refused.stderr
    absent = call(SLURM, "log/r.log", "true", cwd=tmp_path, env={**slurm, "PATH": os.environ["PATH"]})
    assert absent.returncode == 1 and "sbatch" in absent.stderr and "Traceback" not in absent.stderr


def test_slurm_controller_that_does_not_answer_is_waited_for(slurm, tmp_path):
    env = {**slurm, "FAKE_DOWN": "1", "SPEECHKIT_SLURM_GRACE": "0"}
    done = call(SLURM, "JOB=1:2", "log/s.JOB.log", "sleep", "0.3", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert Path(slurm["FAKE_STATE"], "was_down").exists()


def test_slurm_options_become_sbatchs(slurm, tmp_path):
    options = ("--mem", "4G", "--num-threads", 2, "--gpu", 1, "--max-jobs-run", 3, "-p", "long")
    assert call(SLURM, *options, "JOB=1:4", "log/o.JOB.log", "true", cwd=tmp_path, env=slurm).returncode == 0
    said = Path(slurm["FAKE_STATE"], "sbatch.args").read_text().split()
    assert {"--mem=4G", "--cpus-per-task=2", "--gres=gpu:1", "--array=1-4%3", "--parsable"} <= set(said)
    assert said[said.index("-p") + 1] == "long"


def test_slurm_configuration_file(slurm, tmp_path):
    config = tmp_path / "conf/slurm.conf"
    config.parent.mkdir()
    config.write_text(
        "command sbatch --export=ALL\noption gpu=0 -p cpu  # no GPU\noption gpu=* -p gpu$0\ndefault gpu=0\n"
    )
    assert call(SLURM, "log/p.log", "true", cwd=tmp_path, env=slurm).returncode == 0
    assert "--export=ALL -p cpu --parsable" in Path(slurm["FAKE_STATE"], "sbatch.args").read_text()
    assert call(SLURM, "--gpu", 2, "log/p.log", "true", cwd=tmp_path, env=slurm).returncode == 0
    assert "-p gpu2" in Path(slurm["FAKE_STATE"], "sbatch.args").read_text()
    unknown = call(SLURM, "--mem", "1G", "log/p.log", "true", cwd=tmp_path, env=slurm)
    assert unknown.returncode == 2 and "conf/slurm.conf: does not say what --mem 1G means" in unknown.stderr
    config.write_text("command sbatch\noptoin mem=* --mem=$0\n")
    broken = call(SLURM, "log/p.log", "true", cwd=tmp_path, env=slurm)
    assert broken.returncode == 2 and "conf/slurm.conf:2: cannot read" in broken.stderr


def test_slurm_interrupted_wait_cancels(slurm, tmp_path):
    process = subprocess.Popen([SLURM, "log/n.log", "sleep", "3"], cwd=tmp_path, env=slurm)
    while not Path(slurm["FAKE_STATE"], "42.running").exists():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    assert Path(slurm["FAKE_STATE"], "cancelled").read_text() == "42\n"
