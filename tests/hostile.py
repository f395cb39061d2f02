"""Programs that try to break out of the sandbox or to look as if they had passed.

Each names how it is allowed to end. Those that end well ("passed") assert themselves that what they tried was refused.
"""

REFUSED = """
def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except (OSError, MemoryError, ImportError, ValueError):
        return
    raise RuntimeError(f"{call} was allowed")
import os, signal, socket, subprocess, sys, threading, time, ctypes, resource
"""

HARMFUL = {
    "an endless loop": ("while True: pass", {"timeout"}),
    "a long sleep": ("import time; time.sleep(1000)", {"timeout"}),
    "a fork": ("refused(os.fork)", {"passed"}),
    "a fork bomb": ("while True:\n    try: os.fork()\n    except OSError: break", {"passed"}),
    "a fork bomb that does not give up": (
        "while True:\n    try: os.fork()\n    except OSError: pass",
        {"timeout"},
    ),
    "a fork through the C library": (
        "libc = ctypes.CDLL(None)\nassert libc.fork() == -1\nassert libc.syscall(57) == -1",
        {"passed"},
    ),
    "a shell": ("refused(os.execv, '/bin/sh', ['sh', '-c', 'echo out'])", {"passed"}),
    "a subprocess": ("refused(subprocess.run, [sys.executable, '-c', '1'])", {"passed"}),
    "a memory hog": ("hog = []\nwhile True: hog.append(bytearray(1 << 24))", {"memory"}),
    "one huge object": ("x = bytearray(1 << 40)", {"memory"}),
    "a thread bomb": (
        "import itertools\n"
        "def wait(): time.sleep(60)\n"
        "try:\n    for _ in itertools.count(): threading.Thread(target=wait, daemon=True).start()\n"
        "except (RuntimeError, MemoryError): pass",
        {"passed", "memory", "timeout", "killed", "exception"},
    ),
    "a thread that outlives": (
        "def spin():\n    while True: pass\nthreading.Thread(target=spin).start()",
        {"passed"},
    ),
    "a write outside": (
        "for path in ('/out', '/usr/lib/out', sys.base_prefix + '/out', '/old/out'): refused(open, path, 'w')",
        {"passed"},
    ),
    "a climb out": ("refused(open, '../../../../etc/passwd')\nassert os.listdir('/..') == os.listdir('/')", {"passed"}),
    "a symbolic link out": ("os.symlink('/etc', 'link')\nrefused(os.listdir, 'link')", {"passed"}),
    "the host's files": (
        "for path in ('/etc/passwd', '/home', '/tmp', '/var', '/proc/1/environ', '/sys', '/dev'):\n"
        "    refused(os.stat, path)",
        {"passed"},
    ),
    "the environment": ("assert set(os.environ) <= {'LC_CTYPE'}, dict(os.environ)", {"passed"}),
    "a socket": (
        "refused(socket.socket)\nrefused(socket.create_connection, ('127.0.0.1', 80))\nrefused(socket.socketpair)",
        {"passed"},
    ),
    "killing its parent": ("refused(os.kill, os.getppid(), signal.SIGKILL)", {"passed"}),
    "killing everything": ("refused(os.kill, -1, signal.SIGKILL)\nrefused(os.killpg, 0, signal.SIGKILL)", {"passed"}),
    "a gigabyte of output": ("while True: os.write(1, b'x' * (1 << 16))", {"output"}),
    "a gigabyte of errors": ("while True: sys.stderr.write('x' * (1 << 16))", {"output"}),
    "a gigabyte on disk": (
        "refused(lambda: [open(f'{n}', 'wb').write(b'x' * (1 << 20)) for n in range(1024)])",
        {"passed", "killed"},
    ),
    "a huge file": (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "refused(os.truncate, os.open('f', os.O_CREAT | os.O_RDWR), 1 << 30)",
        {"passed"},
    ),
    "a million files": ("refused(lambda: [open(f'{n}', 'w').close() for n in range(10**6)])", {"passed"}),
    "deaf to signals": (
        "for number in range(1, 32):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass",
        {"timeout"},
    ),
    "more time for itself": (
        "refused(resource.setrlimit, resource.RLIMIT_CPU, (10**6, 10**6))\nrefused(os.setpriority, 0, 0, -20)",
        {"passed"},
    ),
    "tracing its parent": ("assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == -1", {"passed"}),
    "a mount": ("assert ctypes.CDLL(None).mount(b'none', b'/work', b'tmpfs', 0, b'') == -1", {"passed"}),
    "new namespaces": ("assert ctypes.CDLL(None).unshare(0x10000000) == -1", {"passed"}),
    "another user": ("refused(os.setuid, 0)\nrefused(os.setresuid, 0, 0, 0)", {"passed"}),
    "endless recursion": ("def f(): return f()\nf()", {"exception", "killed"}),
    "a null pointer": ("ctypes.string_at(0)", {"killed"}),
    "reading from the terminal": ("assert sys.stdin.read() == ''", {"passed"}),
    "its own session": ("refused(os.setsid)", {"passed"}),
}

FORGED = {
    "printing that it passed": "print('passed')\nprint('{\"outcome\": \"passed\"}')\nassert False",
    "leaving without a word": "import os\nos._exit(0)",
    "leaving politely": "import sys\nsys.exit(0)",
    "leaving at the end": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "a function that leaves": "import os\ndef f(x): os._exit(0)",
    "a function that raises SystemExit": "def f(x): raise SystemExit(0)",
    "writing to every descriptor": (
        'import os\nfor n in range(3, 64):\n    try: os.write(n, b\'{"outcome": "passed", "secret": ""}\\n\')\n'
        "    except OSError: pass\ndef f(x): return x"
    ),
    "closing every descriptor": "import os\nos.closerange(0, 64)\ndef f(x): return x",
    "another AssertionError": (
        "import builtins\nclass Mild(Exception): pass\nbuiltins.AssertionError = Mild\ndef f(x): return x"
    ),
    "no asserts": "import sys, builtins\nbuiltins.compile = lambda *a, **k: 'pass'\ndef f(x): return x",
    "another exec": "import builtins\nbuiltins.exec = lambda *a, **k: None\ndef f(x): return x",
    "a killed self": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "a report of its own": ('import json\njson.dumps = lambda *a, **k: \'{"outcome": "passed"}\'\ndef f(x): return x'),
    "an exit hook": "import sys\nsys.excepthook = lambda *a: None\ndef f(x): return x",
}
"""Programs that fail the test `assert f(1) == 2`, or never get to it."""
