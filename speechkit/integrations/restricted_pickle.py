"""Reads pickles without running anything from them.

A pickle is a program for a stack machine. This one knows the instructions that build data; a name in the
file (`GLOBAL`) is never imported or called. It is looked up in a table of a dozen data builders, becomes an
inert `Stub` when it is a known class of configuration, and is refused by name otherwise.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from speechkit.errors import InputError


@dataclass(eq=False)
class Stub:
    """An object of a class that was not imported: its name and the plain data it was made from."""

    module: str
    name: str
    arguments: tuple = ()
    state: Any = None
    items: dict = field(default_factory=dict)
    elements: list = field(default_factory=list)


@dataclass(frozen=True)
class Global:
    """A name that may stand in a checkpoint."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


INERT = re.compile(
    r"""
      argparse\.Namespace
    | omegaconf\.(?:dictconfig|listconfig|basecontainer|base|nodes)\.\w+
    | typing\.(?:Any|Dict|List|Tuple|Optional|Union)
    | fairseq\.data\.dictionary\.Dictionary
    | fairseq\.dataclass\.[\w.]+
    | fairseq\.[\w.]+\.\w*(?:Config|Choices)
    | fairseq\.(?:logging\.)?meters\.\w+
    | enum\.Enum
    | builtins\.(?:object|int|long|float|bool|str|unicode|complex)
    | pathlib\.(?:Pure)?(?:Posix|Windows)?Path
    | numpy\.(?:dtype|ndarray|bool_|float16|float32|float64|int32|int64)
    | numpy\._?core\.multiarray\.(?:scalar|_reconstruct)
    | torch\.(?:Size|device|float16|float32|float64|bfloat16|int32|int64)
    | torch\.(?:cuda\.)?\w+Storage | torch\.storage\.UntypedStorage
    """,
    re.VERBOSE,
)
"""Classes of configurations, dictionaries, meters and numbers: they become stubs."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise InputError(f"bytes in the encoding '{encoding}'")
    return text.encode(encoding)


BUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": dict,
    "collections.defaultdict": lambda factory=None, items=(): dict(items),
    "collections.Counter": dict,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.bytes": lambda values=(): bytes(list(values)),
    "_codecs.encode": _encode,
}
"""Names whose call only makes a container or a number; a file's own builders (tensors) are added to it."""

_RECONSTRUCTORS = ("copyreg._reconstructor", "copyreg.__newobj__")
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSHED = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
_MARK = object()
_DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError),
    *(OverflowError, MemoryError, RecursionError),
)
"""What instructions raise that do not fit what is on the stack."""


