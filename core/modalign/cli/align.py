"""`modalign align`: train a space as a plan says."""

from __future__ import annotations

import click


@click.command(short_help="Train a space as a plan says")
@click.argument("plan", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key.path=value ...]")
@click.option("--from", "start", metavar="SPACE", help="Add the plan's modalities to this finished space.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run, at the very step.")
@click.option("--out", metavar="DIR", type=click.Path(), help="The run folder; by default runs/<plan name>.")
@click.option("--dry-run", is_flag=True, help="Check the plan, say what it would do, write nothing.")
@click.option("--quiet", is_flag=True, help="Only results and warnings.")
def command(
    plan: str,
    overrides: tuple[str, ...],
    start: str | None,
    resume: bool,
    out: str | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Train a space as PLAN says, stage by stage.

    seed=0,1,2 runs the plan once for each value, and every combination of several such keys, then
    compares the runs. A comma inside brackets, braces or quotes is the value's own.
    """
    import json
    import logging
    from pathlib import Path

    logging.basicConfig(format="%(message)s")
    logging.getLogger("modalign").setLevel(logging.WARNING if quiet else logging.INFO)
    if dry_run:
        from modalign.training.dry_run import describe
        from modalign.training.sweep import combinations

        for values in combinations(overrides):
            click.echo(describe(plan, values, start))
        return 0
    from modalign import report
    from modalign.cli.main import failed
    from modalign.errors import UserError
    from modalign.training.fabric import first_process
    from modalign.training.run import align
    from modalign.training.sweep import alternatives, sweep

    if any(len(alternatives(text)) > 1 for text in overrides):
        from modalign.training import compare

        folders = sweep(plan, overrides, start=start, resume=resume, out=out)
        if first_process():
            runs = [run for folder in folders for run in compare.read_run(str(folder))]
            click.echo(report.columns(compare.rows(runs)))
        return 0
    try:
        space = align(plan, start=start, resume=resume, out=out, overrides=overrides)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a component that ends the program ends its run
        return failed(error, "Once that is mended, the same command with --resume goes on")
    if not first_process():
        return 0
    folder = Path(out) if out else Path("runs") / space.plan["name"]
    click.echo(report.as_text(json.loads((folder / "report.json").read_text(encoding="utf-8"))))
    click.echo(f"\nspace: {folder / 'space'}\nreport: {folder / 'report.html'}")
    return 0
