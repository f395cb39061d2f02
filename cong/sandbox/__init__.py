"""Run programs that a model wrote against tests, in a sandbox.

    run_tests("def f(x):\\n    return 2 * x", "assert f(3) == 6", limits=Limits()).passed    # True

What holds, by construction and not by a list of bad words:

- **No other processes.** A filter allows the system calls of a computation and no others: no fork, no exec, no signal
  to others, no socket, no mount, no tracing. The clock is read outside; with the sandbox's first process, the kernel
  ends all that is in it.
- **No files but its own.** The file system holds Python's standard library, read-only, four devices and one empty
  directory of bounded size in memory. No home, no store, no /proc, no environment, no network interface.
- **No forged success.** Program and tests are two processes. The tests' process asks, and compares copies of plain
  values; only it holds the pipe for the verdict, and nothing in the program's process (frames, memory, descriptors)
  holds the expected values or leads there. Tests are trusted; what they call by the program's names is the program's.

What is not promised: bugs of the kernel; that a program cannot tell that it is tested; third-party packages, asyncio,
subprocesses and sockets (refused); tests that hand functions to the program or compare its objects by their own `==`.
Linux on x86-64 with user namespaces, as root or as an ordinary user; where they are not to be had, nothing is run.
"""

from cong.sandbox.host import check_sandbox, run_many, run_tests
from cong.sandbox.types import Limits, Verdict

__all__ = ["Limits", "Verdict", "check_sandbox", "run_many", "run_tests"]
