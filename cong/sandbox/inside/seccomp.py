"""The filter of system calls: a list of what is allowed, and nothing else.

    install()    # for this process and its threads, for good

Allowed are files, memory, time, signals to oneself and threads. A call that only an escape would make (a new process,
another program, a socket, a mount, a signal to others) kills the process by SIGSYS, so that the verdict can say so;
every other call does not exist (ENOSYS), and neither will those that kernels invent later.
"""

import ctypes
import errno
import os
import struct

_MACHINE = 0xC000003E  # AUDIT_ARCH_X86_64: numbers and order of bytes below are those of this machine.
_X32 = 0x40000000
_NUMBER, _ARCH, _ARGS = 0, 4, 16  # Offsets in struct seccomp_data.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ABSENT = 0x7FFF0000, 0x80000000, 0x00050000 | errno.ENOSYS
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2

# Flags with which glibc and musl start a thread; every other use of clone makes a process.
_THREADS = (0x3D0F00, 0x7D0F00)
_TERMINAL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_DESCRIPTORS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)  # Not F_SETOWN, which sends signals.

_FILES = (0, 1, 2, 3, 4, 5, 6, 8, 17, 18, 19, 20, 21, 22, 32, 33, 40, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84)
_FILES += (85, 86, 87, 88, 89, 90, 91, 95, 137, 138, 217, 221, 257, 258, 262, 263, 264, 265, 266, 267, 268, 269, 280)
_FILES += (285, 292, 293, 316, 326, 332, 436, 439)
_MEMORY = (9, 10, 11, 12, 25, 27, 28)
_TIME = (7, 23, 34, 35, 36, 37, 38, 96, 100, 201, 228, 229, 230, 232, 233, 270, 271, 281, 291)
_SELF = (
    13,
    14,
    15,
    24,
    39,
    60,
    63,
    97,
    98,
    99,
    102,
    104,
    107,
    108,
    110,
    111,
    118,
    120,
    121,
    124,
    127,
    128,
    130,
    131,
    158,
    186,
    202,
    204,
)
_SELF += (218, 219, 231, 273, 318, 334)
_ESCAPES = {
    "new processes": (57, 58, 59, 322),  # fork, vfork, execve, execveat
    "sockets": (41, 42, 43, 49, 50, 53, 288),
    "other processes": (101, 129, 200, 297, 310, 311, 424, 434, 438),  # ptrace, tkill, process_vm_*, pidfd_*
    "file systems": (133, 155, 161, 165, 166, 259, 303, 304, 428, 429, 430, 431, 432, 433, 442),
    "namespaces": (272, 308),
    "users": (105, 106, 113, 114, 116, 117, 119, 126),
    "kernel": (169, 175, 176, 246, 298, 313, 320, 321, 323, 425, 426, 427),  # modules, bpf, perf, io_uring
    "keys": (248, 249, 250),
    "memory beyond the limit": (29, 30, 68, 64, 240, 319),  # shmget, msgget, semget, mq_open, memfd_create
}


def install() -> None:
    """Restrict this process, and the threads that it will start, for good."""
    code = b"".join(struct.pack("=HBBI", *line) for line in _program(pid=os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    for arguments in ((_NO_NEW_PRIVS, ctypes.c_ulong(1), zero), (_SET_SECCOMP, ctypes.c_ulong(_FILTER), program)):
        if libc.prctl(*arguments, zero, zero) != 0:
            raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def _program(*, pid: int) -> list[tuple[int, int, int, int]]:
    """Return the filter, instruction by instruction: (operation, jump if true, jump if false, constant)."""
    ours = (pid,)
    conditions = [
        (56, 0, _THREADS, _KILL),  # clone
        (62, 0, ours, _KILL),  # kill
        (234, 0, ours, _KILL),  # tgkill
        (302, 0, (0, pid), _KILL),  # prlimit64
        (16, 1, _TERMINAL, _ABSENT),  # ioctl
        (72, 1, _DESCRIPTORS, _ABSENT),  # fcntl
        (157, 0, (15,), _ABSENT),  # prctl: only the name of a thread
    ]
    lines = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, _MACHINE), (_RETURN, 0, 0, _KILL)]
    lines += [(_LOAD, 0, 0, _NUMBER), (_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in (*_FILES, *_MEMORY, *_TIME, *_SELF):
        lines += _if_equal(number, _ALLOW)
    for number in (number for numbers in _ESCAPES.values() for number in numbers):
        lines += _if_equal(number, _KILL)
    for number, argument, values, otherwise in conditions:
        lines += _on_argument(number, argument, values, otherwise)
    return [*lines, (_RETURN, 0, 0, _ABSENT)]


def _if_equal(value: int, action: int) -> list[tuple[int, int, int, int]]:
    return [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, action)]


def _on_argument(number: int, argument: int, values: tuple[int, ...], otherwise: int) -> list:
    """Allow a call whose argument, of which the kernel reads the lower half, is one of the values."""
    body = [(_LOAD, 0, 0, _ARGS + 8 * argument)]
    for value in values:
        body += _if_equal(value, _ALLOW)
    body.append((_RETURN, 0, 0, otherwise))
    return [(_JUMP_EQUAL, 0, len(body), number), *body]
