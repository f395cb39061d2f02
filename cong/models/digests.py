"""SHA-256 over everything that a checkpoint directory holds; what was read once is remembered for this user.

    directory_digest(Path("/models/tuned"))      # 30 GB: read once, by several threads

A file counts as read before when its path, inode, size and times are those of the last reading. The digests lie in
`CONG_CACHE`, or the user's cache, in one small file per directory; without it everything is read again.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cong.graph.journal import replace_text

CACHE = "CONG_CACHE"
CHUNK = 64 << 20
"""Bytes that a thread reads at a time of a large file."""
_SMALL = 2 << 20
_HALF = _SMALL // 2
_BUFFER = 1 << 20
_THREADS = 8
_FRESH_NS = 2_000_000_000
_NOTED_BYTES = 4 << 30

Signature = list[int]


def directory_digest(directory: Path, *, leaving_out: tuple[str, ...] = ()) -> str:
    """Return 64 hexadecimal digits over names, sizes and contents of the files, but for hidden ones.

    Files in subdirectories do not count: a training's own directory holds states there that no model is loaded from.
    """
    files = (path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = sorted(path for path in files if path.name not in leaving_out)
    contents = _Remembered(directory.resolve()).contents(paths)
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(contents[path.name]))
    return digest.hexdigest()


class _Remembered:
    """Digests of the files of one directory, kept in a file of the user's cache."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = cache_home() / "digests" / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}.json"

    def contents(self, paths: list[Path]) -> dict[str, str]:
        """Return the digest of every file by its name, reading those that are new or were changed."""
        known, began = self._load(), time.time_ns()
        signatures = {path.name: _signature(path) for path in paths}
        kept = {name: known[name] for name in signatures if name in known and known[name][0] == signatures[name]}
        if new := [path for path in paths if path.name not in kept]:
            digests = _digests(new, directory=self._directory)
            read = {path.name: [signatures[path.name], digests[path.name]] for path in new}
            self._keep(kept | {name: entry for name, entry in read.items() if _settled(entry[0], began=began)})
            kept |= read
        return {name: digest for name, (_, digest) in kept.items()}

    def _load(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _keep(self, entries: dict[str, Any]) -> None:
        # Without a cache that can be written nothing is lost but the time of the next reading.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self._path, json.dumps(entries))


def cache_home() -> Path:
    """Return the directory of what can be made again: `CONG_CACHE`, or that of the user's cache."""
    return Path(os.environ.get(CACHE) or "~/.cache/cong").expanduser()


def _signature(path: Path) -> Signature:
    """Return what changes with a file's content. The time of the last change of the inode cannot be set by a copy."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _settled(signature: Signature, *, began: int) -> bool:
    """Tell whether another write would show: within the clock's own step two writes can have one time."""
    return max(signature[2:]) < began - _FRESH_NS


def _digests(paths: list[Path], *, directory: Path) -> dict[str, str]:
    """Return digests of files, read in chunks by several threads."""
    sizes = {path: path.stat().st_size for path in paths}
    if sum(sizes.values()) > _NOTED_BYTES:
        print(f"note: reading {sum(sizes.values()) / 1e9:.1f} GB of {directory} once, to identify it", file=sys.stderr)
    with ThreadPoolExecutor(min(_THREADS, 2 * (os.cpu_count() or 1)), thread_name_prefix="digest") as pool:
        parts = {path: [pool.submit(part) for part in _parts(path, sizes[path])] for path in paths}
        return {path.name: _joined([future.result() for future in futures]) for path, futures in parts.items()}


def _parts(path: Path, size: int) -> list[Callable[[], bytes]]:
    if size <= _SMALL:
        return [lambda: _small(path)]
    return [lambda start=start: _chunk(path, start) for start in range(0, size, CHUNK)]


def _joined(parts: list[bytes]) -> str:
    return (parts[0] if len(parts) == 1 else hashlib.sha256(b"".join(parts)).digest()).hex()


def _small(path: Path) -> bytes:
    # The form in which identities of small files stand in existing stores: the first and the last MiB are all of it.
    data = path.read_bytes()
    return hashlib.sha256(data[:_HALF] + data[-_HALF:]).digest()


def _chunk(path: Path, start: int) -> bytes:
    digest, buffer, left = hashlib.sha256(), memoryview(bytearray(_BUFFER)), CHUNK
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left > 0 and (count := file.readinto(buffer[: min(left, _BUFFER)])):
            digest.update(buffer[:count])
            left -= count
    return digest.digest()
