"""MLflow tracking against real MLflow: everything arrives, once, and the run never waits for it."""

import contextlib
import http.client
import itertools
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from modalign.contracts.run import Run, Stage
from modalign.training.metric_log import MetricLog, read_metrics
from modalign.training.track.points import Point, Points
from modalign.training.track.tracking import Tracking

PLAN = {"name": "demo", "stages": [{"name": "image-text", "lr": 0.1}], "long": "x" * 9000}
VERSIONS = {"modalign": "0.1.0", "torch": "2.11", "modalign-audio": "0.3.1"}
TASKS = {"retrieval:audio->image/R@1": 0.5, "retrieval:audio->image/MRR": 0.75}


# The training loop, in small -------------------------------------------------------------------


class Loop:
    """Does to the events and to ``metrics.jsonl`` what the training loop does, and times it."""

    def __init__(self, uri, folder, resumed=False, plan=PLAN, **options):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.run = Run("demo", self.folder, plan, VERSIONS, "digest-1", "c0ffee", resumed)
        self.tracking = Tracking(uri, self.folder.parent.name, **{"poll": 0.1, "patience": 30.0, **options})
        self.log = MetricLog(self.folder / "metrics.jsonl")
        self.step = max((record["step"] for record in self.log.records()), default=0)
        self.waits = []
        if not resumed:
            self.log.rewind(0)
            self.step = 0

    def __call__(self, action, *arguments):
        begun = time.perf_counter()
        action(*arguments)
        self.waits.append(time.perf_counter() - begun)

    def start(self, stage):
        self.stage = Stage(stage, 0, 1, 100, 8, self.step)
        self(self.tracking.stage_started, self.run, self.stage)

    def steps(self, number, pause=0.0):
        for _ in range(number):
            self.step += 1
            loss = math.nan if self.step == 3 else 1 / self.step
            metrics = {"loss": loss, "lr": 0.1, "parts/infonce": 2.0}
            self(self.log.append, self.stage.name, self.step, metrics)
            time.sleep(pause)

    def finish(self):
        self(self.log.append, self.stage.name, self.step, TASKS)
        self(self.tracking.stage_finished, self.run, self.stage, {**TASKS, "seconds": 1.5})


def whole_run(uri, folder, stages=("image-text",), steps=20, status="ok", **options):
    loop = Loop(uri, folder, **options)
    loop(loop.tracking.run_started, loop.run)
    for stage in stages:
        loop.start(stage)
        loop.steps(steps)
        loop.finish()
    loop.tracking.run_finished(loop.run, status)
    return loop


# What the server has ---------------------------------------------------------------------------


def runs_of(client, folder):
    """The experiment's parent runs, and its child runs by name; a child twice is a failure."""
    experiment = client.get_experiment_by_name(Path(folder).parent.name)
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(parents) + len(children) == len(runs)
    return parents, children


def points(client, run):
    """Every point of a run, as often as the server has it."""
    return sorted(
        (point.key, point.step, str(point.value))
        for key in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, key)
    )


def logged(folder, stage):
    """What ``metrics.jsonl`` holds for a stage, in MLflow's names."""
    return sorted(
        (name.replace("->", " to ").replace("@", " at "), record["step"], str(value))
        for record in read_metrics(Path(folder) / "metrics.jsonl")
        if record["stage"] == stage
        for name, value in record["metrics"].items()
    )


def check_exactly_once(client, folder, stages):
    """One parent, one child per stage, and in each every point of the file once."""
    parents, children = runs_of(client, folder)
    (parent,) = parents
    assert set(children) == set(stages)
    for name, child in children.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert [p for p in points(client, child) if p[0] != "seconds"] == logged(folder, name)
    told = points(client, parent)
    assert len({point[:2] for point in told}) == len(told)
    return parent, children


def settings():
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}


def wait_until(condition, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


# Servers ---------------------------------------------------------------------------------------


class Server:
    """A real ``mlflow server`` that can be frozen, killed and started again on the same store."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri, self.folder, self.process = f"http://127.0.0.1:{self.port}", folder, None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        store = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "./artifacts"]
        lighter = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *store, "--workers", "1"],
                cwd=self.folder, env=lighter, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def up(self):
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def send(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait()

    @property
    def client(self):
        wait_until(self.up, 90)
        return MlflowClient(self.uri)


@pytest.fixture(scope="module", autouse=True)
def starting(tmp_path_factory):
    """The server, on its way up while the tests that need none are running."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(starting):
    wait_until(starting.up, 90)
    return starting


class Proxy(ThreadingHTTPServer):
    """Stands before the server and does to each request what ``fate(method, path)`` says.

    "pass", "refuse" (the connection breaks at once), "hang" (it breaks after a while) or "lose"
    (the server gets the request, the client never gets the answer).
    """

    daemon_threads = True

    def __init__(self, port, fate):
        self.fate, self.lost = fate, 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self):
                fate = proxy.fate(self.command, self.path)
                if fate == "hang":
                    time.sleep(6)
                if fate in ("refuse", "hang"):
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                content = answer.read()
                if fate == "lose":
                    proxy.lost += 1
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.pass_on)
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def proxied(server):
    made = []

    def make(fate=lambda method, path: "pass"):
        made.append(Proxy(server.port, fate))
        return made[-1]

    yield make
    for proxy in made:
        proxy.shutdown()
        proxy.server_close()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('local')}/mlflow.db"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """MLflow puts ``mlruns`` into the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING, "modalign.tracking")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "modalign.tracking"]


