"""Which file may import which (CONTRIBUTING, rules 2 and 11), read from the syntax trees of all files."""

import ast
import subprocess
import sys

import pytest
from style.sources import ROOMS, ROOT, python_files, tree, where

# Ground floor first: each room imports only what stands above it.
ORDER = (
    *("errors", "files", "hashing", "stamp", "config", "orderings", "system_variants", "systems", "jobs"),
    *("doctor", "text", "layers", "frontends", "data", "clustering", "losses", "metrics", "encoders"),
    *("decoders", "fusion", "lm", "search", "integrations", "models", "train", "decoding", "bin"),
)
LIGHT_ROOMS = (
    *("errors", "files", "stamp", "config", "orderings", "system_variants", "systems", "jobs", "doctor"),
    *("text", "bin", "__init__"),
)
# Kinds that stand in a table of a room far above their own: opened only when a configuration names them.
LOOKED_UP = {
    "frontends": ("speechkit.decoding.encoder_features",),
    "encoders": ("speechkit.integrations.espnet_encoder",),
}
NEVER_AT_THE_TOP = {"av", "lhotse", "transformers", "matplotlib", "tensorboard"}
PACKAGE = python_files("speechkit")
CODE = [*python_files("speechkit", "utils", "egs", "tools"), ROOT / "setup.py"]


def imported(node):
    """The dotted names that a statement imports: `from a import b` gives a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def modules_named(node):
    """Imports, and module paths as the tables of kinds hold them: "speechkit.room.file"."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        named = node.value.startswith("speechkit.") and node.value.replace(".", "").replace("_", "").isalnum()
        return [node.value] if named and len(node.value.split(".")) > 2 else []
    return imported(node)


def wrong_direction(room, source):
    """The names below `room` that the code imports."""
    wrong = []
    for node in ast.walk(source):
        for name in modules_named(node):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            below = other in ORDER and ORDER.index(other) > ORDER.index(room)
            if package == "speechkit" and below and name not in LOOKED_UP.get(room, ()):
                wrong.append((name, node))
    return wrong


def at_the_top(source):
    """Statements that run when a module is imported: no function's, nothing for type checkers only."""
    todo = list(source.body)
    while todo:
        node = todo.pop()
        yield node
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not checking and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def room_of(path):
    return path.relative_to(ROOT / "speechkit").parts[0].removesuffix(".py")


def test_every_room_has_its_place():
    assert set(ROOMS) <= set(ORDER)
    assert {room_of(path) for path in PACKAGE} <= {*ORDER, "__init__"}


def test_a_room_imports_only_rooms_above_it():
    wrong = [
        f"{where(path, node)}: {room_of(path)} imports {name}"
        for path in PACKAGE
        if room_of(path) != "__init__"  # the package's door, which opens `decoding` when it is called
        for name, node in wrong_direction(room_of(path), tree(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_recipes_and_utils_are_not_imported():
    wrong = [
        f"{where(path, node)}: {name}"
        for path in PACKAGE
        for node in ast.walk(tree(path))
        for name in imported(node)
        if name.partition(".")[0] in ("egs", "utils", "tools", "test", "local")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "from speechkit.train.loop import train",
        "import speechkit.bin",
        "def f():\n    from speechkit import models",
        'TABLE = {"x": "speechkit.decoding.ctc_beam"}',
    ],
)
def test_a_wrong_direction_is_found(code):
    assert len(wrong_direction("data", ast.parse(code))) == 1
    assert not wrong_direction("bin", ast.parse(code))


def test_heavy_libraries_are_imported_where_they_are_used():
    wrong = []
    for path in PACKAGE:
        heavy = NEVER_AT_THE_TOP | ({"torch"} if room_of(path) in LIGHT_ROOMS else set())
        for node in at_the_top(tree(path)):
            wrong += [f"{where(path, node)}: {n}" for n in imported(node) if n.partition(".")[0] in heavy]
    assert not wrong, "\n".join(wrong)


def test_light_commands_load_no_heavy_library():
    code = """
import sys
from contextlib import suppress
import speechkit.config, speechkit.jobs
from speechkit.bin.__main__ import main
for words in (["--help"], ["validate", "--help"]):
    with suppress(SystemExit):
        main(words)
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--read-audio" in done.stdout and "usage: speechkit <verb>" in done.stdout
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "speechkit" in loaded and not loaded & {"torch", *NEVER_AT_THE_TOP}


# ---- calls and modules that no code here has a use for ----------------------------------------------

UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    *("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "shutil.unpack_archive"),
}


def unsafe(node):
    """What is unsafe about a node, or None."""
    for name in imported(node):
        top = name.partition(".")[0]
        if top in UNSAFE_MODULES:
            return f"imports {top}: loading runs code"
        if top == "torchaudio":
            return "imports torchaudio"
        if name in UNSAFE_CALLS:
            return f"imports {name}"
    return _unsafe_call(node) if isinstance(node, ast.Call) else None


def _unsafe_call(node):
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called in UNSAFE_CALLS:
        return called
    if given.get("shell", "False") != "False":
        return "shell=True"
    if given.get("allow_pickle", "False") != "False":
        return "allow_pickle=True"
    if called == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if called.endswith((".extractall", ".extract")) and given.get("filter") not in ("'data'", "'tar'"):
        return f"{called} without filter='data'"
    if called.endswith(("import_module", "__import__")) and "torchaudio" in ast.unparse(node):
        return "imports torchaudio"
    return None


def test_nothing_unsafe_is_called():
    found = [
        f"{where(path, node)}: {what}"
        for path in CODE
        for node in ast.walk(tree(path))
        if (what := unsafe(node))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "os.system(line)",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=shell)",
        "def f():\n    import pickle",
        "from pickle import load",
        "np.load(path, allow_pickle=True)",
        "yaml.load(stream, Loader=yaml.Loader)",
        "from yaml import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "archive.extractall(folder)",
        "import torchaudio.transforms",
        "importlib.import_module('torchaudio')",
    ],
)
def test_unsafe_code_is_found(code):
    assert any(unsafe(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(stream)",
        "tar.extractall(folder, filter='data')",
    ],
)
def test_safe_code_is_not(code):
    assert not any(unsafe(node) for node in ast.walk(ast.parse(code)))


def test_torchaudio_is_no_dependency():
    assert "torchaudio" not in (ROOT / "setup.py").read_text(encoding="utf-8")
    installers = [path for path in (ROOT / "tools").glob("*.sh")]
    assert installers and not [path.name for path in installers if "torchaudio" in path.read_text()]
