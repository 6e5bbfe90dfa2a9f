"""`modalign plugins list`: what is installed, and what is wrong with it."""

from __future__ import annotations

import click


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def list_plugins(as_json: bool) -> None:
    """Show every installed plugin: version, and ok or what is wrong."""
    from modalign.plugin import loader

    plugins = loader.plugins()
    if as_json:
        import json

        rows = [
            {
                "distribution": plugin.distribution,
                "version": plugin.version,
                "module": plugin.module,
                "ok": plugin.problem is None,
                "problem": plugin.problem,
                "disabled": plugin.disabled,
                "components": {
                    kind: [component.name for component in offered]
                    for kind, offered in plugin.components.items()
                },
            }
            for plugin in plugins
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(plugin.distribution) for plugin in plugins), default=0)
    version = max((len(plugin.version) for plugin in plugins), default=0)
    for plugin in plugins:
        click.echo(
            f"{plugin.distribution:{width}}  {plugin.version:{version}}  {plugin.problem or 'ok'}",
        )