# Local: a database file, nothing to start ------------------------------------------------------


def test_a_whole_run_is_there_with_everything_it_promises(tmp_path, database, warned, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = settings()
    folder = tmp_path / "run"
    for name in ("plan.yaml", "figures/a/b.png", "space/config.json", "checkpoints/big.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("content")
    stages = ("image-text", "add-audio")
    loop = Loop(database, folder, system_interval=0.3)
    loop(loop.tracking.run_started, loop.run)
    for stage in stages:
        loop.start(stage)
        loop.steps(20, pause=0.05)
        loop.finish()
    loop.tracking.run_finished(loop.run, "ok")
    assert settings() == before
    assert warned() == []
    assert capsys.readouterr().out == ""

    client = MlflowClient(database)
    parent, children = check_exactly_once(client, folder, stages)
    assert parent.info.run_name == "demo"
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert parent.data.params["stages.0.lr"] == "0.1"
    assert parent.data.params["long"].startswith("xxx")
    expected = {"plugin.modalign-audio": "0.3.1", "data_digest": "digest-1", "git_commit": "c0ffee"}
    assert expected.items() <= parent.data.tags.items()
    told = points(client, parent)
    at_stage_ends = [point[1:] for point in told if point[0] == "retrieval:audio to image/R at 1"]
    assert at_stage_ends == [(20, "0.5"), (40, "0.5")]
    cpu = [p for p in told if p[0] == "system/cpu_utilization_percentage"]
    assert len(cpu) >= 3
    assert parent.data.metrics["system/system_memory_usage_megabytes"] > 0
    for path in ("", "figures/a", "space"):
        files = {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, path)}
        assert (
            files
            == {"": {"plan.yaml", "figures", "space"}, "figures/a": {"b.png"}, "space": {"config.json"}}[path]
        )


@pytest.mark.parametrize(("status", "there"), [("failed", "FAILED"), ("interrupted", "KILLED")])
def test_a_run_that_breaks_off_ends_so_and_goes_on_when_resumed(tmp_path, database, status, there):
    loop = Loop(database, tmp_path / "run")
    loop.tracking.run_started(loop.run)
    loop.start("image-text")
    loop.steps(10)
    loop.finish()
    loop.start("add-audio")
    loop.steps(10)
    position = loop.log.position
    loop.steps(5)
    loop.tracking.run_finished(loop.run, status)
    client = MlflowClient(database)
    parent, children = check_exactly_once(client, tmp_path / "run", ["image-text", "add-audio"])
    assert parent.info.status == children["add-audio"].info.status == there
    assert children["image-text"].info.status == "FINISHED"

    # As after a kill -9 between the server's answer and the file: the runs are found by their tag.
    path = tmp_path / "run" / "mlflow.json"
    told = json.loads(path.read_text())
    told["run_id"] = None
    for stage in told["stages"].values():
        stage["run_id"] = None
    path.write_text(json.dumps(told))
    loop.log.rewind(position)
    loop = Loop(database, tmp_path / "run", resumed=True)
    loop.tracking.run_started(loop.run)
    loop.start("add-audio")
    wait_until(lambda: client.get_run(parent.info.run_id).info.status == "RUNNING")
    loop.steps(20)
    loop.finish()
    loop.tracking.run_finished(loop.run, "ok")
    same, children = check_exactly_once(client, tmp_path / "run", ["image-text", "add-audio"])
    assert same.info.run_id == parent.info.run_id
    assert {run.info.status for run in (same, *children.values())} == {"FINISHED"}


def test_runs_deleted_meanwhile_are_made_anew_and_filled_again(tmp_path, database, warned):
    folder = tmp_path / "run"
    whole_run(database, folder, status="interrupted")
    client = MlflowClient(database)
    (old,), children = runs_of(client, folder)
    for run in (old, *children.values()):
        client.delete_run(run.info.run_id)
    loop = Loop(database, folder, resumed=True)
    loop.tracking.run_started(loop.run)
    loop.start("add-audio")
    loop.steps(5)
    wait_until(lambda: any("deleted" in message for message in warned()))
    wait_until(lambda: len(runs_of(client, folder)[1]) == 2)
    client.delete_run(runs_of(client, folder)[1]["add-audio"].info.run_id)  # and once in mid-run
    loop.steps(5)
    loop.finish()
    loop.tracking.run_finished(loop.run, "ok")
    new, _ = check_exactly_once(client, folder, ["image-text", "add-audio"])
    assert new.info.run_id != old.info.run_id
    assert new.data.params["stages.0.lr"] == "0.1"


def test_a_uri_that_mlflow_cannot_use_is_one_warning_and_no_wait(tmp_path, warned):
    begun = time.monotonic()
    whole_run("nonsense://somewhere", tmp_path / "run", patience=60)
    assert time.monotonic() - begun < 20
    (message,) = warned()
    assert "nonsense" in message


class Unsure(MlflowClient):
    """A client whose first answer to a batch is lost after the server has stored it."""

    lost = False

    def log_batch(self, *arguments, **options):
        super().log_batch(*arguments, **options)
        if not self.lost:
            self.lost = True
            raise ConnectionResetError


def test_no_point_is_stored_twice_even_with_another_time_or_value(tmp_path, database):
    client = Unsure(database)
    run = client.create_run(client.create_experiment(tmp_path.name)).info.run_id
    sender = Points(client, lambda seconds: None)
    sender.created(run)
    both = [Point("loss", 1.0, 1, 1000), Point("loss", 0.5, 2, 1000), Point("lr", 0.1, 1, 1000)]
    with pytest.raises(ConnectionResetError):
        sender.send(run, both[:2])
    again = [point._replace(time=2000, value=9.0) for point in both]
    sender.send(run, again)
    sender.send(run, [*again, Point("loss", 0.25, 3, 3000), Point("loss", 0.25, 3, 3000)])
    Points(client, lambda seconds: None).send(run, again)  # as after --resume
    history = {key: client.get_metric_history(run, key) for key in ("loss", "lr")}
    assert [(p.step, p.value) for p in history["loss"]] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert [(p.step, p.value) for p in history["lr"]] == [(1, 9.0)]


# A server that comes and goes -------------------------------------------------------------------


def test_answers_lost_on_the_way_store_nothing_twice(tmp_path, server, proxied, warned):
    turns = itertools.count()

    def every_third_answer(method, path):
        return "lose" if method != "GET" and next(turns) % 3 == 2 else "pass"

    proxy = proxied(every_third_answer)
    loop = Loop(proxy.uri, tmp_path / "run")
    loop.tracking.run_started(loop.run)
    for stage in ("image-text", "add-audio"):
        loop.start(stage)
        loop.steps(60, pause=0.01)
        loop.finish()
    loop.tracking.run_finished(loop.run, "ok")
    assert proxy.lost >= 4
    check_exactly_once(server.client, tmp_path / "run", ["image-text", "add-audio"])
    assert len([m for m in warned() if "cannot be reached" in m]) == 1


def test_a_server_that_never_answers_costs_patience_and_resuming_sends_the_rest(
    tmp_path, server, proxied, warned
):
    folder = tmp_path / "run"
    proxy = proxied(lambda method, path: "refuse")
    begun = time.monotonic()
    whole_run(proxy.uri, folder, patience=1.0)
    assert time.monotonic() - begun < 15
    assert any("--resume" in message for message in warned())
    assert server.client.get_experiment_by_name(tmp_path.name) is None
    proxy.fate = lambda method, path: "pass"
    loop = Loop(proxy.uri, folder, resumed=True)  # nothing is left to train
    loop.tracking.run_started(loop.run)
    loop.tracking.run_finished(loop.run, "ok")
    parent, children = check_exactly_once(server.client, folder, ["image-text"])
    assert parent.data.metrics["retrieval:audio to image/R at 1"] == 0.5
    assert {parent.info.status, children["image-text"].info.status} == {"FINISHED"}


@pytest.mark.parametrize("fate", ["refuse", "hang"])
def test_a_server_that_is_gone_for_good_at_the_end_costs_patience(tmp_path, server, proxied, warned, fate):
    proxy = proxied()
    loop = Loop(proxy.uri, tmp_path / "run", patience=1.0, system_interval=1000)
    loop.tracking.run_started(loop.run)
    loop.start("image-text")
    loop.steps(20)
    experiment = tmp_path.name
    wait_until(lambda: server.client.get_experiment_by_name(experiment))
    wait_until(
        lambda: [points(server.client, c) for c in runs_of(server.client, loop.folder)[1].values()] != []
    )
    time.sleep(0.5)  # nothing is left to send but the end
    proxy.fate = lambda method, path: fate
    begun = time.monotonic()
    loop.tracking.run_finished(loop.run, "ok")
    assert time.monotonic() - begun < 5
    assert any("--resume" in message for message in warned())


def test_credentials_are_shown_nowhere(tmp_path, server, proxied, warned, capfd):
    proxy = proxied(lambda method, path: "refuse" if next(turns) < 3 else "pass")
    turns = itertools.count()
    uri = proxy.uri.replace("//", "//user:hunter2@")
    folder = tmp_path / "run"
    (folder / "space").mkdir(parents=True)
    for name in ("plan.yaml", "space/config.json"):
        (folder / name).write_text(f"uri: {uri}\n")
    whole_run(uri, folder, plan={"track": {"uri": uri}})
    parent, children = check_exactly_once(server.client, folder, ["image-text"])
    shown = str([parent.data.params, parent.data.tags, [c.data.tags for c in children.values()], warned()])
    for name in ("plan.yaml", "space/config.json"):
        shown += Path(server.client.download_artifacts(parent.info.run_id, name, str(tmp_path))).read_text()
    shown += (folder / "mlflow.json").read_text() + "".join(capfd.readouterr())
    assert parent.data.params["track.uri"].endswith(f"***@127.0.0.1:{proxy.server_address[1]}")
    assert warned()
    assert "hunter2" not in shown


def driver(uri, folder, resumed):
    """A process that trains 400 steps with a checkpoint every 50."""
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_tracking import Loop, MetricLog\n"
        "uri, folder, resumed = sys.argv[2], Path(sys.argv[3]), sys.argv[4] == 'True'\n"
        "saved = folder / 'checkpoint.json'\n"
        "if resumed:\n"
        "    MetricLog(folder / 'metrics.jsonl').rewind(json.loads(saved.read_text()))\n"
        "loop = Loop(uri, folder, resumed=resumed)\n"
        "loop.tracking.run_started(loop.run)\n"
        "loop.start('image-text')\n"
        "while loop.step < 400:\n"
        "    loop.steps(50 - loop.step % 50, pause=0.0 if resumed else 0.02)\n"
        "    if loop.step % 100 == 0: saved.write_text(json.dumps(loop.log.position))\n"
        "loop.finish()\n"
        "loop.tracking.run_finished(loop.run, 'ok')\n"
    )
    here = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", code, here, uri, str(folder), str(resumed)])


