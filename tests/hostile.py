"""Programs that mean harm, or that want to pass without being right. `OUTSIDE` stands for a directory of the outside.

Each has the reasons for which it may be stopped. None is run anywhere but in the sandbox; the tests are `TESTS`.
"""

TESTS = "assert f(3) == 6\nassert f(-1) == -2\nassert abs(f(0.5) - 1) < 1e-9"
GOOD = "def f(x):\n    return 2 * x\n"
_CALL = "import ctypes\ncall = ctypes.CDLL(None, use_errno=True).syscall\n"
_IGNORE = "import signal\nfor n in set(signal.valid_signals()) - {9, 19}:\n    signal.signal(n, signal.SIG_IGN)\n"

REFUSED = {
    "fork": "import os\nos.fork()",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb of threads": "import os, threading\nwhile True:\n    threading.Thread(target=os.fork).start()",
    "daemon": "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: pass\n"
    + GOOD,
    "vfork": _CALL + "call(58)",
    "clone of a process": _CALL + "call(56, 17, 0, 0, 0, 0)",
    "clone that shares memory": _CALL + "call(56, 0x100 | 17, 0, 0, 0, 0)",
    "32-bit numbering": _CALL + "call(0x40000000 + 57)",
    "subprocess": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'sleep 100'])",
    "exec of a shell": "import os\nos.execv('/bin/sh', ['sh', '-c', 'sleep 100'])",
    "os.system": "import os\nos.system('sleep 100')",
    "multiprocessing": "import multiprocessing as m\nm.get_context('fork').Process(target=print).start()",
    "internet socket": "import socket\nsocket.create_connection(('1.1.1.1', 80))",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
    "raw socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "kill its parent": "import os\nos.kill(os.getppid(), 9)",
    "kill the first process": "import os\nos.kill(1, 9)",
    "kill everyone": "import os\nos.kill(-1, 9)",
    "kill its group": "import os\nos.killpg(0, 9)",
    "kill the tests": "import os\nfor n in range(1, 100):\n    if n != os.getpid():\n        os.kill(n, 9)",
    "ptrace": _CALL + "call(101, 16, 1, 0, 0)",
    "read another process": _CALL + "call(310, 1, 0, 0, 0, 0, 0)",
    "mount": _CALL + "call(165, b'/dev', b'/box', b'', 4096, 0)",
    "unmount": _CALL + "call(166, b'/usr', 2)",
    "unshare": _CALL + "call(272, 0x10000000)",
    "chroot": "import os\nos.chroot('/box')",
    "become root": "import os\nos.setuid(0)",
    "bpf": _CALL + "call(321, 0, 0, 0)",
    "keyring": _CALL + "call(250, 0, 0, 0, 0, 0)",
    "io_uring": _CALL + "call(425, 1, 0)",
    "device": "import os\nos.mknod('disk', 0o60600, os.makedev(8, 0))",
    "reboot": _CALL + "call(169, 0xFEE1DEAD, 672274793, 0x1234567)",
    "shared memory beyond the limit": _CALL + "call(29, 0, 1 << 32, 0o1600)",
    "unnamed file": "import os\nos.memfd_create('x')",
}

OVER_A_LIMIT = {
    "endless loop": ("while True:\n    pass", "timeout"),
    "endless loop in f": ("def f(x):\n    while True:\n        pass", "timeout"),
    "ignores every signal": (_IGNORE + "while True:\n    pass", "timeout"),
    "catches every exception": (
        "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass",
        "timeout",
    ),
    "loops in C": ("sum(range(1 << 60))", "timeout"),
    "memory hog": ("x = bytearray(1 << 34)", "memory"),
    "memory by and by": ("x = []\nwhile True:\n    x.append(bytearray(1 << 20))", "memory"),
    "prints a gigabyte": ("for _ in range(1 << 10):\n    print('x' * (1 << 20))", "output"),
    "prints without end": ("import os\nwhile True:\n    os.write(2, b'x' * 65536)", "output"),
}

ASLEEP = {
    "sleep": "import time\ntime.sleep(1000)",
    "sleep in f": "import time\ndef f(x):\n    time.sleep(1000)",
    "waits for a thread": "import threading\nthreading.Event().wait()",
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "ignores every signal and sleeps": _IGNORE + "import time\ntime.sleep(1000)",
}

