"""Answers on disk, one file per request: what was paid for once is never asked again, by no process and no later run.

    cache = AnswerCache(directory)
    with cache.claim(key) as found:          # waits while another thread or process asks for the same
        if found is None:
            cache.put(key, entry)

The key is a digest of the whole request (model, messages, parameters). Where the request is sent is not part of it, as
it is not part of a stage's identity either.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from cong.graph.journal import replace_text

Body = dict[str, Any]


def request_key(body: Body) -> str:
    """Return the digest that names a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class AnswerCache:
    """Entries under a directory. A claim is a lock that the kernel frees with its process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[Body | None]:
        """Hold a request alone, and yield its entry, or None when nobody has an answer yet."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path.with_suffix(".lock"))):
            yield self.get(key)

    def get(self, key: str) -> Body | None:
        """Return an entry; one that a crash of the machine left unreadable is set aside."""
        path = self._path(key)
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            os.replace(path, path.with_suffix(".unreadable"))
            return None

    def put(self, key: str, entry: Body) -> None:
        """Keep an entry: from here on it is found."""
        replace_text(self._path(key), json.dumps(entry, ensure_ascii=False))

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"
