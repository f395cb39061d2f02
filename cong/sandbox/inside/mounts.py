"""The file system that a program sees: the libraries of Python, four devices, and a small directory of its own.

Everything else (home directories, stores, /proc, /sys, the outside's /tmp) is not there, and only `BOX` can be written.
"""

import ctypes
import os
import struct

BOX = "/box"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_STAGE = "/tmp"
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 4096, 16384, 1 << 18, 2
_MOUNT_SETATTR, _HERE, _AT_RECURSIVE = 442, -100, 0x8000


def build_root(*, trees: list[str], links: dict[str, str], owner: int, box_bytes: int, box_files: int) -> None:
    """Make a new root in this mount namespace, enter it, and leave the old one behind."""
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _mount("tmpfs", _STAGE, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,nr_inodes=4096,mode=755")
    os.mkdir(_STAGE + "/old")
    _call("pivot_root", _STAGE.encode(), (_STAGE + "/old").encode())
    os.chdir("/")
    for tree in trees:
        os.makedirs(tree, mode=0o755, exist_ok=True)
        _bind(tree)
    for link, target in links.items():
        os.symlink(target, link)
    os.mkdir("/dev", mode=0o755)
    for device in _DEVICES:
        open(device, "x").close()
        _bind(device)
    os.mkdir(BOX)
    options = f"size={box_bytes},nr_inodes={box_files},mode=700,uid={owner},gid={owner}"
    _mount("tmpfs", BOX, "tmpfs", _NO_SUID | _NO_DEVICES | _NO_EXEC, options)
    _call("umount2", b"/old", _DETACH)
    os.rmdir("/old")
    _set_attributes("/", _READ_ONLY, recursive=False)


def _bind(path: str) -> None:
    device = path.startswith("/dev/")
    _mount("/old" + path, path, None, _BIND | _RECURSIVE)
    _set_attributes(path, _READ_ONLY | _NO_SUID | (0 if device else _NO_DEVICES), recursive=True)


def _set_attributes(path: str, flags: int, *, recursive: bool) -> None:
    # Unlike a remount, this adds flags and keeps those that a user namespace may not clear.
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    _call("syscall", _MOUNT_SETATTR, _HERE, path.encode(), _AT_RECURSIVE * recursive, attributes, len(attributes))


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = (text.encode() if text else None for text in (source, target, kind))
    _call("mount", *encoded, ctypes.c_ulong(flags), options.encode())


def _call(name: str, *arguments) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{[a for a in arguments if isinstance(a, bytes)]}: {os.strerror(number)}")
