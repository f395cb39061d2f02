"""The source behind a function of a user's file, as its identity: its text, and all of the file that it rests on.

A function rests on the definitions and assignments of its file that it names, those that these name, and so on. Neither
comments nor docstrings nor the file's other contents count. Of a constant its value counts too, since it may come from
elsewhere. Of an imported module its version counts where it is installed, and its whole text where it is a file of the
user's. What lies in files that are opened, and in objects made of them, cannot be known: it is no part of it.
"""

import ast
import functools
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from cong.errors import UserError
from cong.graph.fingerprint import canonical, fingerprint

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def source_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what identifies a function; raise `UserError` for one whose source cannot be followed."""
    inner = inspect.unwrap(function)
    _check(inner)
    file = inspect.getsourcefile(inner)
    if file is None:
        raise UserError(f"{inner.__name__} is of no file: its source cannot be followed")
    path = Path(file)
    if _is_installed(path):
        return {"function": f"{inner.__module__}.{inner.__qualname__}", "imports": _imported({inner.__module__}, path)}
    return _of_file(path, inner.__qualname__, values=inner.__globals__)


def _check(function: Any) -> None:
    if not inspect.isfunction(function):
        raise UserError(f"a reward is a function, `def reward(prompt, response)`, and not of {type(function).__name__}")
    if function.__name__ == "<lambda>":
        raise UserError("a lambda is no reward: its source cannot be followed; write a `def` at the top of the file")
    if function.__closure__ or function.__qualname__ != function.__name__:
        raise UserError(
            f"{function.__qualname__} is defined within something else, whose variables cannot be followed: "
            "put it at the top of its file"
        )


def _of_file(path: Path, name: str, *, values: dict[str, Any]) -> dict[str, Any]:
    statements = _statements(path)
    if name not in statements:
        raise UserError(f"{path} has no definition of {name} at its top: its source cannot be followed")
    reached = sorted(_reached(name, statements))
    nodes = [node for one in reached for node in statements[one]]
    constants = {one: value for one in reached if (value := _value(values.get(one))) is not None}
    return {
        "function": name,
        "source": fingerprint({one: [ast.unparse(node) for node in statements[one]] for one in reached}),
        "constants": fingerprint(constants),
        "imports": _imported({module for node in nodes for module in _modules(node, path)}, path),
    }


def _reached(name: str, statements: dict[str, list[ast.stmt]]) -> set[str]:
    """Return the names of a file that a name rests on, itself among them."""
    reached, queue = {name}, [name]
    while queue:
        walked = (part for node in statements[queue.pop()] for part in ast.walk(node))
        new = {part.id for part in walked if isinstance(part, ast.Name)} & statements.keys() - reached
        reached |= new
        queue += new
    return reached


def _statements(path: Path) -> dict[str, list[ast.stmt]]:
    """Return the statements at the top of a file, without docstrings, by the names that they bind."""
    try:
        tree = ast.parse(path.read_text())
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: its source cannot be followed ({error})") from error
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            raise UserError(f"{path}: `{ast.unparse(statement)}` cannot be followed: import the names that are used")
        _drop_docstrings(statement)
        for name in _bound(statement):
            found.setdefault(name, []).append(statement)
    return found


def _drop_docstrings(statement: ast.AST) -> None:
    for node in ast.walk(statement):
        if isinstance(node, _DEFINITIONS) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement, or what stands in its blocks, binds at the top of the file."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, _DEFINITIONS):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    # `WORDS.append(...)` and `WORDS["a"] = 1` change what a name stands for.
    if not isinstance(statement, ast.Import | ast.ImportFrom | ast.If | ast.Try):
        names |= {
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and _is_changed(node, statement)
        }
    return names


def _is_changed(name: ast.Name, statement: ast.stmt) -> bool:
    """Return whether a statement may change what a name of the file stands for, without binding it."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        callee = statement.value.func
        return isinstance(callee, ast.Attribute) and callee.value is name
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(part is name for target in targets for part in ast.walk(target))


def _modules(node: ast.AST, path: Path) -> Iterator[str]:
    """Yield the modules that a statement, or a function in it, imports."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            if part.level or part.module is None:
                raise UserError(f"{path}: `{ast.unparse(part)}` cannot be followed: name the module in full")
            yield part.module
            yield from _submodules(part.module, part.names, path)


def _submodules(package: str, names: list[ast.alias], path: Path) -> Iterator[str]:
    """Yield those of the names imported from a user's package that are files of their own."""
    file = _file_of(package, path)
    if file is not None and file.name == "__init__.py" and not _is_installed(file):
        yield from (f"{package}.{one.name}" for one in names if importlib.util.find_spec(f"{package}.{one.name}"))


def _imported(modules: set[str], path: Path) -> dict[str, str]:
    """Return by module its version, or the digest of its text where it is a file of the user's."""
    found: dict[str, str] = {}
    queue = sorted(modules)
    while queue:
        name = queue.pop()
        if name in found:
            continue
        file = _file_of(name, path)
        if file is None or _is_installed(file):
            found[name] = _version(name.split(".")[0])
        else:
            tree = ast.parse(file.read_text())
            _drop_docstrings(tree)
            found[name] = fingerprint(ast.unparse(tree))
            queue += _modules(tree, file)
    return found


def _file_of(module: str, path: Path) -> Path | None:
    """Return the file of a module that a user's file imports, None for one without."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        raise UserError(f"{path} imports {module}, which cannot be found: its source cannot be followed") from None
    if spec is None:
        raise UserError(f"{path} imports {module}, which cannot be found: its source cannot be followed")
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _is_installed(path: Path) -> bool:
    package = Path(__file__).resolve().parents[1]
    return any(folder in path.resolve().parents for folder in (*_INSTALLED, package))


@functools.cache
def _version(package: str) -> str:
    """Return the version of an installed package; of Python's own modules, and of `cong`, none counts."""
    if package in sys.stdlib_module_names or package == __name__.split(".")[0]:
        return ""
    for name in (package, *metadata.packages_distributions().get(package, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _value(value: Any) -> Any:
    """Return the canonical form of a constant, None for what has none: then its source alone counts."""
    try:
        return canonical(sorted(cast(set[Any], value)) if isinstance(value, set | frozenset) else value)
    except TypeError:
        return None
