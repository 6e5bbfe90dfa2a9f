"""`modalign search`: index files and tables, and find items by any modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from modalign.search import Added, Hit, Index
    from modalign.space import Space


@click.command(short_help="Index files and tables, and find items by any modality")
@click.argument("space", type=click.Path())
@click.argument("data", nargs=-1, type=click.Path())
@click.option("--index", "folder", type=click.Path(), metavar="DIR", help="The index; default: SPACE.index.")
@click.option(
    "--column", "columns", multiple=True, metavar="MODALITY=C", help="A table's column of a modality."
)
@click.option("--as", "only", metavar="MODALITY", help="Take DATA for this modality alone.")
@click.option("--kind", metavar="KIND", help="flat, hnsw, ivfpq or auto (by the number of items).")
@click.option("--query", "-q", "queries", multiple=True, metavar="MODALITY=VALUE",
              help="What to look for; several are combined. MODALITY:WEIGHT=VALUE weighs it.")  # fmt: skip
@click.option("--minus", multiple=True, metavar="MODALITY=VALUE", help="What to take away from the query.")
@click.option("--combine", type=click.Choice(["sum", "product"]), help="How; product is for Symile's spaces.")
@click.option("--to", multiple=True, metavar="MODALITY", help="Find only items of this modality.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Items per modality.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def command(
    space: str,
    data: tuple[str, ...],
    folder: str | None,
    columns: tuple[str, ...],
    only: str | None,
    kind: str | None,
    queries: tuple[str, ...],
    minus: tuple[str, ...],
    combine: str | None,
    to: tuple[str, ...],
    k: int,
    as_json: bool,
) -> None:
    """Find items by any modality of SPACE, by several at once, or by their sums and differences.

    DATA are folders, files and tables (Parquet, CSV, JSON lines) to index first; what the index holds
    already is not embedded again. A value is the text itself, or a file's path.

    \b
    modalign search SPACE pictures/ sounds/
    modalign search SPACE --query text="a dog" --to image -k 5
    modalign search SPACE --query image=cat.png --query text:0.5=snow --minus text=grass
    """
    from pathlib import Path

    from modalign.search import Index, hits, identity, open_index, parse, save_index, vector
    from modalign.search.nearest import choose, faiss
    from modalign.space_files import load

    if not data and not queries and not minus:
        raise click.UsageError("give DATA to index, or a --query")
    if not data and (columns or only or kind):
        raise click.UsageError("--column, --as and --kind are for indexing: give DATA")
    terms = [*map(parse, queries), *(parse(text, -1.0) for text in minus)]
    if kind:
        choose(0, kind)
    faiss()
    where = index_folder(space, folder)
    mark = identity(space)
    known = open_index(where, mark) if (where / "index.json").is_file() or not data else None
    loaded = load(space)
    index = known or Index(mark, loaded.dim)
    for name in to:
        loaded.entry(name)
    asked = vector(loaded, terms, combine) if terms else None  # a wrong query indexes nothing
    added = None
    if data:
        index, added = _add(loaded, index, [Path(path) for path in data], _columns(columns), only, kind)
        save_index(index, where, added.unreadable)
    found = None if asked is None else hits(index, asked, k, to)
    if as_json:
        _show_json(where, index, added, found)
        return
    if added is not None:
        _say(where, index, added)
    for name, best in (found or {}).items():
        click.echo(name)
        for hit in best:
            text = f"  {_short(hit.item.literal)}" if hit.item.literal is not None else ""
            click.echo(f"  {hit.score:7.4f}  {hit.item.place}{text}")
    if found == {}:
        click.echo("modalign: nothing is indexed yet", err=True)


def index_folder(space: str, folder: str | None) -> Path:
    """Where a space's index is: ``folder``, else beside the space.

    Raises:
        UserError: if the space has no folder to lie beside.
    """
    from pathlib import Path

    from modalign.errors import UserError

    if folder:
        return Path(folder)
    if "://" in space or space.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        raise UserError("say where the index is: --index DIR")
    place = Path(space) if Path(space).name else Path(space).absolute()
    if not (place / "config.json").is_file() and (place / "space" / "config.json").is_file():
        place = place / "space"  # a run's folder
    return place.with_name(f"{place.name}.index")


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    from modalign.errors import UserError

    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"cannot read --column {pair}: write --column MODALITY=COLUMN")
    return dict(pair.split("=", 1) for pair in pairs)


def _add(
    space: Space, index: Index, paths: list[Path], columns: dict[str, str], only: str | None, kind: str | None
) -> tuple[Index, Added]:
    import sys

    from modalign.search import add, find

    found = find(space, paths, columns, only)
    with click.progressbar(
        length=len(found.candidates), label="indexing", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        return add(space, index, found, kind, bar.update)


def _say(where: Path, index: Index, added: Added) -> None:
    counts = ", ".join(f"{len(index.numbers[n])} {n} ({index.nearest(n).kind})" for n in index.modalities)
    click.echo(
        f"{where}: {counts or 'no items'}; {added.new} new, {added.known} known, {added.gone} gone", err=True
    )
    for place, reason in added.unreadable[:5]:
        click.echo(f"modalign: cannot read {place}: {reason}", err=True)
    if len(added.unreadable) > 5:
        click.echo(f"modalign: and {len(added.unreadable) - 5} more: {where / 'unreadable.csv'}", err=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _show_json(where: Path, index: Index, added: Added | None, found: dict[str, list[Hit]] | None) -> None:
    import dataclasses
    import json

    shown: dict[str, Any] = {
        "index": {
            "folder": str(where),
            "items": {n: len(index.numbers[n]) for n in index.modalities},
            "kinds": {n: index.nearest(n).kind for n in index.modalities},
        }
    }
    if added is not None:
        unreadable = [{"place": place, "reason": reason} for place, reason in added.unreadable]
        shown["added"] = {**dataclasses.asdict(added), "unreadable": unreadable}
    if found is not None:
        shown["results"] = {name: [as_dict(hit) for hit in best] for name, best in found.items()}
    click.echo(json.dumps(shown, indent=1, ensure_ascii=False))


def as_dict(hit: Hit) -> dict[str, Any]:
    """A hit as JSON: score, number in the index, and where it is; None left out."""
    place = hit.item.place
    full = {
        "score": round(hit.score, 6),
        "number": hit.number,
        "file": place.path,
        "column": place.column,
        "row": place.row,
        "value": hit.item.literal,
    }
    return {key: value for key, value in full.items() if value is not None}
