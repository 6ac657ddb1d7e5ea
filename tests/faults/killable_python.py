"""A Python that has imported MONAI once and forks for every command; a command's process can be harmed while it runs.

It becomes a command as ``tests/integration/ready_python.py`` does. What is new: several commands at once, each with a
process id and a process group of its own, and a limit on the size of what it may write.
"""

import gc
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY = runpy.run_path(str(Path(__file__).parents[1] / "integration" / "ready_python.py"), run_name="ready_python")


class Command:
    """One command that runs, or has ended."""

    def __init__(self, python, pid, screen):
        self.python, self.pid, self.screen, self.started, self.code = python, pid, screen, time.monotonic(), None

    def lives(self):
        """Whether it still runs; a process that has ended but was not waited for does not."""
        state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state not in "ZX"

    def kill(self, group=True):
        """Kill the process, or its whole group, with no chance to tidy up."""
        (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)

    def wait(self):
        """Wait for the end; return the exit code, negative for a signal, and what stood on the screen."""
        self.code = self.python.ask({"wait": self.pid})
        self.duration_s = time.monotonic() - self.started
        self.out, self.err = ((self.screen / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return self.code


class KillablePython:
    """Starts with the first command, and lives until it is closed."""

    def __init__(self):
        self.process, self.folder = None, tempfile.TemporaryDirectory()

    def start(self, *words, cwd, environment=None, file_size_max=None):
        """Start ``python -m module words`` and return at once."""
        screen = Path(tempfile.mkdtemp(dir=self.folder.name))
        module, *words = map(str, words)
        request = {
            "module": module, "words": words, "cwd": str(cwd), "screen": str(screen), "file_size_max": file_size_max,
            "environment": {**os.environ, **(environment or {})},
        }  # fmt: skip
        return Command(self, self.ask({"start": request}), screen)

    def ask(self, question):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        """End it; a command that still runs is ended by the test that started it."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
        self.folder.cleanup()


def serve():
    """Answer a start with the process id and a wait with the exit code; return the request in the child."""
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            answer = os.fork()
            if answer == 0:
                return question["start"]
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    sys.exit()


if __name__ == "__main__":
    for name in READY["IMPORTED"]:
        importlib.import_module(name)
    gc.freeze()
    wanted = serve()
    os.setsid()
    READY["become"](wanted)
    if wanted["file_size_max"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (wanted["file_size_max"], resource.RLIM_INFINITY))
    runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
