"""`modalign embed`: write the embeddings of files, literals or a table's column."""

from __future__ import annotations

from typing import Any

import click

FOR_TABLES = ("column", "carried", "workers", "part_rows", "resume", "engine", "ray_address")


@click.command(short_help="Write the embeddings of files, literals or a table")
@click.argument("space", type=click.Path())
@click.argument("modality")
@click.argument("values", nargs=-1)
@click.option("--table", metavar="T", help="A table instead of values, as in a plan's data.")
@click.option("--column", metavar="C", help="The table's column; by default the modality's name.")
@click.option("--id", "carried", metavar="COLUMN", help="A column of the table to carry along.")
@click.option(
    "--out", required=True, type=click.Path(), metavar="FILE.parquet", help="Where the embeddings go."
)
@click.option("--workers", metavar="N", type=click.IntRange(min=1),
              help="Processes; by default one per GPU, or this one alone.")  # fmt: skip
@click.option("--part-rows", metavar="N", type=click.IntRange(min=1),
              help="Rows between two points to go on from.  [default: 4096]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, if there is one.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="This machine, or a Ray cluster.")  # fmt: skip
@click.option("--ray-address", metavar="ADDRESS",
              help="Of the cluster; by default RAY_ADDRESS, or Ray is started here.")  # fmt: skip
@click.option("--batch-size", metavar="N", type=click.IntRange(min=1),
              help="Samples encoded together.  [default: 64]")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto: CUDA if any.")
@click.option("--quiet", is_flag=True, help="Only warnings.")
@click.pass_context
def command(
    context: click.Context,
    space: str,
    modality: str,
    values: tuple[str, ...],
    table: str | None,
    column: str | None,
    carried: str | None,
    out: str,
    workers: int | None,
    part_rows: int | None,
    resume: bool,
    engine: str,
    ray_address: str | None,
    batch_size: int | None,
    device: str,
    quiet: bool,
) -> None:
    """Embed VALUES (paths, or the texts themselves) of MODALITY, or a table's column, with SPACE."""
    import logging
    from pathlib import Path

    from modalign.training.embed import embed_values

    logging.basicConfig(format="modalign: %(message)s")
    if bool(values) == bool(table):
        raise click.UsageError("give either values or --table")
    if ray_address and engine != "ray":
        raise click.UsageError("--ray-address goes with --engine ray")
    if table is None:
        given = [name for name in FOR_TABLES if _given(context, name)]
        if given:
            option = next(p for p in context.command.params if p.name == given[0]).opts[0]
            raise click.UsageError(f"{option} is for a --table")
        rows = embed_values(space, modality, values, Path(out), batch_size or 64, device)
        if not quiet:
            click.echo(f"{rows} embeddings in {out}", err=True)
        return
    how: dict[str, Any] = {
        "workers": workers,
        "part_rows": part_rows,
        "batch_size": batch_size,
        "engine": engine,
        "address": ray_address,
        "device": device,
        "resume": resume,
    }
    _embed_table((space, modality, table, column or modality, carried), Path(out), how, quiet)


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _embed_table(what: tuple[Any, ...], out: Any, how: dict[str, Any], quiet: bool) -> None:
    import sys

    from modalign.training.embed import How, What, embed_table
    from modalign.training.embedding.cost import in_words

    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(length=0, label="embedding", file=sys.stderr, hidden=hidden) as bar:

        def step(done: int, rows: int) -> None:
            bar.length = rows
            bar.update(done - bar.pos)

        cost = embed_table(What(*what), out, How(**how), step)
    if quiet:
        return
    bad = cost["unreadable"]
    left_out = f" ({bad} could not be read: {out}.quarantine.csv)" if bad else ""
    click.echo(f"{cost['rows']} embeddings in {out}{left_out}\n{in_words(cost)}", err=True)
