"""`modalign plugins install`: shows what will happen, asks, installs, checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import confirm, registry, say, yes

if TYPE_CHECKING:
    from modalign.plugin.install import Outcome
    from modalign.plugin.verdict import Verdict

WARNING = "Installing a plugin runs its code with your rights."


@click.command("install")
@click.argument("names", nargs=-1, metavar="[NAME|WHEEL]...")
@click.option("-e", "--editable", multiple=True, metavar="PATH", help="Link a plugin's folder.")
@click.option("--unlisted", multiple=True, metavar="REQ", help="A requirement that no catalogue vouches for.")
@click.option("-U", "--upgrade", is_flag=True, help="Take the newest version that fits.")
@registry
@yes
@click.option("--json", "as_json", is_flag=True, help="Say what was done as one JSON object.")
def install(
    names: tuple[str, ...],
    editable: tuple[str, ...],
    unlisted: tuple[str, ...],
    upgrade: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Install plugins, run their contract checks, and undo everything if they fail.

    NAME is in the catalogue (see `modalign plugins search`), with or without `modalign-`, perhaps with
    versions: 'modalign-x==1.2'. WHEEL is a file that ends in .whl.
    """
    from modalign.plugin.install import InstallFailed
    from modalign.plugin.install import install as run
    from modalign.plugin.requests import requests

    from .judge import judge

    asked = requests(names, editable, unlisted)
    for request in asked:
        click.echo(request.describe(), err=True)
    confirm(f"{WARNING} Install?", yes)
    try:
        outcome = run(asked, judge, say, upgrade)
    except InstallFailed as failure:
        _show_failure(failure, as_json)
        return 1
    _show(outcome, as_json)
    return 0


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        import json

        checks = {verdict.distribution: verdict.checks for verdict in outcome.verdicts}
        done = {"installed": outcome.plugins, "checks": checks, "changes": outcome.changes}
        click.echo(json.dumps({**done, "already": outcome.already}, indent=2))
        return
    for line in outcome.already:
        click.echo(f"{line} is already installed (--upgrade takes a newer one)")
    for verdict in outcome.verdicts:
        click.echo(f"installed {verdict.distribution} {verdict.version}: {verdict.checks} checks passed")


def _show_failure(failure: Exception, as_json: bool) -> None:
    verdicts: list[Verdict] = getattr(failure, "verdicts", [])
    if as_json:
        import json

        failed = {verdict.distribution: verdict.failed for verdict in verdicts}
        click.echo(json.dumps({"error": str(failure), "failed": failed}, indent=2))
    from .check import lines

    for verdict in verdicts:
        if not verdict.good:
            click.echo("\n".join(lines(verdict)), err=True)
    say(f"{failure}; nothing was installed")
