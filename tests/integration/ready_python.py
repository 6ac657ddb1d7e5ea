"""A Python that has imported MONAI once and forks for every command: an import takes seven seconds, a fork none.

The child is what ``python -m module words`` is, down to how it ends. Nothing of this project is imported before the
fork, unless that is asked for, and nothing is computed.
"""

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = ("monai.bundle", "pytorch_grad_cam", "torchvision.models", "mlflow")


class ReadyPython:
    """Starts with the first command, and lives until it is closed; `more` modules are imported as well."""

    def __init__(self, more=()):
        self.process, self.more = None, more

    def __call__(self, module, *words, cwd, environment=None):
        """Run a module as a user would, from another folder than the bundle's."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, *self.more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            request = {
                "module": module, "words": [*map(str, words)], "cwd": str(cwd), "screen": folder,
                "environment": {**os.environ, **(environment or {})},
            }  # fmt: skip
            try:
                self.process.stdin.write(json.dumps(request) + "\n")
                self.process.stdin.flush()
                code = int(self.process.stdout.readline())
            except BaseException:  # such as a test's timeout: what it answers later is for nobody
                self.close()
                raise
            out, err = (Path(folder, name).read_text(encoding="utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess([module, *request["words"]], code, out, err)

    def close(self):
        """End it, and the command that it may still be running."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.communicate()
            self.process = None


def serve():
    """Fork for each request and answer with the child's exit code; return the request in the child."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
    sys.exit()


def become(request):
    """Take the place that a process has when its command was just typed."""
    for descriptor, path in enumerate((os.devnull, f"{request['screen']}/out", f"{request['screen']}/err")):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["words"]]


if __name__ == "__main__":
    for name in (*IMPORTED, *sys.argv[1:]):
        importlib.import_module(name)
    gc.freeze()  # what is imported is never looked through again: a page that is not touched is not copied
    wanted = serve()
    become(wanted)
    runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
