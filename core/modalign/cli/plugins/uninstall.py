"""`modalign plugins uninstall`: removes plugins, broken ones too."""

from __future__ import annotations

import click

from .options import confirm, say, yes


@click.command("uninstall")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@yes
@click.option("--json", "as_json", is_flag=True, help="Say what was done as one JSON object.")
def uninstall(names: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Remove plugins. None of their code is run; what they needed stays."""
    from packaging.utils import canonicalize_name

    from modalign.plugin.environment import own
    from modalign.plugin.install import InstallFailed
    from modalign.plugin.install import uninstall as run

    known = []
    for name in names:
        full = canonicalize_name(name)
        known.append(full if own(full) or not own(f"modalign-{full}") else f"modalign-{full}")
    confirm(f"Uninstall {', '.join(known)}?", yes)
    try:
        removed = run(list(dict.fromkeys(known)), say)
    except InstallFailed as failure:
        say(f"{failure}; nothing was uninstalled")
        return 1
    if as_json:
        import json

        click.echo(json.dumps({"uninstalled": removed}, indent=2))
    else:
        for name, version in removed.items():
            click.echo(f"uninstalled {name} {version}")
    return 0