class Machine:
    """Executes one pickle.

    Args:
        builders: further names that may be called, with what stands for them.
        persistent: turns a persistent id (a tensor's storage) into a value.
    """

    def __init__(
        self, builders: dict[str, Callable] | None = None, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.builders = {**BUILDERS, **(builders or {})}
        self.persistent = persistent or _no_persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        """The value of the pickle that starts at the file's position, which is left behind its end.

        Raises:
            InputError: a name or instruction that is refused, or a damaged pickle; without the file's name.
        """
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    (value,) = self.stack
                    return value
                self._step(opcode.name, argument)
        except InputError:
            raise
        except _DAMAGE as error:
            why = (str(error).splitlines() or [""])[0][:120]
            raise InputError(f"damaged pickle ({type(error).__name__}: {why})") from None
        raise InputError("damaged pickle (it ends early)")

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _PUSHED:
            self.stack.append(argument)
        elif name in _SIMPLE:
            _SIMPLE[name](self)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(self._named(*argument.split(" ", 1)))
        elif name == "PERSID":
            self.stack.append(self.persistent(argument))
        elif name == "INST":
            arguments = self._marked()
            self.stack.append(self._call(self._named(*argument.split(" ", 1)), tuple(arguments)))
        elif name not in ("PROTO", "FRAME"):
            raise InputError(f"refused: the pickle instruction {name}, which a checkpoint has no use for")

    def _named(self, module: Any, name: Any) -> Global:
        """The name if it is a known one."""
        module = _RENAMED.get(module, module)
        full = f"{module}.{name}"
        if full in self.builders or full in _RECONSTRUCTORS or INERT.fullmatch(full):
            return Global(module, name)
        raise InputError(f"refused: it names {full}, which a checkpoint has no use for; nothing was run")

    def _call(self, called: Any, arguments: tuple) -> Any:
        """What a call of a known name gives: data, or a stub."""
        if not isinstance(called, Global):
            raise InputError(f"refused: it calls a {type(called).__name__}, not a name; nothing was run")
        full = str(called)
        if full in _RECONSTRUCTORS:
            called, arguments = arguments[0], ()
            full = str(called)
        if full in self.builders:
            return self.builders[full](*arguments)
        if not isinstance(called, Global):
            raise InputError(f"refused: it makes an object of {called!r}; nothing was run")
        return Stub(called.module, called.name, arguments)

    def _marked(self) -> list[Any]:
        """Pops everything above the last mark, and the mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        values, self.stack[at:] = self.stack[at + 1 :], []
        return values

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("empty stack")
        values, self.stack[len(self.stack) - count :] = self.stack[len(self.stack) - count :], []
        return values

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(values)
        else:
            (target.elements if isinstance(target, Stub) else target).extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Stub) else target).update(zip(values[::2], values[1::2]))

    def _build(self) -> None:
        """Gives an object its state; plain containers (an OrderedDict with attributes) need none."""
        (state,) = self._pop(1)
        if isinstance(self.stack[-1], Stub):
            self.stack[-1].state = state


def _no_persistent(identity: Any) -> Any:
    raise InputError("refused: a persistent id where none belongs")


def _pushed(function: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(function(machine))


def _pairs(values: list[Any]) -> dict:
    return dict(zip(values[::2], values[1::2]))


def _object(machine: Machine) -> Any:
    called, *arguments = machine._marked()
    return machine._call(called, tuple(arguments))


def _with_keywords(machine: Machine) -> Any:
    called, arguments, keywords = machine._pop(3)
    return machine._call(called, (*arguments, *keywords.values()))


_SIMPLE: dict[str, Callable[[Machine], Any]] = {
    "EMPTY_LIST": _pushed(lambda m: []),
    "EMPTY_TUPLE": _pushed(lambda m: ()),
    "EMPTY_DICT": _pushed(lambda m: {}),
    "EMPTY_SET": _pushed(lambda m: set()),
    "MARK": _pushed(lambda m: _MARK),
    "LIST": _pushed(lambda m: m._marked()),
    "TUPLE": _pushed(lambda m: tuple(m._marked())),
    "DICT": _pushed(lambda m: _pairs(m._marked())),
    "FROZENSET": _pushed(lambda m: frozenset(m._marked())),
    "TUPLE1": _pushed(lambda m: tuple(m._pop(1))),
    "TUPLE2": _pushed(lambda m: tuple(m._pop(2))),
    "TUPLE3": _pushed(lambda m: tuple(m._pop(3))),
    "APPEND": lambda m: m._extend(m._pop(1)),
    "APPENDS": lambda m: m._extend(m._marked()),
    "ADDITEMS": lambda m: m._extend(m._marked()),
    "SETITEM": lambda m: m._set(m._pop(2)),
    "SETITEMS": lambda m: m._set(m._marked()),
    "POP": lambda m: m._pop(1),
    "POP_MARK": lambda m: m._marked(),
    "DUP": _pushed(lambda m: m.stack[-1]),
    "MEMOIZE": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "STACK_GLOBAL": _pushed(lambda m: m._named(*m._pop(2))),
    "REDUCE": _pushed(lambda m: m._call(*m._pop(2))),
    "NEWOBJ": _pushed(lambda m: m._call(*m._pop(2))),
    "NEWOBJ_EX": _pushed(_with_keywords),
    "OBJ": _pushed(_object),
    "BUILD": lambda m: m._build(),
    "BINPERSID": _pushed(lambda m: m.persistent(m._pop(1)[0])),
}
"""Instructions without an argument."""

DEPTH = 100


def plain(value: Any) -> Any:
    """A configuration as nested dicts and lists of plain values.

    Namespaces and dataclasses give their fields, omegaconf containers their content, enumeration members
    their value; a tensor or a class stays as it is.

    Raises:
        InputError: nested deeper than any configuration, or a container within itself.
    """
    return _plain(value, DEPTH, {})


_OPEN = object()


def _plain(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    """`seen` holds the result of every container met, so that shared ones are walked once."""
    if not isinstance(value, (dict, list, tuple, Stub)):
        return value
    if id(value) not in seen:
        seen[id(value)] = _OPEN
        seen[id(value)] = _unwrapped(value, depth - 1, seen)
    if seen[id(value)] is _OPEN or depth == 0:
        raise InputError("refused: a configuration within itself, or nested more than 100 levels deep")
    return seen[id(value)]


def _unwrapped(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part, depth, seen) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, depth, seen) for part in value]
    state = value.state if isinstance(value.state, dict) else {}
    for key in ("_content", "_val"):
        if key in state:
            return _plain(state[key], depth, seen)
    if len(value.arguments) == 1 and not state:
        return _plain(value.arguments[0], depth, seen)
    return {key: _plain(part, depth, seen) for key, part in {**state, **value.items}.items()}
