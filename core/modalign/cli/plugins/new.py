"""`modalign plugins new`: writes the beginning of a plugin."""

from __future__ import annotations

import click

from .options import registry, say

KINDS = ("modality", "encoder", "projection", "loss", "task")


@click.command("new")
@click.argument("name")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS),
    help="What it offers; may be repeated. Default: a modality and an encoder.",
)  # fmt: skip
@click.option(
    "--reads", metavar="MODALITY", help="What the encoder reads, if another plugin brings that modality."
)
@click.option("--out", metavar="DIR", help="The plugin's folder. Default: modalign-NAME.")
@registry
def new(name: str, kinds: tuple[str, ...], reads: str | None, out: str | None) -> None:
    """Write a plugin that installs and passes its contract checks at once.

    NAME is what it is about, such as lidar; the plugin will be called modalign-NAME.
    """
    from pathlib import Path

    from modalign.plugin.new import write_plugin

    files = write_plugin(name, kinds, reads, Path(out) if out else None)
    for file in files:
        click.echo(str(file))
    say(f"next: modalign plugins install -e {files[0].parent}")
