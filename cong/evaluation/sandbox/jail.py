"""The inside of the sandbox: a script that the host starts with an isolated interpreter. Standard library only.

It enters new namespaces, builds a root directory of its own, and forks twice: the first child is process 1 of the new
process namespace and reports how the second, which runs the program, ended. Descriptors are given as arguments:

    python -I -S jail.py JOB SYNC VERDICT STATUS
"""

import ctypes
import json
import os
import resource
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import seccomp

sys.path.pop(0)

WORK = "/work"
_LIBC = ctypes.CDLL(None, use_errno=True)
_USER, _MOUNT, _PID, _NETWORK, _IPC, _HOST = 0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000
_BIND, _RECURSIVE, _PRIVATE, _READ_ONLY, _REMOUNT = 0x1000, 0x4000, 1 << 18, 1, 32
_NO_SUID, _NO_DEVICES = 2, 4
_DETACH = 2
_DIE_WITH_PARENT = 1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_CAPABILITIES = 0x20080522


def main() -> None:
    job_fd, sync, verdict, status = (int(text) for text in sys.argv[1:5])
    with os.fdopen(job_fd, "rb") as file:
        job = json.loads(file.read())
    _check(_LIBC.unshare(_USER | _MOUNT | _PID | _NETWORK | _IPC | _HOST), "new namespaces are not allowed")
    os.write(sync, b"u")
    if os.read(sync, 1) != b"m":
        raise OSError("the host gave no user map")
    os.close(sync)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    nothing = os.open("/dev/null", os.O_RDONLY)
    enter_root(job["root"], job["shown"], size=job["disk_bytes"])
    first = os.fork()
    if first == 0:
        become_first(job, nothing=nothing, verdict=verdict, status=status)
    for descriptor in (0, 1, 2, verdict, status):
        os.close(descriptor)
    os.waitpid(first, 0)


def enter_root(root: str, shown: list[str], *, size: int) -> None:
    """Make a root of directories that may be seen, read-only, and of an empty one that may be written; go there."""
    mount("none", "/", None, _RECURSIVE | _PRIVATE)
    mount("tmpfs", root, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,mode=755")
    for path in shown:
        os.makedirs(root + path, mode=0o755, exist_ok=True)
        mount(path, root + path, None, _BIND | _RECURSIVE)
        read_only(root + path)
    os.mkdir(root + WORK)
    mount("tmpfs", root + WORK, "tmpfs", _NO_SUID | _NO_DEVICES, f"size={size},nr_inodes=1024,mode=777")
    os.mkdir(root + "/old")
    number = _PIVOT_ROOT[os.uname().machine]
    _check(_LIBC.syscall(number, root.encode(), (root + "/old").encode()), "the root cannot be changed")
    os.chdir("/")
    _check(_LIBC.umount2(b"/old", _DETACH), "the old root stays visible")
    os.rmdir("/old")
    mount("none", "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(_LIBC.mount(*arguments), f"{target} cannot be mounted")


def read_only(path: str) -> None:
    """Make a mount and all below it read-only."""
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
    arguments = (_AT_FDCWD, path.encode(), _AT_RECURSIVE, ctypes.byref(attributes), ctypes.c_size_t(32))
    _check(_LIBC.syscall(_MOUNT_SETATTR, *arguments), f"{path} cannot be made read-only")


def become_first(job: dict, *, nothing: int, verdict: int, status: int) -> None:
    """Be process 1: start the program's process, say how it ended, and end; the kernel then ends all others."""
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    program = os.fork()
    if program == 0:
        os.close(status)
        run(job, nothing=nothing, verdict=verdict)
    _, how = os.waitpid(program, 0)
    os.write(status, json.dumps({"signal": os.WTERMSIG(how) if os.WIFSIGNALED(how) else 0}).encode())
    os._exit(0)


def run(job: dict, *, nothing: int, verdict: int) -> None:
    """Give up every right, then run the program and its tests; never returns."""
    try:
        os.dup2(nothing, 0)
        os.close(nothing)
        os.chdir(WORK)
        for kind, value in job["limits"]:
            resource.setrlimit(kind, (value, value))
        if job["unprivileged"]:
            os.setgroups([])
            os.setresgid(1, 1, 1)
            os.setresuid(1, 1, 1)
        drop_capabilities()
        seccomp.install(own_pid=os.getpid())
        os.write(verdict, json.dumps({"ready": True}).encode() + b"\n")
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(3)
    write, leave = os.write, os._exit
    dumps = json.JSONEncoder().encode
    flush = [sys.stdout.flush, sys.stderr.flush]
    outcome = judge(job.pop("program"), job.pop("tests"))
    secret = job["secret"] if outcome["outcome"] == "passed" else ""
    told = dumps({**outcome, "secret": secret}).encode() + b"\n"
    try:
        for each in flush:
            each()
    finally:
        write(verdict, told)
        leave(0)


def judge(program: str, tests: str) -> dict[str, str]:
    """Run program and tests in one namespace; say how it ended."""
    space: dict = {"__name__": "__main__"}
    # Taken before the program runs: it may replace what it finds among the builtins.
    execute, compiled_tests = exec, compile(tests, "tests.py", "exec")
    try:
        execute(compile(program, "program.py", "exec"), space)
        execute(compiled_tests, space)
    except AssertionError as error:
        return {"outcome": "assertion", "detail": _short(error)}
    except MemoryError:
        return {"outcome": "memory", "detail": "out of memory"}
    except SystemExit as error:
        return {"outcome": "exited", "detail": _short(error)}
    except BaseException as error:
        return {"outcome": "exception", "detail": _short(error)}
    return {"outcome": "passed", "detail": ""}


def drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    none = (ctypes.c_uint32 * 6)()
    _check(_LIBC.capset(ctypes.byref(header), ctypes.byref(none)), "capabilities cannot be dropped")


def _short(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return type(error).__name__[:200]


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what} ({os.strerror(number)})")


if __name__ == "__main__":
    main()