FAILS = {
    "thread bomb": "import threading as t\nfor _ in range(10000):\n    t.Thread(target=t.Event().wait).start()",
    "huge file": "with open('x', 'wb') as file:\n    while True:\n        file.write(b'x' * 65536)",
    "sparse file": "import os\nos.truncate(os.open('x', os.O_CREAT | os.O_RDWR), 1 << 40)",
    "many files": "n = 0\nwhile True:\n    open(str(n), 'x').close()\n    n += 1",
    "many descriptors": "kept = []\nwhile True:\n    kept.append(open('/dev/null'))",
    "writes outside": "open('OUTSIDE/new', 'w')",
    "writes to the libraries": "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'new.py'), 'w')",
    "writes to the root": "open('/new', 'w')",
    "deletes the store": "import shutil\nshutil.rmtree('OUTSIDE')",
    "deletes everything": "import shutil\nshutil.rmtree('/')",
    "reads outside": "open('OUTSIDE/secret').read()",
    "symlink out": "import os\nos.symlink('OUTSIDE/secret', 'x')\nopen('x').read()",
    "climbs out": "open('../' * 50 + 'OUTSIDE/secret').read()",
    "reads the environment of others": "open('/proc/1/environ').read()",
    "reads its own memory": "open('/proc/self/mem', 'rb').read(1)",
    "lists processes": "import os\nos.listdir('/proc')",
    "reads the users": "open('/etc/passwd').read()",
    "reads standard input": "input()",
    "raises its limits": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))",
    "gives its group away": "import os\nos.setsid()",
    "recursion": "def g(n):\n    return g(n + 1)\ng(0)",
    "unreadable text": "def f(x:\n",
}

CRASHES = {
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef g(x):\n    return g(bytearray(1 << 16))\ng(0)",
    "recursion in C": "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6):\n    x = [x]\nrepr(x)",
    "abort": "import os\nos.abort()",
    "32-bit call": (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "page.write(bytes.fromhex('b802000000cd80c3'))\n"  # fork, by the entry for 32-bit programs
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"
    ),
}

_ALL_SAY_YES = (
    "class Yes({base}):\n"
    "    def __eq__(self, other): return True\n"
    "    def __ne__(self, other): return False\n"
    "    def __bool__(self): return True\n"
    "    def __sub__(self, other): return 0\n"
    "    def __abs__(self): return 0\n"
    "    def __lt__(self, other): return True\n"
    "    __hash__ = {base}.__hash__\n"
    "def f(x):\n    return Yes()\n"
)
FORGED = {
    "prints the verdict": "print('passed')\nprint({'reason': 'passed'})\nimport sys\nsys.exit(0)",
    "exits with 0": "import sys\nsys.exit(0)",
    "exits with 0 at once": "import os\nos._exit(0)",
    "exits in f": "import os\ndef f(x):\n    os._exit(0)",
    "raises SystemExit in f": "def f(x):\n    raise SystemExit(0)",
    "exits at exit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit",
    "is equal to everything": _ALL_SAY_YES.format(base="object"),
    "is a number equal to everything": _ALL_SAY_YES.format(base="int"),
    "is a text equal to everything": _ALL_SAY_YES.format(base="str"),
    "replaces builtins": "import builtins\nfor n in ('abs', 'AssertionError', 'all'):\n"
    "    setattr(builtins, n, lambda *a: 0)\ndef f(x):\n    return 1",
    "defines the tests' functions": "def abs(x):\n    return 0\ndef f(x):\n    return 2 * x if x in (3, -1) else 7",
    "patches the frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n"
    "    while frame:\n        frame.f_globals['reason'] = 'passed'\n        frame = frame.f_back\n    return 1",
    "searches the memory": "import gc\ndef f(x):\n    found = [o for o in gc.get_objects() if type(o) is dict]\n"
    "    return next((v for o in found for v in list(o.values()) if type(v) is str and 'assert f' in v), 1)",
    "closes everything": "import os\nos.closerange(0, 1000)\ndef f(x):\n    return 1",
    "closes the way to the tests": "import os, time\nos.closerange(3, 1000)\ntime.sleep(1000)",
    "writes everywhere": "import os, json\nm = json.dumps({'reason': 'passed', 'detail': ''}).encode()\n"
    "for n in range(1, 100):\n    try: os.write(n, m)\n    except OSError: pass\n",
    "answers before it is asked": "import os, json, struct\n"
    "def put(message):\n    data = json.dumps(message).encode()\n"
    "    os.write(4, struct.pack('=I', len(data)) + data)\n"
    "put({'names': {'f': {'kept': 0}}})\nfor _ in range(9):\n    put({'value': True})\nos._exit(0)",
    "speaks nonsense": "import os\nos.write(4, b'\\xff' * 1000)",
    "nests its answer": "import os, struct\ndata = b'[' * 1000000\nos.write(4, struct.pack('=I', len(data)) + data)",
    "asks for another module": "def f(x):\n    return 1\nmath = __builtins__",
    "knows the first answer": "def f(x):\n    return 6",
    "patches the checker": "import sys\nfor name in list(sys.modules):\n    if 'tester' in name or 'jail' in name:\n"
    "        for key, value in list(vars(sys.modules[name]).items()):\n"
    "            if callable(value): setattr(sys.modules[name], key, lambda *a, **k: None)\ndef f(x):\n    return 1",
}
