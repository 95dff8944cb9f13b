"""The process in which one exercise runs: an IPython shell that the grader drives through two pipes.

The grader starts this file as a script in an empty folder and sends one command a line on standard
input. What the cells print goes to standard output; after each command a line with that command's
secret word says how it ended. The file imports nothing of the package.
"""

import builtins
import contextlib
import json
import os
import sys


def make_shell():
    """An IPython shell without history, colours or tracebacks on standard output."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False

    class Shell(InteractiveShell):
        """Errors go back to the grader as a name and a message, not as text."""

        def showtraceback(self, *args, **kwargs):
            """Print nothing."""

        def showsyntaxerror(self, *args, **kwargs):
            """Print nothing."""

        def _showtraceback(self, *args):
            """Print nothing."""

        def system(self, cmd):
            """Refuse ``!command`` with a plain word instead of a missing terminal."""
            raise PermissionError("an answer may not start another program (!command)")

        system_raw = system_piped = getoutput = system

        def ask_exit(self):
            """``exit()`` in a cell ends the cell, as ``sys.exit()`` does."""
            raise SystemExit

        def enable_gui(self, gui=None):
            """There is no window here."""

    shell = Shell.instance(colors="nocolor")
    shell.user_ns["__name__"] = "__main__"
    return shell


def load_guard(folder):
    """Run guard.py with builtins of its own, outside of ``sys.modules``."""
    path = os.path.join(folder, "guard.py")
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), path, "exec")
    namespace = {"__builtins__": dict(vars(builtins)), "__name__": "guard"}
    exec(code, namespace)
    return namespace["close_fences"]


def run(shell, source):
    """Run one cell; return how it ended."""
    result = shell.run_cell(source, store_history=False)
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return {"ok": True}
    line = None
    if isinstance(error, SyntaxError):
        line, message = error.lineno, str(error.msg)
    else:
        try:
            message = str(error)
        except Exception:
            message = "(the error has no readable message)"
        trace = error.__traceback__
        while trace is not None:
            if "ipython" in trace.tb_frame.f_code.co_filename.lower().rsplit("/", 1)[-1]:
                line = trace.tb_lineno
            trace = trace.tb_next
    return {"ok": False, "name": type(error).__name__, "message": message[:400], "line": line}


def main():
    """Serve commands until standard input ends."""
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == folder:
        del sys.path[0]  # this folder is not a place to import from
    commands = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    close_fences = load_guard(folder)
    shell = make_shell()
    write, encode = os.write, json.JSONEncoder(ensure_ascii=True).encode
    while line := commands.readline():
        command = json.loads(line)
        word = command["word"]
        try:
            if command["do"] == "fence":
                close_fences(command["policy"])
                del close_fences
                answer = {"ok": True}
            else:
                answer = run(shell, command["source"])
        except BaseException as error:
            answer = {"ok": False, "name": type(error).__name__, "message": str(error)[:400], "line": None}
        for stream in {id(s): s for s in (sys.__stdout__, sys.stdout)}.values():
            with contextlib.suppress(BaseException):
                stream.flush()
        write(1, f"\n{word} {encode(answer)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
