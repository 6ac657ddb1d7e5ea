"""An MLflow server that vanishes in the middle of a run: the run is whole, or is after one more; nothing is lost."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STAGES = ("pretrain", "pseudo_label", "train", "evaluate", "inference")


class Answers(BaseHTTPRequestHandler):
    """The part of MLflow's REST interface that a run needs; files are kept in a folder."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.server.statuses += [asked["status"]] if self.path.endswith("runs/update") else []
        self.answer()

    def answer(self):
        """Give every question the same experiment and run, and a search nothing."""
        run = {"info": {"run_id": "a" * 32, "experiment_id": "1", "status": "RUNNING", "artifact_uri": self.server.uri}}
        experiment = {"experiment_id": "1", "name": "e", "lifecycle_stage": "active"}
        found = {} if self.path.endswith("search") else {"experiment": experiment, "run": run, "run_info": run["info"]}
        text = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


class Server:
    """Answers on the loopback until it vanishes; comes back on the same port."""

    def __init__(self, folder):
        self.folder, self.port = folder, 0

    def start(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Answers)
        self.server.uri, self.server.statuses, self.port = self.folder.as_uri(), [], self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def vanish(self, _=None):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "artifacts")
    server.start()
    yield server
    server.vanish()


@pytest.mark.parametrize("stage", STAGES)
def test_a_server_that_comes_back_loses_nothing(world, account, whole, rng, faults, tmp_path, server, stage):
    row = account[stage, "MLflow server gone"]
    environment = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{server.port}"}
    for number in range(-(-faults // 4)):
        out = tmp_path / str(number)
        command = world.harm(stage, out, server.vanish, rng, track="served", environment=environment)
        row["injected"] += 1
        if command.wait() != 0:
            row["noticed"] += 1
            assert "expected an MLflow store" in command.err or "their record in MLflow is not" in command.err
        whole(out)
        server.start()
        world.finish(stage, out, track="served", environment=environment)
        assert server.server.statuses[-1] == "FINISHED"
        world.check(stage, out)
        row["recovered"] += 1
        shutil.rmtree(out)
