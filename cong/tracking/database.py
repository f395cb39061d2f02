"""The SQLite database that MLflow keeps inside a store.

It is made beside its place and moved there once it is whole: two runs that begin at once, or a kill in between, leave
none that is half made. One that an older version left half made, and that holds no run, is set aside.
"""

import hashlib
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from cong.graph.journal import open_to_group

NAME = "mlflow.db"
_LINKS = Path("~/.cache/cong/links")
# In an address of SQLAlchemy these begin a query, a fragment or an escape, in one of its versions or another.
_ADDRESS_CHARACTERS = re.compile(r"[%?#\x00-\x1f]")
_SCHEME = "sqlite:///"
_BUSY = ("locked", "busy")


def uri_of(root: Path) -> str:
    """Return the address of a store's database."""
    directory = root.resolve()
    if _ADDRESS_CHARACTERS.search(str(directory)):
        directory = _link_to(directory)
    return f"{_SCHEME}{directory / NAME}"


def prepare(root: Path, *, connect: Callable[[str], Any]) -> None:
    """Make the store's database unless there is one that can be used; `connect` opens a database at an address."""
    path = root.resolve() / NAME
    if _is_whole(path):
        open_to_group(path)
        return
    with FileLock(str(root / ".mlflow.lock")):
        if _is_whole(path):
            return
        if path.is_file() and not _holds_runs(path):
            aside = path.with_name(f"{NAME}.unfinished-{time.time_ns()}")
            path.rename(aside)
            print(f"note: {path} was not made to its end; it is now {aside.name}", file=sys.stderr, flush=True)
        if not path.exists():
            _make(path, connect)


def check(uri: str) -> None:
    """Raise `sqlite3.Error` when an address names a SQLite database that cannot be opened."""
    path = Path(uri.removeprefix(_SCHEME))
    if uri.startswith(_SCHEME) and not _ADDRESS_CHARACTERS.search(uri) and (path.exists() or path.parent.exists()):
        with closing(sqlite3.connect(path, timeout=20)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def _make(path: Path, connect: Callable[[str], Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="cong-mlflow-") as directory:
        made = Path(directory) / NAME
        # The first question makes the database; nobody else knows of this one.
        connect(f"{_SCHEME}{made}").search_experiments(max_results=1)
        temporary = path.with_name(f".{NAME}.{os.getpid()}.tmp")
        temporary.write_bytes(made.read_bytes())
    # SQLite makes its files for their owner alone to write, whatever the umask.
    open_to_group(temporary)
    os.replace(temporary, path)


def _is_whole(path: Path) -> bool:
    """Tell whether a database was made to its end, which MLflow marks with its first experiment."""
    return _count(path, "experiments") > 0


def _holds_runs(path: Path) -> bool:
    return _count(path, "runs") > 0


def _count(path: Path, table: str) -> int:
    if not path.exists():
        return 0
    try:
        with _reading(path) as connection:
            unfinished = connection.execute("SELECT 1 FROM sqlite_master WHERE name LIKE '_alembic_tmp_%'").fetchone()
            rows = connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
    except sqlite3.Error as error:
        # Who writes now has a database that is whole.
        return int(any(word in str(error) for word in _BUSY))
    return int(rows is not None and (unfinished is None or table == "runs"))


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
        yield connection


def _link_to(directory: Path) -> Path:
    """Return a link to a directory whose own name no address can hold."""
    link = _LINKS.expanduser() / hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != directory:
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(directory)
        os.replace(temporary, link)
    return link
