"""Builds the sandbox around itself, then runs the program and the tests as two processes in it.

Started by `cong.sandbox.host` as a script in a fresh interpreter with an empty environment. Three steps:
this process enters new namespaces; its child is the first process of the new process namespace, so that when it ends
the kernel ends all others; it makes the file system, starts the two, and reports to the outside what became of them.
"""

import ctypes
import fcntl
import gc
import json
import os
import resource
import signal
import sys
import time
from typing import Any, NoReturn

from . import candidate, mounts, seccomp, tester
from .channel import Channel

NOBODY = 65534
_USER, _OTHERS = 0x10000000, 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # mount pid net ipc uts
_DEATH_SIGNAL = 1
_CAPABILITIES_V3 = 0x20080522
_SETTLE_SECONDS = 5.0


def main(job: dict[str, Any]) -> None:
    """Enter new namespaces, and wait for the child that runs the job in them."""
    die_with_parent()
    if os.getppid() != job["parent"]:
        return
    # Inherited: where it is ignored, nothing is known of children that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        _enter_namespaces()
    except OSError as error:
        send_report(job, {"failed": f"no user namespace can be made ({error.strerror})"})
        return
    first = os.fork()
    if first == 0:
        _first_process(job)
    os.waitpid(first, 0)


def die_with_parent() -> None:
    """Be killed when the parent dies, however it dies."""
    _libc("prctl", _DEATH_SIGNAL, *(ctypes.c_ulong(value) for value in (signal.SIGKILL, 0, 0, 0)))


def _enter_namespaces() -> None:
    """Become root of a new user namespace, in which nothing but this process's own user is known."""
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        _libc("unshare", _USER | _OTHERS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
        _write("/proc/self/gid_map", f"{NOBODY} {group} 1")
        return
    # Limits on processes do not bind root, so the program runs as nobody; only a process outside may map two users.
    here, ready = os.getpid(), os.pipe()
    helper = os.fork()
    if helper == 0:
        _map_two_users(here, ready)
    _libc("unshare", _USER | _OTHERS)
    os.write(ready[1], b"x")
    if os.waitpid(helper, 0)[1] != 0:
        raise PermissionError(1, "users cannot be mapped")


def _map_two_users(process: int, ready: tuple[int, int]) -> NoReturn:
    code = 1
    try:
        os.close(ready[1])
        if os.read(ready[0], 1):
            for name in ("uid_map", "gid_map"):
                _write(f"/proc/{process}/{name}", f"0 0 1\n{NOBODY} {NOBODY} 1\n")
            code = 0
    finally:
        os._exit(code)


def _first_process(job: dict[str, Any]) -> NoReturn:
    die_with_parent()
    try:
        _prepare(job)
    except OSError as error:
        send_report(job, {"failed": f"its file system cannot be made ({error})"})
        os._exit(1)
    send_report(job, {"ready": True})
    send_report(job, _run(job))
    os._exit(0)


def _prepare(job: dict[str, Any]) -> None:
    _libc("sethostname", b"sandbox", 7)
    limits = job["limits"]
    mounts.build_root(
        trees=job["trees"],
        links=job["links"],
        owner=NOBODY,
        box_bytes=limits["disk_bytes"],
        box_files=limits["files"],
    )
    # What was imported so far is not the program's: not collecting it keeps its pages shared.
    gc.freeze()


def _run(job: dict[str, Any]) -> dict[str, str]:
    to_program, to_tests, verdict, failure = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    program = os.fork()
    if program == 0:
        _be_program(job, (job["program"], to_program[0], to_tests[1], failure[1]))
    tests = os.fork()
    if tests == 0:
        _be_tests(job, (job["tests"], to_tests[0], to_program[1], verdict[1], failure[1]))
    for descriptor in (*to_program, *to_tests, verdict[1], failure[1]):
        os.close(descriptor)
    if failed := _read(failure[0]):
        return {"failed": failed}
    written = _read(verdict[0])
    if not written:
        return _how_it_ended(tests, job, who="the tests")
    found = json.loads(written)
    return _how_it_ended(program, job, who="the program") if found.get("reason") == "gone" else found


def _be_program(job: dict[str, Any], descriptors: tuple[int, ...]) -> NoReturn:
    try:
        text, reader, writer = _confined(job, descriptors, directory=mounts.BOX)
        candidate.serve(_read(text), Channel(reader, writer))
    finally:
        os._exit(0)


def _be_tests(job: dict[str, Any], descriptors: tuple[int, ...]) -> NoReturn:
    try:
        text, reader, writer, verdict = _confined(job, descriptors, directory="/")
        try:
            report = tester.run(_read(text), Channel(reader, writer))
        except BaseException as error:
            # Not an error of the tests, which are caught where they run: a program is not blamed for it.
            report = {"failed": f"the tests could not be run: {type(error).__name__}: {error}"}
        os.write(verdict, json.dumps(report).encode())
    finally:
        os._exit(0)


def _confined(job: dict[str, Any], descriptors: tuple[int, ...], *, directory: str) -> range:
    """Give up all rights, for good; returns the numbers that all descriptors but the last have from now on.

    The last takes the text of what fails on the way and is closed at the end: no program can write to it.
    """
    kept = range(3, 3 + len(descriptors))
    # Free numbers behind those that are kept: a fixed one may be that of a descriptor whose turn is still to come.
    above = [fcntl.fcntl(old, fcntl.F_DUPFD_CLOEXEC, kept.stop) for old in descriptors]
    for new, old in zip(kept, above, strict=True):
        os.dup2(old, new)
    os.closerange(kept.stop, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    try:
        _confine(job, directory=directory)
    except BaseException as error:
        os.write(kept[-1], f"a process cannot be confined: {type(error).__name__}: {error}".encode())
        raise
    os.close(kept[-1])
    return kept[:-1]


def _confine(job: dict[str, Any], *, directory: str) -> None:
    os.chdir(directory)
    os.environ.clear()
    sys.path = [path for path in sys.path if path != job["package"]]
    sys.argv = [""]
    _limit(job["limits"])
    _drop_rights()
    seccomp.install()


def _limit(limits: dict[str, Any]) -> None:
    for name, value in {
        "AS": limits["memory_bytes"],
        "CPU": limits["cpu_seconds"],
        "FSIZE": limits["disk_bytes"],
        "NOFILE": limits["open_files"],
        "NPROC": limits["threads"],
        "CORE": 0,
        "MSGQUEUE": 0,
        "MEMLOCK": 0,
    }.items():
        hard = value + 1 if name == "CPU" else value
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, hard))


