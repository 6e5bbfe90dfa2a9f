"""The command line's frame and its light verbs: exit statuses, streams, and what is not imported."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import click
import pytest
from modalign import UserError
from modalign.cli import doctor, main
from modalign.plugin import loader

RUN = "import sys; from modalign.cli.main import main; sys.exit(main())"
HEAVY = ("torch", "mlflow", "transformers", "lightning", "lightning_fabric", "pydantic", "pyarrow", "rich")
HEAVY += ("numpy", "pandas", "matplotlib", "yaml", "faiss", "http.server")
WATCH = f"""
import sys
from modalign.cli.main import main
status = main(sys.argv[1:])
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""


def run(*arguments: str, code: str = RUN, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plugins", "list"], ["plugins", "--help"], ["list"], ["list", "--json"]],
)
def test_light_verbs_import_nothing_heavy(arguments):
    done = run(*arguments, code=WATCH)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr.splitlines()[-1] == "HEAVY []"


def test_help_names_every_verb_and_imports_none_of_them():
    done = run("--help", code="import sys; from modalign.cli.main import main; main();"
               "print([m for m in sys.modules if m.startswith('modalign.cli.')])")  # fmt: skip
    for verb, (_, summary) in main.VERBS.items():
        assert f"{verb} " in done.stdout
        assert summary in done.stdout
    assert done.stdout.splitlines()[-1] == "['modalign.cli.main']"


def test_no_plugin_at_all_and_the_core_still_lists():
    others = ",".join(p.distribution for p in loader.plugins() if p.distribution != "modalign")
    done = run("list", "losses", "--json", MODALIGN_DISABLE=others)
    assert done.returncode == 0, done.stderr
    assert "infonce" in {each["name"] for each in json.loads(done.stdout)}
    assert {each["full_name"].split(":")[0] for each in json.loads(done.stdout)} == {"modalign"}
    done = run("list", MODALIGN_DISABLE=f"modalign,{others}")
    assert done.returncode == 0, done.stderr
    assert "none" in done.stdout
    done = run("plugins", "list", MODALIGN_DISABLE=f"modalign,{others}")
    assert done.returncode == 0
    assert done.stdout.count("disabled by MODALIGN_DISABLE") == len(loader.plugins())


def test_list_shows_what_the_loader_offers(capsys):
    assert main.main(["list", "projections"]) == 0
    shown = capsys.readouterr().out
    for offer in loader.components("projections"):
        line = next(line for line in shown.splitlines() if f" {offer.full_name} " in line)
        assert offer.component.summary in line
    assert "losses" not in shown
    assert main.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} >= {"projections", "losses", "tasks"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lst"], "did you mean 'list'"),
        (["list", "loses"], "did you mean 'losses'"),
        (["list", "--jsn"], "--json"),
        (["plugins", "lists"], "lists"),
        (["ui", "--uri", "sqlite:///no/such.db"], "no/such.db"),
        (["ui", "--port", "0"], "port"),
    ],
)
def test_wrong_input_is_status_2_and_stdout_stays_empty(capsys, arguments, words):
    assert main.main(arguments) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("no such thing; type that"), 2, "modalign: no such thing; type that"),
        (click.UsageError("bad flag"), 2, "bad flag"),
        (click.FileError("a.txt", "gone"), 2, "a.txt"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (ZeroDivisionError("by zero"), 1, "modalign: the run failed: ZeroDivisionError: by zero"),
        (EOFError("short file"), 1, "modalign: the run failed: EOFError: short file"),
    ],
)
def test_exit_statuses(capsys, monkeypatch, error, status, words):
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("modalign.cli.list.command", command)
    monkeypatch.delenv("MODALIGN_DEBUG", raising=False)
    assert main.main(["list"]) == status
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert "Traceback" not in err
    assert ("MODALIGN_DEBUG" in err) == (status == 1)
    monkeypatch.setenv("MODALIGN_DEBUG", "1")
    assert main.main(["list"]) == status
    assert ("Traceback" in capsys.readouterr().err) == (status == 1)


def test_a_reader_that_leaves_is_no_error():
    if os.name != "posix":
        pytest.skip("needs a POSIX pipe")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "list"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == ""


def test_doctor_reports_and_clears_the_cache(tmp_path, capsys, monkeypatch):
    pytest.importorskip("modalign.training.feature_cache")
    monkeypatch.setenv("MODALIGN_CACHE", str(tmp_path))
    folder = tmp_path / "features" / "some-encoder"
    folder.mkdir(parents=True)
    (folder / "part.bin").write_bytes(b"x" * 2048)
    (folder / "about.json").write_text("{}")
    (mine := tmp_path / "features" / "mine").mkdir()
    (mine / "thesis.txt").write_text("precious")
    assert main.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert "modalign" in {plugin["distribution"] for plugin in found["plugins"]}
    assert len(found["cache"]) == 1  # only what the cache wrote
    assert "cache freed" not in found
    assert main.main(["doctor", "--clear-cache"]) == 0
    out, err = capsys.readouterr()
    assert "cache freed" in out
    assert "problem" in err
    assert not folder.exists()
    assert (mine / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("torch", "torchaudio", "wrong"),
    [
        ("2.11.0", "2.11.0", False),
        ("2.11.1", "2.11.0", False),
        ("2.11.0+cu128", "2.11.0", False),
        ("2.11.0+cpu", "2.11.0+cpu", False),
        ("2.11.0+cpu", "2.11.0", True),
        ("2.11.0", "2.10.0", True),
        ("2.1.0", "2.11.0", True),
        (None, "2.11.0", False),
        ("2.11.0", None, False),
    ],
)
def test_doctor_knows_which_pairs_fit(torch, torchaudio, wrong):
    assert bool(doctor.pair_problem(torch, torchaudio)) == wrong


def test_sizes_for_people():
    assert [doctor.size(n) for n in (0, 1023, 1536, 5 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]


def test_ui_prints_the_address_of_a_server_elsewhere(capsys):
    assert main.main(["ui", "--uri", "http://example.org:5000"]) == 0
    assert capsys.readouterr().out == "http://example.org:5000\n"


def test_ui_refuses_a_port_in_use(tmp_path, capsys):
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main.main(["ui", "--uri", f"sqlite:///{tmp_path}/mlflow.db", "--port", str(port)]) == 2
    assert f"port {port} is in use" in capsys.readouterr().err


@pytest.mark.slow
def test_ui_serves_and_ends_cleanly(tmp_path):
    pytest.importorskip("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "mlflow.db").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "ui", "--port", str(port)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                assert urllib.request.urlopen(f"{address}/health", timeout=5).read() == b"OK"
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out.strip() == address
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
