"""MLflow is away, slow, locked, wrong or damaged; the run goes on."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill, moment
from ..process import Ended

LOST = "everything is in `metrics.jsonl`; `--resume` sends what is missing, each step once"


class Store:
    """MLflow in a SQLite file, as a plan names it; asked by SQL.

    Inputs:
        file: where it is; by default in the case's folder.
        made: whether MLflow's tables are there already.
        away: whether it will not answer: a run then waits for three seconds at its end, not sixty.
    """

    def __init__(self, bench: Bench, file: Path | None = None, made: bool = True, away: bool = False) -> None:
        self.bench, self.file = bench, file or bench.home / "mlflow.db"
        bench.plan["track"] = {"uri": f"sqlite:///{self.file}"}
        if made:
            shutil.copy(_empty(bench.references), self.file)
        if away:
            bench.environment["PATIENCE"] = "3"

    def resume(self) -> None:
        """Go on, now that it answers; everything must be there then."""
        self.bench.environment.pop("PATIENCE", None)
        again = self.bench.resume()
        assert again.status == 0, again.err
        self.check_complete()

    def ask(self, question: str) -> list[tuple]:
        with sqlite3.connect(self.file) as connection:
            return connection.execute(question).fetchall()

    def check_complete(self) -> None:
        """One run per stage and one above them; every step's loss once."""
        names = sorted(name for (name,) in self.ask("select name from runs where lifecycle_stage = 'active'"))
        assert names == ["add-audio", "image-text", "tiny"], f"runs in MLflow: {names}"
        steps = sorted(step for (step,) in self.ask("select step from metrics where key = 'loss'"))
        expected = list(range(1, 19))
        assert steps == expected, f"steps in MLflow: {steps}"
        states = {state for (state,) in self.ask("select status from runs where lifecycle_stage = 'active'")}
        assert states == {"FINISHED"}, f"states in MLflow: {states}"


@functools.lru_cache
def _empty(references: Path) -> Path:
    """A database with MLflow's tables and no run, made once."""
    from modalign.training.track.database import make_database

    file = references / "empty.db"
    make_database(f"sqlite:///{file}")
    return file


def wait_at(bench: Bench, step: int) -> dict:
    return moment("step", count=step, do="wait", flag=str(bench.flag))


@case("MLflow", "killed while tracked", "after step 5", Promise(-9, more="each step is in MLflow once"))
def killed_tracked(bench: Bench) -> Ended:
    store = Store(bench)
    ended = bench.align(at=kill("step", count=5)).end()
    store.resume()
    return ended


@case(
    "MLflow",
    "its database is locked by another process, and let go",
    "from step 5 on, two seconds",
    Promise(),
)
def locked(bench: Bench) -> Ended:
    store = Store(bench)
    running = bench.align(at=wait_at(bench, 5))
    bench.paused(running)
    holder = sqlite3.connect(store.file, isolation_level=None, timeout=20)
    holder.execute("begin exclusive")
    bench.go_on()
    time.sleep(2)
    holder.execute("rollback")
    holder.close()
    ended = running.end()
    store.check_complete()
    return ended


@case("MLflow", "its database stays locked to the end", "from step 5 on", Promise(
    0, "MLflow at .* did not get everything.*--resume", more=LOST))  # fmt: skip
def locked_for_good(bench: Bench) -> Ended:
    store = Store(bench, away=True)
    running = bench.align(at=wait_at(bench, 5))
    bench.paused(running)
    holder = sqlite3.connect(store.file, isolation_level=None, timeout=20)
    holder.execute("begin exclusive")
    bench.go_on()
    ended = running.end()
    holder.execute("rollback")
    holder.close()
    store.resume()
    return ended


@case("MLflow", "its database is deleted", "after step 5", Promise(0, more="`metrics.jsonl` has everything"))
def deleted(bench: Bench) -> Ended:
    store = Store(bench, away=True)
    running = bench.align(at=wait_at(bench, 5))
    bench.paused(running)
    store.file.unlink()
    bench.go_on()
    return running.end()


@case("MLflow", "its database holds garbage", "from the start", Promise(0, "MLflow", more=LOST))
def garbage(bench: Bench) -> Ended:
    store = Store(bench, made=False, away=True)
    store.file.write_bytes(b"no database at all " * 500)
    bench.spoilt.add(store.file)
    ended = bench.align().end()
    store.file.unlink()
    store.resume()
    return ended


@case("MLflow", "its database is a folder", "from the start", Promise(0, "MLflow"))
def database_is_folder(bench: Bench) -> Ended:
    Store(bench, made=False, away=True).file.mkdir()
    return bench.align().end()


@case("MLflow", "what remembers the runs (mlflow.json) is damaged", "before --resume", Promise(0))
def record_damaged(bench: Bench) -> Ended:
    store = Store(bench)
    bench.align(at=kill("step", count=5)).end()
    (bench.run / "mlflow.json").write_text('{"run')
    ended = bench.resume()
    steps = [
        step
        for (step,) in store.ask(
            "select step from metrics m join runs r using (run_uuid) where key = 'loss' and status = 'FINISHED'"
        )
    ]
    assert len(steps) == len(set(steps))
    return ended


class Server(ThreadingHTTPServer):
    """Answers every request with one status, or never."""

    def __init__(self, status: int | None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                if status is None:
                    time.sleep(60)
                    return
                body = b'{"error_code": "INTERNAL_ERROR", "message": "on fire"}'
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def __getattr__(self, name: str) -> object:
                if name.startswith("do_"):  # whatever the method
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, daemon=True).start()


ANSWERS: dict[str, int | None] = {
    "its server answers 500": 500,
    "its server answers 429, too many requests": 429,
    "its server answers 401, not allowed": 401,
    "its server takes requests and never answers": None,
}
for name, status in ANSWERS.items():

    @case("MLflow", name, "from the start", Promise(0, "MLflow at http://127.0.0.1:.*"))
    def answers(bench: Bench, status: int | None = status) -> Ended:
        Store(bench, away=True)
        server = Server(status)
        bench.cleanup.append(server.server_close)
        bench.cleanup.append(server.shutdown)
        bench.plan["track"] = {"uri": f"http://127.0.0.1:{server.server_address[1]}"}
        return bench.align().end()


@case("MLflow", "nobody listens at its address", "from the start", Promise(
    0, "MLflow at http://127.0.0.1:9 cannot be reached.*--resume", more=LOST))  # fmt: skip
def nobody(bench: Bench) -> Ended:
    store = Store(bench, away=True)
    uri = bench.plan["track"]["uri"]
    bench.plan["track"] = {"uri": "http://127.0.0.1:9"}
    ended = bench.align().end()
    bench.plan["track"] = {"uri": uri}
    store.resume()
    return ended


@case(
    "MLflow",
    "killed while MLflow's new database is made",
    "migrations",
    Promise(-9, more="the next run makes it whole"),
)
def killed_making(bench: Bench) -> Ended:
    store = Store(bench, made=False)
    ended = bench.align(at=kill("os.link", "*/mlflow.db")).end()
    assert not store.file.exists()
    store.resume()
    return ended
