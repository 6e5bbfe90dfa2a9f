"""`modalign plugins new`: writes the beginning of a plugin."""

from __future__ import annotations

import click


@click.command("new")
@click.argument("name")
def new(name: str) -> None:
    """Write a plugin that installs and passes its contract checks at once."""
    raise click.ClickException("soon")