def _drop_rights() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    _libc("capset", header, (ctypes.c_uint32 * 6)())


def _how_it_ended(process: int, job: dict[str, Any], *, who: str) -> dict[str, str]:
    """Return the verdict on a process that has ended before its time."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            spent = usage.ru_utime + usage.ru_stime
            return _classify(status, spent >= job["limits"]["cpu_seconds"] - 0.1, who)
        time.sleep(0.005)
    return {"reason": "killed", "detail": f"{who} closed the way to the other side"}


def _classify(status: int, used_up: bool, who: str) -> dict[str, str]:
    if not os.WIFSIGNALED(status):
        return {"reason": "killed", "detail": f"{who} ended with exit code {os.WEXITSTATUS(status)}"}
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name if number < signal.SIGRTMIN else f"signal {number}"
    if number == signal.SIGSYS:
        return {"reason": "refused", "detail": f"{who} made a system call that only an escape would make"}
    if number == signal.SIGXCPU or (number == signal.SIGKILL and used_up):
        return {"reason": "timeout", "detail": f"{who} used up its CPU time"}
    # Nobody in here may send this signal: it is the kernel, short of memory.
    reason = "memory" if number == signal.SIGKILL else "killed"
    return {"reason": reason, "detail": f"{who} died of {name}"}


def send_report(job: dict[str, Any], message: dict[str, Any]) -> None:
    """Write one line to the outside."""
    os.write(job["report"], json.dumps(message).encode() + b"\n")


def _read(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        return file.read().decode()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _libc(name: str, *arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
