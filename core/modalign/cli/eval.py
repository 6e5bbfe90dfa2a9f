"""`modalign eval`: run a plan's tasks on a finished space."""

from __future__ import annotations

import click


@click.command(short_help="Run a plan's tasks on a finished space")
@click.argument("space", type=click.Path())
@click.argument("plan", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key.path=value ...]")
@click.option(
    "--out", metavar="DIR", type=click.Path(), help="Also write report.json, report.html, quarantine.csv."
)
def command(space: str, plan: str, overrides: tuple[str, ...], out: str | None) -> None:
    """Run the tasks of PLAN on a finished SPACE; the plan's stages are not needed."""
    import json
    import logging
    from pathlib import Path

    from modalign.training.eval import evaluate

    logging.basicConfig(format="%(message)s")
    metrics = evaluate(space, plan, overrides, Path(out) if out else None)
    click.echo(json.dumps(metrics, indent=1, ensure_ascii=False))
