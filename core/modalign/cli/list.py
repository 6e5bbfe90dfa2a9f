"""`modalign list`: the components a plan may name."""

from __future__ import annotations

import click


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def command(kind: str | None, as_json: bool) -> None:
    """Show the components a plan may name.

    KIND is one of modalities, encoders, projections, losses, tasks; default: all of them.
    """
    from modalign.plugin import loader
    from modalign.plugin.component import KINDS

    offers = [offer for each in ([kind] if kind else KINDS) for offer in loader.components(each)]
    if as_json:
        import json

        rows = [
            {
                "kind": offer.kind,
                "name": offer.component.name,
                "full_name": offer.full_name,
                "summary": offer.component.summary,
                "version": offer.version,
            }
            for offer in offers
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        width = max((len(offer.component.name) for offer in offers), default=0)
        full = max((len(offer.full_name) for offer in offers), default=0)
        for each in [kind] if kind else KINDS:
            click.echo(each)
            for o in (offer for offer in offers if offer.kind == each):
                click.echo(f"  {o.component.name:{width}}  {o.full_name:{full}}  {o.component.summary}")
            if not any(offer.kind == each for offer in offers):
                click.echo("  none; `modalign plugins list` shows what is installed")
    for plugin in loader.plugins():
        if not plugin.loaded and not plugin.disabled:
            click.echo(f"modalign: {plugin.distribution} is not loaded: {plugin.problem}", err=True)
