"""What `speechkit doctor` looks at: each check is a function without side effects that never raises.

Only the standard library is imported here, so that the doctor can still speak when a package is broken.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

GIB = 2**30
SETUP = "tools/setup.sh"
SCTK = "/usr/lib/sctk/bin"  # Debian keeps sclite off PATH


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at.
        state: "ok"; "note" for something optional or worth knowing; "FAIL" for something required.
        found: what is there.
        mend: what to do about it; empty when all is well.
    """

    name: str
    state: str
    found: str
    mend: str = ""


def python() -> Check:
    """Whether this interpreter is new enough."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < (3, 10):  # noqa: UP036  (to say so is the purpose)
        return Check("Python", "FAIL", found, f"3.10 or newer is needed: PYTHON=python3.11 {SETUP}")
    return Check("Python", "ok", found)


def torch() -> Check:
    """Whether torch can be imported, its version and threads."""
    try:
        module = importlib.import_module("torch")
        threads = f"{module.get_num_threads()} threads"
        return Check("torch", "ok", f"{module.__version__}, {threads}")
    except Exception as error:  # a broken build raises anything from ImportError to OSError
        why = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        return Check("torch", "FAIL", f"cannot be imported: {why}", f"rm -rf .venv && {SETUP}")


def cpu_flags(text: str) -> set[str]:
    """The feature flags in the text of /proc/cpuinfo (x86 `flags`, ARM `Features`)."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def cpu() -> Check:
    """Model, cores, vector unit, and whether bf16 is native (then training may use it)."""
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = cpu_flags(text)
    bf16 = sorted(flags & {"avx512_bf16", "amx_bf16", "amx_tile", "bf16"})
    vectors = next((flag for flag in ("avx512f", "avx2", "asimd") if flag in flags), "no vector unit known")
    cores = len(os.sched_getaffinity(0))
    found = f"{model[1] if model else platform.machine()}, {cores} cores, {vectors}"
    if bf16:
        return Check("CPU", "ok", f"{found}, bf16 ({', '.join(bf16)})")
    return Check("CPU", "ok", f"{found}, no bf16 (trains in fp32)")


def gpu() -> Check:
    """The GPUs that torch can use, or why it cannot use one that is there."""
    listed = _output(["nvidia-smi", "-L"]) or ""
    module = sys.modules.get("torch")
    try:
        if module is not None and module.cuda.is_available():
            names = {}
            for index in range(module.cuda.device_count()):
                properties = module.cuda.get_device_properties(index)
                name = f"{properties.name} {properties.total_memory / GIB:.0f} GiB"
                names[name] = names.get(name, 0) + 1
            bf16 = "bf16" if module.cuda.is_bf16_supported() else "no bf16"
            return Check("GPU", "ok", ", ".join(f"{n} x {name}" for name, n in names.items()) + f", {bf16}")
    except Exception as error:  # a driver that does not fit raises RuntimeError or its own kinds
        return Check(
            "GPU", "note", f"torch cannot use it: {str(error).splitlines()[0][:80]}", "update the driver"
        )
    if "GPU" in listed:
        mend = f"rm -rf .venv && {SETUP} installs torch with CUDA"
        return Check("GPU", "note", "an NVIDIA GPU is there, but this torch cannot use it", mend)
    return Check("GPU", "ok", "none (training runs on the CPU)")


def memory() -> Check:
    """Free and total memory, in GiB."""
    sizes = dict(re.findall(r"^(Mem\w+):\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE))
    if "MemAvailable" not in sizes:
        return Check("memory", "note", "cannot be told on this system")
    free, total = int(sizes["MemAvailable"]) / 2**20, int(sizes["MemTotal"]) / 2**20
    found = f"{free:.1f} GiB free of {total:.1f}"
    if free < 2:
        return Check("memory", "note", found, "training mini_en takes about 2 GiB: end other programs")
    return Check("memory", "ok", found)


def disk(folder: Path = Path()) -> Check:
    """Free space where `folder` lies, in GiB."""
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} in {folder.resolve()}"
    if usage.free < GIB // 2:
        return Check("disk", "FAIL", found, "free some space: mini_en takes about half a GiB")
    if usage.free < 5 * GIB:
        return Check("disk", "note", found, "free some space before bringing a corpus")
    return Check("disk", "ok", found)


def program(name: str, arguments: tuple[str, ...] = ("--version",)) -> Check:
    """Whether a required program is on PATH and runs, and its version."""
    path = shutil.which(name)
    mend = f"install the package {name}, or run {SETUP}"
    if path is None:
        return Check(name, "FAIL", "not on PATH", mend)
    said = _output([path, *arguments])
    if said is None:
        return Check(name, "FAIL", f"{path} does not run", mend)
    version = re.search(r"\d+\.\d+[\w.]*", said)
    return Check(name, "ok", f"{version[0] if version else 'version unknown'} ({path})")


def espeak_library() -> Check:
    """Whether the library behind espeak-ng loads: synthesis calls it in process."""
    name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
    try:
        library = ctypes.CDLL(name)
        library.espeak_Info.restype = ctypes.c_char_p
        version = (library.espeak_Info(None) or b"").decode(errors="replace")
        return Check("libespeak-ng", "ok", f"{version.split('  ')[0]} ({name})")
    except (OSError, AttributeError) as error:
        mend = f"install the package libespeak-ng1, or run {SETUP}"
        return Check("libespeak-ng", "FAIL", f"does not load: {str(error)[:80]}", mend)


def sctk() -> Check:
    """Whether NIST's scorer is there to compare with."""
    path = shutil.which("sclite") or shutil.which("sclite", path=SCTK)
    if path:
        return Check("sclite", "ok", path)
    return Check("sclite", "note", "not there (optional)", f"{SETUP} dev, to compare scores with it")


def packages() -> Iterator[Check]:
    """One line for all required packages that fit, and one for each that is missing or too old."""
    try:
        requirements = metadata.requires("speechkit") or []
    except metadata.PackageNotFoundError:
        yield Check("packages", "FAIL", "speechkit itself is not installed", f"run {SETUP}")
        return
    good = []
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name, least = re.fullmatch(r"([\w.-]+)(?:>=([\d.]+))?.*", requirement).groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, "FAIL", "not installed", f"run {SETUP}")
            continue
        if least and _numbers(version) < _numbers(least):
            yield Check(name, "FAIL", f"{version}, but {least} or newer is needed", f"run {SETUP}")
        else:
            good.append(f"{name} {version}")
    yield Check("packages", "ok", ", ".join(one for one in good if not one.startswith("torch ")))


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu -> (2, 13, 0)."""
    return tuple(int(number) for number in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _output(command: list[str]) -> str | None:
    """What a program prints, or None when it cannot run or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout + done.stderr if done.returncode == 0 else None


CHECKS: list[Callable[[], Check]] = [
    python,
    torch,
    cpu,
    gpu,
    memory,
    disk,
    lambda: program("sox"),
    lambda: program("flac"),
    lambda: program("espeak-ng"),
    espeak_library,
    sctk,
]


def checks() -> list[Check]:
    """All checks in the order of the report."""
    return [check() for check in CHECKS] + list(packages())
