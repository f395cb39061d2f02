"""Model-written Python, run against tests where it can do no harm.

    verdict = run_tests("def double(x):\\n    return 2 * x", "assert double(3) == 6", limits=Limits(seconds=3))
    verdict.passed, verdict.reason

What holds, enforced by the kernel: a process in new user, mount, process, network, IPC and host-name namespaces; a root
directory of its own with nothing in it but Python's library, read-only, and an empty directory of limited size; no
environment, no descriptor but an output that is cut off; limits on time, memory, file size and descriptors; and a
seccomp filter that refuses new processes, programs, sockets, signals to others and everything that reaches around the
rest. When its first process is killed, the kernel kills whatever is left.

What counts as passed: every test ran to its end, which only a secret that the outside made can say. Printing, exiting,
raising or patching does not. Program and tests share an interpreter, so what no such scheme can tell apart is left: an
object that calls itself equal to everything, and a program that searches its own process for the secret.
"""

from cong.evaluation.sandbox.host import Limits, Verdict, check_sandbox, run_many, run_tests

__all__ = ["Limits", "Verdict", "check_sandbox", "run_many", "run_tests"]
