"""`modalign embed`: write the embeddings of files, literals or a table's column."""

from __future__ import annotations

import click


@click.command(short_help="Write the embeddings of files, literals or a table")
@click.argument("space", type=click.Path())
@click.argument("modality")
@click.argument("values", nargs=-1)
@click.option(
    "--table", type=click.Path(), metavar="T", help="A Parquet, CSV or JSON-lines table instead of values."
)
@click.option("--column", metavar="C", help="The table's column; by default the modality's name.")
@click.option(
    "--out", required=True, type=click.Path(), metavar="FILE.parquet", help="Where the embeddings go."
)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1))
def command(
    space: str,
    modality: str,
    values: tuple[str, ...],
    table: str | None,
    column: str | None,
    out: str,
    batch_size: int,
) -> None:
    """Embed VALUES (paths, or the texts themselves) of MODALITY, or a table's column, with SPACE."""
    from pathlib import Path

    from modalign.training.embed import embed_table, embed_values

    if bool(values) == bool(table):
        raise click.UsageError("give either values or --table")
    if table:
        rows, bad = embed_table(space, modality, Path(table), column or modality, Path(out), batch_size)
    else:
        rows, bad = embed_values(space, modality, values, Path(out), batch_size), 0
    left_out = f" ({bad} could not be read: {out}.quarantine.csv)" if bad else ""
    click.echo(f"{rows} embeddings in {out}{left_out}", err=True)