def test_killed_and_resumed_is_one_run_with_every_step_once(tmp_path, server):
    folder, client = tmp_path / "run", server.client
    process = driver(server.uri, folder, resumed=False)

    def beyond_the_checkpoint():
        assert process.poll() is None
        if not (folder / "checkpoint.json").exists():
            return False
        children = runs_of(client, folder)[1] if client.get_experiment_by_name(tmp_path.name) else {}
        steps = [p[1] for child in children.values() for p in points(client, child)]
        return max(steps, default=0) % 100 > 20

    wait_until(beyond_the_checkpoint)
    process.kill()
    process.wait()
    (old,), _ = runs_of(client, folder)
    assert old.info.status == "RUNNING"
    assert driver(server.uri, folder, resumed=True).wait(60) == 0
    parent, children = check_exactly_once(client, folder, ["image-text"])
    assert parent.info.run_id == old.info.run_id
    assert len(client.get_metric_history(children["image-text"].info.run_id, "loss")) == 400
    assert {parent.info.status, children["image-text"].info.status} == {"FINISHED"}


def test_a_server_frozen_killed_and_started_again_in_mid_run(tmp_path, server, warned):
    client = server.client
    loop = Loop(server.uri, tmp_path / "run")
    loop(loop.tracking.run_started, loop.run)
    loop.start("image-text")
    wait_until(lambda: (loop.steps(10, 0.01), client.get_experiment_by_name(tmp_path.name))[1])
    wait_until(lambda: (loop.steps(10, 0.01), runs_of(client, loop.folder)[1])[1])
    server.send(signal.SIGSTOP)  # requests hang
    loop.steps(150, 0.01)
    server.kill()  # connections are refused
    loop.steps(100, 0.01)
    loop.finish()
    loop.start("add-audio")
    server.start()
    wait_until(lambda: (loop.steps(20, 0.01), server.up())[1], 90)
    loop.steps(50, 0.01)
    loop.finish()
    loop.tracking.run_finished(loop.run, "ok")
    parent, children = check_exactly_once(client, loop.folder, ["image-text", "add-audio"])
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert len([m for m in warned() if "cannot be reached" in m]) == 1
    # Far below what one request costs while the server hangs (30 s); the typical event is far below 1 ms.
    assert max(loop.waits) < 1.0
    assert sum(loop.waits) / len(loop.waits) < 0.005
