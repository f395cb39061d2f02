"""Answers on disk, one file per request: what was paid for once is never asked again, by no process and no later run.

    cache = AnswerCache(directory)
    with cache.claim(key) as found:          # waits while another thread or process asks for the same
        if found is None:
            cache.put(key, entry)

The key is a digest of the whole request (model, messages, parameters) and of where it is sent: two servers, or two
deployments of one, can serve different models under one name.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from cong.graph.journal import replace_text

Body = dict[str, Any]


def request_key(body: Body, *, server: str) -> str:
    """Return the digest that names a request to a server, as `place_of` names it."""
    named = {"server": server, "request": body}
    return hashlib.sha256(json.dumps(named, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def place_of(url: str, *, deployment: str | None = None) -> str:
    """Return what names the server behind a base URL, and where it is given the deployment; without credentials."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower() + (f":{parts.port}" if parts.port else "")
    place = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    return f"{place}#{deployment}" if deployment else place


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
