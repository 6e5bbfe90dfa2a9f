"""`modalign ui`: MLflow's own pages on the tracking store of your runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import subprocess


@click.command("ui")
@click.option("--uri", default="sqlite:///mlflow.db", show_default=True, help="The plan's `track: uri`.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def command(uri: str, port: int) -> int:
    """Open MLflow on the tracking store; Ctrl-C ends it."""
    from modalign.errors import UserError

    if uri.startswith(("http://", "https://")):  # somebody else's server runs already
        click.echo(uri)
        return 0
    _check_store(uri)
    if _port_taken(port):
        raise UserError(
            f"port {port} is in use. Run: modalign ui --port {port + 1 if port < 65535 else 5000}"
        )
    status = _serve(uri, port)
    if status:
        click.echo(f"modalign: MLflow ended with status {status}; its own message is above", err=True)
    return 1 if status else 0


def _check_store(uri: str) -> None:
    """A store in a file must exist: MLflow would show an empty one of its own making."""
    from pathlib import Path
    from urllib.parse import unquote, urlsplit

    from modalign.errors import UserError

    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///").split("?")[0])
    elif "://" not in uri or uri.startswith("file:"):
        path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)
    else:
        return  # a database server: MLflow will say
    if not path.exists():
        raise UserError(f"no runs are tracked in {path} yet. Run: modalign align PLAN; or give --uri")


def _port_taken(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serve(uri: str, port: int) -> int:
    """MLflow's server as a child in its own process group, ended with all its workers."""
    import os
    import signal
    import subprocess
    import sys

    argv = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    argv += ["--host", "127.0.0.1", "--port", str(port)]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    server = subprocess.Popen(argv, stdout=sys.stderr, start_new_session=os.name == "posix")
    click.echo(f"http://127.0.0.1:{port}")
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server and its workers to end, and see to it that they have."""
    import os
    import signal
    import time

    if os.name != "posix":
        server.terminate()
        server.wait()
        return
    deadline = time.monotonic() + 10
    try:
        os.killpg(server.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            server.poll()
            os.killpg(server.pid, 0)  # raises once the last of the group is gone
            time.sleep(0.05)
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()
