"""`modalign compare`: runs side by side."""

from __future__ import annotations

import click


@click.command(short_help="Show runs side by side")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--metric", "chosen", multiple=True, metavar="NAME", help="Show these metrics, not the primary ones."
)
@click.option("--uri", metavar="URI", help="MLflow's tracking URI; by default sqlite:///mlflow.db.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--out", metavar="FILE.html", type=click.Path(), help="Also write table and charts as a page.")
def command(
    runs: tuple[str, ...], chosen: tuple[str, ...], uri: str | None, as_json: bool, out: str | None
) -> None:
    """Show what the plans of runs differ in, what they reach and what they cost.

    RUN is a run folder, an MLflow run's id, or experiment:NAME for all runs of an experiment.
    """
    import json
    from pathlib import Path

    from modalign import report
    from modalign.training import compare

    found = [run for source in runs for run in compare.read_run(source, uri)]
    table = compare.rows(found, chosen)
    if out:
        Path(out).write_text(compare.page(found, chosen), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(compare.as_json(found), indent=1, ensure_ascii=False))
    else:
        click.echo(report.columns(table))
