"""What an answer may not do while it is graded: the two fences around the student's process.

The first fence is Python's own: an audit hook, which no Python code can remove. It refuses to open
files outside the folders listed below, to start programs, to signal other processes and to connect to
the network. The second is Linux's Landlock, where the kernel has it: the same limits on files and the
network, enforced by the operating system, so that compiled code is held too.

Neither is a container. Code that writes into the interpreter's memory can pass the first fence, and
Windows and macOS have only the first. Where marks matter, run the grader in a container.

This file runs inside the student's process, from ``worker.py``, with private copies of the builtins,
so that an answer that replaces ``str`` or ``any`` changes nothing here. It imports nothing of the
package. The functions fetch what they need before the answer runs, for the same reason.
"""

import ctypes
import os
import stat
import struct
import sys
import types

SYSTEM_FOLDERS = [
    "/usr", "/lib", "/lib64", "/bin", "/etc", "/sys", "/nix/store", "/System", "/Library", "/private/etc",
    "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/version",
    f"/proc/{os.getpid()}",
]  # fmt: skip

# Audit events by what they do. Names: the table of audit events in Python's documentation.
READS = {"open", "os.listdir", "os.scandir", "os.chdir", "os.listxattr", "os.getxattr"}
WRITES_FIRST = {
    "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.lchmod", "os.chflags",
    "os.lchflags", "os.utime", "os.setxattr", "os.removexattr", "shutil.rmtree", "sqlite3.connect",
    "pathlib.Path.write_text",
}  # fmt: skip
WRITES_BOTH = {"os.rename", "os.link"}
PROGRAMS = {
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
    "pty.spawn", "os.startfile", "os.startfile/2", "_winapi.CreateProcess", "_posixsubprocess.fork_exec",
}  # fmt: skip
MEMORY = {
    "ctypes.dlsym", "ctypes.dlsym/handle", "ctypes.call_function", "ctypes.cdata", "ctypes.PyObj_FromPtr",
    "ctypes.string_at", "ctypes.wstring_at", "gc.get_objects", "gc.get_referrers", "sys.remote_exec",
    "_winapi.OpenProcess", "_winapi.TerminateProcess", "cpython.remote_debugger_script",
}  # fmt: skip
SIGNALS = {"os.kill", "os.killpg"}
NETWORK = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
           "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}  # fmt: skip


def private_copy(module):
    """A copy of a module whose functions see only the copy, so that patching the module misses it."""
    copy = dict(vars(module), __builtins__=dict(vars(__import__("builtins"))))
    for name, value in list(copy.items()):
        if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
            twin = types.FunctionType(value.__code__, copy, name, value.__defaults__, value.__closure__)
            twin.__kwdefaults__ = value.__kwdefaults__
            copy[name] = twin
    return copy


def frozen_module(module):
    """The attributes of a module as they are now, under the same names."""
    copy = types.ModuleType(module.__name__)
    vars(copy).update(vars(module))
    return copy


def private_realpath():
    """``os.path.realpath`` that no later patch of os, os.path or stat reaches."""
    paths = private_copy(os.path)
    paths["os"], paths["stat"] = frozen_module(os), frozen_module(stat)
    return paths["realpath"], paths["normcase"]


