"""`modalign plugins search`: what the catalogue knows."""

from __future__ import annotations

import click

from .options import registry, say


@click.command("search")
@click.argument("word", required=False)
@registry
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def search(word: str | None, as_json: bool) -> None:
    """Show the plugins of the catalogue, or those that have to do with WORD.

    WORD is looked for in names, summaries, what they provide and what they need.
    """
    from modalign.plugin.environment import versions
    from modalign.plugin.registry import Entry, entries

    def text(entry: Entry) -> str:
        names = [name for kind, offered in entry.provides.items() for name in (kind, *offered)]
        return " ".join([entry.distribution, entry.summary, *names, *entry.needs]).lower()

    found = [entry for entry in entries() if (word or "").lower() in text(entry)]
    installed = versions()
    if as_json:
        import json

        rows = [
            {
                "distribution": entry.distribution,
                "summary": entry.summary,
                "trust": entry.trust,
                "provides": {kind: list(names) for kind, names in entry.provides.items()},
                "needs": list(entry.needs),
                "version": entry.version,
                "homepage": entry.homepage,
                "catalogue": str(entry.file),
                "installed": installed.get(entry.distribution),
            }
            for entry in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(entry.distribution) for entry in found), default=0)
    for entry in found:
        there = f" (installed: {installed[entry.distribution]})" if entry.distribution in installed else ""
        click.echo(f"{entry.distribution:{width}}  {entry.trust:8}  {entry.summary}{there}")
    if not found:
        say(f"nothing in the catalogue has to do with '{word}'")
