"""What several `modalign plugins` verbs share."""

from __future__ import annotations

import os
from typing import Any

import click


def _above(ctx: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> tuple[str, ...]:
    """Put catalogues above the others, for this process and those it starts."""
    if files:
        below = os.environ.get("MODALIGN_REGISTRY", "")
        names = [os.path.abspath(file) for file in files]
        os.environ["MODALIGN_REGISTRY"] = os.pathsep.join([*names, *([below] if below else [])])
    return files


def registry(verb: Any) -> Any:
    """Adds ``--registry FILE``."""
    return click.option(
        "--registry", multiple=True, metavar="FILE", callback=_above, expose_value=False,
        help="A catalogue above the usual ones; may be repeated.",
    )(verb)  # fmt: skip


def yes(verb: Any) -> Any:
    """Adds ``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(verb)


def confirm(question: str, yes: bool) -> None:
    """Ask on stderr, unless ``--yes`` was given.

    Raises:
        UserError: if nobody is there to answer.
        click.Abort: if the answer is no.
    """
    import sys

    from modalign.errors import UserError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody is there to answer; add --yes")
    click.confirm(question, abort=True, err=True)


def say(text: str) -> None:
    """A line about what is going on: to stderr, which is not for data."""
    click.echo(f"modalign: {text}", err=True)
