"""Docstrings are there and say what the code says (CONTRIBUTING, rule 4): Args agree with signatures."""

import ast
import re

from style.sources import python_files, tree, where

PACKAGE = python_files("speechkit")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_ARGUMENT = re.compile(r"^ {4}((?:\*{0,2}\w+(?:, )?)+)(?: \([^)]*\))?:")


def documented(docstring):
    """The names in the Args section, in order, or None when there is none."""
    lines = iter(docstring.splitlines())
    for line in lines:
        if line.strip() == "Args:":
            break
    else:
        return None
    names = []
    for line in lines:
        if line and not line.startswith(" "):
            break
        if match := _ARGUMENT.match(line):
            names += [name.strip().lstrip("*") for name in match[1].split(",")]
    return names


def parameters(function):
    """The parameters of a function, without self and cls."""
    spec = function.args
    found = [*spec.posonlyargs, *spec.args, spec.vararg, *spec.kwonlyargs, spec.kwarg]
    return [argument.arg for argument in found if argument and argument.arg not in ("self", "cls")]


def is_dataclass(node):
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def fields(node):
    """The fields of a dataclass as (name, its statement, the statement after it)."""
    after = [*node.body[1:], None]
    return [
        (statement.target.id, statement, follower)
        for statement, follower in zip(node.body, after)
        if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation)
    ]


def takes(node):
    """The names that an Args section of this function or class speaks of; None when it cannot be told."""
    if isinstance(node, FUNCTION):
        return parameters(node)
    bases = [ast.unparse(base) for base in node.bases]
    if is_dataclass(node) or "Protocol" in bases or "NamedTuple" in bases:
        return [name for name, _, _ in fields(node) if not name.startswith("_")]
    init = [item for item in node.body if isinstance(item, FUNCTION) and item.name == "__init__"]
    return parameters(init[0]) if init else None


def definitions(body, inside=""):
    """Every function and class of a module, those inside others too, as (qualified name, node)."""
    for node in body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)):
            yield inside + node.name, node
            yield from definitions(node.body, f"{inside}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from definitions(node.body, inside)


def disagreements(source):
    """(node, message) for each parameter that is documented and gone, or there and not documented."""
    for name, node in definitions(source.body):
        told = documented(ast.get_docstring(node) or "")
        there = takes(node)
        if told is None or there is None:
            continue
        for gone in [other for other in told if other not in there]:
            yield node, f"{name} documents '{gone}', which it does not take"
        for missing in [other for other in there if other not in told]:
            yield node, f"{name} does not document '{missing}'"
        if sorted(told) == sorted(there) and told != there:
            yield node, f"{name} documents its parameters in another order"


def public(source):
    """The public functions and classes of a module."""
    return [
        (name, node)
        for name, node in definitions(source.body)
        if "." not in name and not name.startswith("_")
    ]


def bare_fields(source):
    """The fields of Config classes without a line of documentation below them."""
    return [
        (statement, f"{node.name}.{name}")
        for _, node in definitions(source.body)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config") and is_dataclass(node)
        for name, statement, follower in fields(node)
        if not (isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant))
    ]


def unannotated(source):
    """(node, name) of public functions and methods with a parameter or a result of unknown type."""
    for name, node in definitions(source.body):
        if isinstance(node, FUNCTION) and not any(part.startswith("_") for part in name.split(".")):
            spec = node.args
            given = [*spec.posonlyargs, *spec.args, spec.vararg, *spec.kwonlyargs, spec.kwarg]
            bare = [a.arg for a in given if a and not a.annotation and a.arg not in ("self", "cls", "ctx")]
            if bare or node.returns is None:
                yield node, f"{name}({', '.join(bare)})"


def test_args_agree_with_signatures():
    wrong = [f"{where(path, node)}: {what}" for path in PACKAGE for node, what in disagreements(tree(path))]
    assert not wrong, "\n".join(wrong)


def test_every_public_name_is_described():
    bare = [where(path) for path in PACKAGE if not ast.get_docstring(tree(path))]
    bare += [
        f"{where(path, node)}: {name}"
        for path in PACKAGE
        for name, node in public(tree(path))
        if not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


def test_every_key_of_a_configuration_is_described():
    found = [f"{where(path, node)}: {name}" for path in PACKAGE for node, name in bare_fields(tree(path))]
    assert not found, "\n".join(found)


def test_public_functions_are_annotated():
    found = [f"{where(path, node)}: {name}" for path in PACKAGE for node, name in unannotated(tree(path))]
    assert not found, "\n".join(found)


CODE = '''
"""A module."""

def same(x, *rest, scale=1, **others):
    """Does.

    Args:
        x: `(B, T)` values:
            of which there are many
        *rest: more.
        scale, others: the rest.

    Returns:
        y: not a parameter.
    """

def gone_and_missing(new):
    """Does.

    Args:
        old: what it was called.
    """

class Thing:
    """Is.

    Args:
        second: of two.
        first: of two.
    """

    def __init__(self, first, second): ...

    def bare(self): ...

def nothing(x): ...

@dataclass
class FrameConfig:
    """Keys.

    Args:
        rate: Hz.
    """

    rate: int = 16000
    """Hz"""
    shift: float = 10.0
'''


def test_what_is_wrong_is_found():
    source = ast.parse(CODE)
    assert sorted(what for _, what in disagreements(source)) == [
        "FrameConfig does not document 'shift'",
        "Thing documents its parameters in another order",
        "gone_and_missing documents 'old', which it does not take",
        "gone_and_missing does not document 'new'",
    ]
    assert [name for name, node in public(source) if not ast.get_docstring(node)] == ["nothing"]
    assert [name for _, name in unannotated(ast.parse("def f(x: int, y) -> int: ...\ndef g(): ..."))] == [
        "f(y)",
        "g()",
    ]
    assert [name for _, name in bare_fields(source)] == ["FrameConfig.shift"]


def test_the_sections_are_read():
    """That nothing disagrees means something only if the Args sections of the package are seen."""
    told = [
        documented(ast.get_docstring(node) or "")
        for path in PACKAGE
        for _, node in definitions(tree(path).body)
    ]
    assert sum(names is not None for names in told) > 40 and [] not in told
