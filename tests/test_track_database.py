"""A database for MLflow is there whole or not at all, whoever else makes it and whenever it is killed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from modalign.training.track.client import connect, experiment_id
from modalign.training.track.database import make_database

MAKE = "import sys; from modalign.training.track.client import connect; connect(sys.argv[1]).search_experiments()"


@pytest.fixture
def start(tmp_path):
    """Starts a process that makes a database; what it needs besides is below ``tmp_path / "temporary"``."""
    (tmp_path / "temporary").mkdir()

    def start(uri):
        environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
        return subprocess.Popen(
            [sys.executable, "-c", MAKE, uri], env=environment, cwd=tmp_path, stderr=subprocess.PIPE
        )

    return start


def test_killed_while_it_is_made(tmp_path, start):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    seed = random.randrange(10**6)
    print("seed", seed)  # shown when the test fails
    for delay in (0.1, random.Random(seed).uniform(0, 1.5)):
        before = set(tmp_path.rglob("*.db*"))
        process = start(uri)
        while process.poll() is None and set(tmp_path.rglob("*.db*")) == before:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    client = connect(uri)
    assert experiment_id(client, "digits") == experiment_id(client, "digits")


def test_made_by_three_processes_at_once(tmp_path, start):
    uri = f"sqlite:///{tmp_path}/folder/mlflow.db"
    processes = [start(uri) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mlflow.db"]
    assert not list((tmp_path / "temporary").iterdir())


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"mine")
    make_database(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"mine"
