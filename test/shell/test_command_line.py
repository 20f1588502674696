"""The `speechkit` command as a whole: help, unknown verbs, imports, and the doctor on a broken machine."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechkit.bin.verbs import VERBS
from speechkit.doctor import cpu_flags

HEAVY = ("torch", "lhotse", "transformers", "matplotlib", "tensorboard", "scipy", "soundfile", "numpy")
WRITTEN = [v for v in VERBS if importlib.util.find_spec(f"speechkit.bin.{v.replace('-', '_')}")]


def speechkit(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "speechkit.bin", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **variables},
    )


def imported(statement):
    """The heavy libraries that a statement imports in a fresh interpreter."""
    code = f"import sys; sys.argv = ['speechkit', '--help']\n{statement}\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name for name in HEAVY if f"'{name}'" in done.stdout.splitlines()[-1]}


def test_help_is_quick_and_imports_nothing_heavy():
    assert imported("from speechkit.bin.__main__ import main; main()") == set()
    took = []
    for _ in range(3):
        start = time.monotonic()
        assert speechkit("--help").returncode == 0
        took.append(time.monotonic() - start)
    assert min(took) < 0.5, took


@pytest.mark.parametrize("module", ["speechkit", "speechkit.config", "speechkit.stamp", "speechkit.files"])
def test_ground_floor_is_light(module):
    assert imported(f"import {module}") == set()


@pytest.mark.parametrize("verb", WRITTEN)
def test_verb_help(verb):
    done = speechkit(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: speechkit {verb}")
    option = speechkit(verb, "--no-such-option", "x")
    assert option.returncode == 2 and "Traceback" not in option.stderr


@pytest.mark.parametrize("verb", WRITTEN)
def test_options_are_kebab_case(verb):
    import argparse

    parser = argparse.ArgumentParser()
    importlib.import_module(f"speechkit.bin.{verb.replace('-', '_')}").add_arguments(parser)
    for action in parser._actions:
        for option in action.option_strings:
            assert option == option.lower() and "_" not in option, f"{verb}: {option}"
        switch = isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction)
        assert not switch, f"{verb}: {action.option_strings} must take true or false"


def test_unknown_verb_and_nothing():
    done = speechkit("trian")
    assert done.returncode == 2 and "no verb 'trian'; did you mean 'train'?" in done.stderr
    assert speechkit().returncode == 2
    assert speechkit("--version").stdout.strip().count(".") == 2


def test_doctor_is_content_here():
    done = speechkit("doctor", COLUMNS="100")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 110, "one screen"
    for name in ("Python", "torch", "CPU", "GPU", "memory", "disk", "sox", "flac", "espeak-ng", "packages"):
        assert any(line.startswith(name) for line in lines), name


@pytest.mark.parametrize("how", ["raise OSError('libc10.so: cannot open')", "raise ImportError('no torch')"])
def test_doctor_survives_a_broken_torch(tmp_path, how):
    (tmp_path / "torch.py").write_text(how)
    done = speechkit("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("torch"))
    assert "FAIL" in line and "cannot be imported: " in line
    assert "-> rm -rf .venv && tools/setup.sh" in done.stdout
    assert "sox " in done.stdout and "Missing: torch" in done.stdout


def test_doctor_names_missing_and_broken_programs(tmp_path):
    broken = tmp_path / "flac"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    done = speechkit("doctor", PATH=str(tmp_path))
    said = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "Missing: sox, flac, espeak-ng." in said
    assert "does not run" in said and "-> install the package sox, or run tools/setup.sh" in said


def test_cpu_flags_of_both_kinds():
    intel = "model name\t: X\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert cpu_flags(intel) == {"fpu", "avx2", "avx512_bf16", "amx_bf16"}
    assert cpu_flags("Features\t: fp asimd bf16\n") == {"fp", "asimd", "bf16"}
    assert cpu_flags("") == set()


def test_entry_point_is_the_same_program():
    program = Path(sys.executable).with_name("speechkit")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=30)
    assert done.stdout == speechkit("--help").stdout != ""
