"""tools/setup.sh without installing anything: what it would do, what it refuses, what counts as done."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The tools that the script itself uses; everything else is hidden or faked.
BASICS = "bash cat cp cut dirname env flock grep id mkdir mv python3 realpath rm sed sha256sum touch".split()


@pytest.fixture
def machine(tmp_path):
    """A checkout of two files and a PATH of basic tools, to which fake programs can be added."""
    checkout, programs = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "tools").mkdir(parents=True)
    programs.mkdir()
    shutil.copy(ROOT / "tools/setup.sh", checkout / "tools/setup.sh")
    (checkout / "setup.py").write_text("# requirements\n")
    for name in BASICS:
        (programs / name).symlink_to(shutil.which(name))
    return Machine(checkout, programs)


class Machine:
    """Where the fake machine's files are, and how to call setup.sh there."""

    def __init__(self, checkout: Path, programs: Path) -> None:
        self.checkout, self.programs = checkout, programs
        self.venv = checkout / ".venv"
        self.calls = programs.parent / "calls"

    def add(self, name: str, script: str = "exit 0") -> None:
        """A program that notes its arguments and then does `script`."""
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.calls}\n{script}\n')
        path.chmod(0o755)

    def add_required(self) -> None:
        for name in ("sox", "espeak-ng", "flac"):
            self.add(name)

    def add_python(self) -> None:
        """A Python whose venv is a fake python too: pip calls are noted, torch is not installed yet."""
        inner = self.programs / "venv-python"
        # It has no torch yet; whether it reaches the index that `python - URL` asks for, REACH says.
        inner.write_text(
            f'#!/bin/bash\necho "venv-python $*" >>{self.calls}\n'
            '[[ $1 == - ]] && exit "${REACH:-1}"\n'
            '[[ "$*" == *importlib.metadata* ]] && exit 1\n'
            '[[ -n ${FAIL_ON:-} && "$*" == *"$FAIL_ON"* ]] && exit 1\nexit 0\n'
        )
        inner.chmod(0o755)
        self.add(
            "python3",
            '[[ "$1 $2" == "-m venv" ]] || exit 0\nmkdir -p "$3/bin"\n'
            f'echo "export VIRTUAL_ENV=$3" >"$3/bin/activate"\ncp {inner} "$3/bin/python"',
        )

    def setup(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "tools/setup.sh", *arguments],
            cwd=self.checkout,
            env={"PATH": str(self.programs), "HOME": str(self.checkout), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def said(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def test_without_apt_missing_programs_are_named(machine):
    machine.add("sox")
    done = machine.setup()
    assert done.returncode == 1
    assert "install these, then run this again: espeak-ng flac" in done.stderr
    assert not machine.venv.exists()


def test_without_apt_it_goes_on_when_the_programs_are_there(machine):
    machine.add_required()
    machine.add_python()
    done = machine.setup("dev")
    assert done.returncode == 0, done.stderr
    assert "without sctk some checks" in done.stderr or Path("/usr/lib/sctk/bin/sclite").exists()
    pips = [line for line in machine.said() if "-m pip install" in line]
    assert "torch==2.13.0" in pips[0], "torch comes before everything that depends on it"
    assert pips[1].endswith(f"-e {machine.checkout}")
    assert pips[2].endswith(f"-e {machine.checkout}[dev]")
    assert "torch==2.13.0 from pip's own configuration" in done.stderr


def test_apt_installs_only_what_is_missing(machine):
    machine.add("flac")
    machine.add("id", "echo 0")
    machine.add("apt-get", f"for p in sox espeak-ng; do printf '#!/bin/bash\\n' >{machine.programs}/$p; done")
    machine.add_python()
    assert machine.setup().returncode == 0
    apt = [line for line in machine.said() if line.startswith("apt-get")]
    assert apt == ["apt-get update -qq", "apt-get install -y -qq --no-install-recommends sox espeak-ng"]


def test_neither_root_nor_sudo(machine):
    machine.add("apt-get")
    machine.add("id", "echo 1000")
    done = machine.setup()
    assert done.returncode == 1 and "neither root nor sudo" in done.stderr
    assert "apt-get install" not in "\n".join(machine.said())


def test_sudo_is_used_when_there_is_no_root(machine):
    machine.add("apt-get", "exit 100")
    machine.add("id", "echo 1000")
    machine.add("sudo", 'exec "$@"')
    done = machine.setup()
    assert done.returncode == 1 and "apt could not install: sox espeak-ng flac" in done.stderr
    assert machine.said().count("sudo apt-get update -qq") == 1


def test_second_run_does_nothing_and_is_quick(machine):
    machine.add_required()
    machine.add_python()
    assert machine.setup("dev").returncode == 0
    before, start = machine.said(), time.monotonic()
    again = machine.setup("dev")
    assert again.returncode == 0 and time.monotonic() - start < 1
    assert machine.said() == before
    assert "core is up to date" in again.stderr and "part dev is up to date" in again.stderr
    assert machine.setup("--check", "dev").returncode == 0
    assert machine.setup("--check", "video").returncode == 1


def test_changed_requirements_are_installed_again(machine):
    machine.add_required()
    machine.add_python()
    machine.setup()
    (machine.checkout / "setup.py").write_text("# other requirements\n")
    assert machine.setup("--check").returncode == 1
    count = len(machine.said())
    assert machine.setup().returncode == 0
    assert any(line.endswith(f"-e {machine.checkout}") for line in machine.said()[count:])
    assert machine.setup("--check").returncode == 0


def test_interrupted_environment_is_made_again(machine):
    """A failure half-way leaves an environment that nothing takes for complete; the next run starts anew."""
    machine.add_required()
    machine.add_python()
    failed = machine.setup(FAIL_ON="-e ")
    assert failed.returncode != 0
    assert machine.setup("--check").returncode == 1
    (machine.venv / "left-over").touch()
    again = machine.setup()
    assert again.returncode == 0 and "an earlier set-up was interrupted" in again.stderr
    assert not (machine.venv / "left-over").exists()
    assert machine.setup("--check").returncode == 0


def test_environment_of_a_copied_checkout_is_made_again(machine, tmp_path):
    machine.add_required()
    machine.add_python()
    machine.setup()
    shutil.copytree(machine.checkout, tmp_path / "copy")
    machine.checkout = tmp_path / "copy"
    machine.venv = machine.checkout / ".venv"
    assert machine.setup("--check").returncode == 1
    done = machine.setup()
    assert done.returncode == 0 and "was copied from another place" in done.stderr
    assert str(machine.venv) in (machine.venv / "bin/activate").read_text()


def test_dry_run_changes_nothing(machine):
    machine.add("apt-get")
    machine.add("id", "echo 0")
    machine.add_python()
    done = machine.setup("--dry-run", "dev", "phones")
    assert done.returncode == 0, done.stderr
    assert "apt-get install -y -qq --no-install-recommends sox espeak-ng flac" in done.stderr
    assert f"-e {machine.checkout}[phones]" in done.stderr
    assert not machine.venv.exists()
    assert not any("apt-get" in line or "-m pip" in line or "-m venv" in line for line in machine.said())


def test_gpu_and_named_torch(machine):
    machine.add_required()
    machine.add_python()
    machine.add("nvidia-smi", "echo 'GPU 0: Some Card'")
    done = machine.setup(SPEECHKIT_TORCH="torch==2.7.0")
    assert done.returncode == 0 and "NVIDIA GPU found: torch==2.7.0 with CUDA" in done.stderr


def test_cpu_build_comes_from_the_cpu_index_where_that_is_reachable(machine):
    machine.add_required()
    machine.add_python()
    assert machine.setup(REACH="0").returncode == 0
    pips = [line.partition("-m pip ")[2] for line in machine.said() if "-m pip install" in line]
    assert pips[0].endswith("torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu")
    assert "index-url" not in pips[1]


@pytest.mark.parametrize("part", ["nonsense", "Dev", "../evil", "--force"])
def test_unknown_part(machine, part):
    done = machine.setup(part)
    assert done.returncode == 2 and f"unknown part '{part}'" in done.stderr
    assert "espnet warp-rnnt phones video dev bench kenlm" in done.stderr


def installer(machine, name, script):
    path = machine.checkout / f"tools/install_{name}.sh"
    path.write_text(script)
    return path


def test_parts_with_installers(machine):
    machine.add_required()
    machine.add_python()
    installer(machine, "espnet", 'echo "espnet with $PYTHON" >&2\n')
    installer(machine, "decoders", "echo decoders >&2\n")
    installer(machine, "warp_rnnt", "echo 'no compiler' >&2; exit 3\n")
    done = machine.setup("bench", "warp-rnnt", "video")
    assert done.returncode == 0, done.stderr
    assert f"espnet with {machine.venv}/bin/python" in done.stderr and "\ndecoders\n" in done.stderr
    assert "no compiler\nsetup: part warp-rnnt is left out on this machine" in done.stderr
    assert machine.setup("--check", "bench", "video").returncode == 0
    assert machine.setup("--check", "warp-rnnt").returncode == 1
    installer(machine, "espnet", "exit 1\n")
    broken = machine.setup("espnet")
    assert (
        broken.returncode == 1 and "part espnet: tools/install_espnet.sh failed (status 1)" in broken.stderr
    )
    missing = machine.setup("kenlm")
    assert missing.returncode == 1 and "this checkout has no tools/install_kenlm.sh" in missing.stderr


def test_two_at_once_take_turns(machine):
    machine.add_required()
    machine.add_python()
    installer(machine, "espnet", "echo begin >>log; sleep 0.3; echo end >>log\n")
    machine.add("sleep", "exec /bin/sleep 0.3")
    environment = {"PATH": str(machine.programs), "HOME": str(machine.checkout)}
    running = [
        subprocess.Popen(["bash", "tools/setup.sh", "espnet"], cwd=machine.checkout, env=environment)
        for _ in range(2)
    ]
    assert [process.wait(30) for process in running] == [0, 0]
    assert (machine.checkout / "log").read_text() == "begin\nend\n", "the second found it done"


def test_env_sh_sets_up_on_first_use_and_enters_the_environment(machine):
    machine.add_required()
    machine.add_python()
    shutil.copy(ROOT / "tools/env.sh", machine.checkout / "tools/env.sh")
    recipe = machine.checkout / "egs/foo/asr1"
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "egs/TEMPLATE/asr1/path.sh", recipe)
    (machine.checkout / "tools/setup.sh").chmod(0o755)
    command = 'set -euo pipefail; . ./path.sh; echo "$SPEECHKIT_ROOT $VIRTUAL_ENV $PATH $LC_ALL"'
    environment = {"PATH": str(machine.programs), "HOME": "/", "FAIL_ON": ""}
    shell = ["bash", "-c", command]
    first = subprocess.run(shell, cwd=recipe, env=environment, capture_output=True, text=True, timeout=60)
    assert first.returncode == 0, first.stderr
    assert "running tools/setup.sh" in first.stderr
    root, venv, path, locale = first.stdout.split()
    assert (root, venv, locale) == (str(machine.checkout), str(machine.venv), "C.UTF-8")
    assert path.split(":")[0] == f"{root}/utils"
    second = subprocess.run(shell, cwd=recipe, env=environment, capture_output=True, text=True, timeout=60)
    assert second.returncode == 0 and second.stderr == ""


def test_path_sh_outside_a_checkout_says_so(tmp_path):
    shutil.copy(ROOT / "egs/TEMPLATE/asr1/path.sh", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "SPEECHKIT_ROOT"}
    done = subprocess.run(
        ["bash", "-c", ". ./path.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0 and "no SpeechKit above this recipe" in done.stderr