def readable_folders(scratch, package, denied):
    """Real paths that an answer may read: Python, its packages, this package, its own folder."""
    roots = []

    def add(path, divide):
        real = os.path.realpath(path)
        if not os.path.exists(real) or real in roots or real in denied:
            return
        if not any(d.startswith(real.rstrip(os.sep) + os.sep) for d in denied):
            roots.append(real)
        elif divide:  # it holds the solutions somewhere: all of it but them
            for name in os.listdir(real):
                add(os.path.join(real, name), divide)

    variables = ("SYSTEMROOT", "LLM_FROM_SCRATCH_DATA", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    named = [part for name in variables for part in os.environ.get(name, "").split(os.pathsep)]
    whole = [scratch, package, *SYSTEM_FOLDERS, *named]
    for path in [*whole, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]:
        if path:
            add(path, True)
    for path in sys.path:  # may name a clone of the book, of which only the package is opened
        if path:
            add(path, False)
    return roots


def add_audit_hook(scratch, readable, denied):
    """Refuse, from now on and for good, what the table above lists."""
    realpath, normcase = private_realpath()
    separator, fsdecode, dirname, parent = os.sep, os.fsdecode, os.path.dirname, os.pardir
    write_flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    readable = [normcase(path) for path in readable]
    writable = [normcase(os.path.realpath(p)) for p in (scratch, os.devnull)]
    denied = [normcase(path) for path in denied]
    own_pid = os.getpid()
    loopback = ("127.0.0.1", "::1", "localhost")

    def lies_in(path, roots):
        return any(path == root or path.startswith(root.rstrip(separator) + separator) for root in roots)

    def check_path(path, roots, verb):
        if path is None or isinstance(path, int):
            return  # an open file, whose opening was checked
        text = fsdecode(path)
        if not text.startswith(separator) and parent in text.replace("/", separator).split(separator):
            raise PermissionError(f"an answer may not {verb} {text!r}: '..' in a path")
        real = normcase(realpath(text))
        if lies_in(real, denied) or not lies_in(real, roots):
            raise PermissionError(f"an answer may not {verb} {text!r} while it is graded")

    def hook(event, arguments):
        if event in READS:
            path = arguments[0] if arguments else "."
            mode, flags = arguments[1:3] if event == "open" and len(arguments) > 2 else (None, 0)
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else False
            if writes or (isinstance(flags, int) and flags & write_flags):
                check_path(path, writable, "write")
            else:
                check_path(path, readable, "read")
        elif event in WRITES_FIRST:
            check_path(arguments[0], writable, "change")
        elif event in WRITES_BOTH:
            check_path(arguments[0], writable, "change")
            check_path(arguments[1], writable, "change")
        elif event == "os.symlink":
            check_path(arguments[1], writable, "change")
        elif event in PROGRAMS or (event == "import" and arguments[0].endswith("_posixsubprocess")):
            raise PermissionError(f"an answer may not start another program ({event})")
        elif event in SIGNALS:
            if arguments[0] != own_pid:
                raise PermissionError("an answer may not signal another process")
        elif event in MEMORY:
            raise PermissionError(f"an answer may not use {event} while it is graded")
        elif event == "ctypes.dlopen":
            # Importing torch loads its own libraries by their full path; nothing else is allowed.
            name = arguments[0]
            if name is None or not dirname(fsdecode(name)):
                raise PermissionError("an answer may not load a C library while it is graded")
            check_path(name, readable, "load")
        elif event in NETWORK:
            address = arguments[1] if event.startswith(("socket.connect", "socket.bind")) else arguments[0]
            host = address[0] if isinstance(address, tuple) and address else address
            if host not in loopback:
                raise PermissionError("an answer may not use the network while it is graded")

    sys.addaudithook(hook)


def refuse_fork_exec():
    """Close the one way to start a program that raises no audit event (multiprocessing takes it)."""
    try:
        import _posixsubprocess
    except ImportError:  # Windows, where CreateProcess raises one
        return

    def fork_exec(*arguments):
        raise PermissionError("an answer may not start another program (fork_exec)")

    _posixsubprocess.fork_exec = fork_exec


def landlock(scratch, readable):
    """Limit files and the network through Linux's Landlock. Returns False where it is not there."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    reading, for_files = 0b1101, 0b111 | (1 << 14 if abi >= 3 else 0)  # execute, read file, read folder
    every = (1 << (13 if abi == 1 else 14 if abi == 2 else 15)) - 1
    network = 0b11 if abi >= 4 else 0  # bind and connect
    scopes = 0b11 if abi >= 6 else 0  # abstract sockets, and signals to processes outside
    attributes = struct.pack("QQQ", every, network, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    rules = [(path, reading) for path in readable]
    rules += [(scratch, every), ("/dev/null", for_files), ("/dev/shm", 0)]
    for path, access in rules:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        access &= every if os.path.isdir(path) else for_files
        rule = struct.pack("=Qi", access, descriptor)
        if access:
            libc.syscall(445, ruleset, 1, rule, 0)
        os.close(descriptor)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which Landlock asks for
    held = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return held


def limit_resources(megabytes, cpu_seconds):
    """Let this process take so much more memory than it holds now (Linux; the grader watches too).

    The processor time is a net for a grader that was killed before it could end this process.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, used + cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 10**6, 64 * 10**6))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: end when the grader ends
        with open("/proc/self/status", encoding="utf-8") as status:
            held = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
        limit = held * 1024 + megabytes * 10**6
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def close_fences(policy):
    """Put up both fences and the memory limit. Nothing here can be undone by this process."""
    scratch = os.path.realpath(policy["scratch"])
    denied = [os.path.realpath(path) for path in policy["denied"]]
    readable = readable_folders(scratch, policy["package"], denied)
    limit_resources(policy["megabytes"], policy["cpu_seconds"])
    landlock(scratch, readable)
    refuse_fork_exec()
    add_audit_hook(scratch, readable, denied)
