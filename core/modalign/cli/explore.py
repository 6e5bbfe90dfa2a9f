"""`modalign explore`: search an index in a web page, with previews."""

from __future__ import annotations

import click


@click.command(short_help="Search an index in a web page, with previews")
@click.argument("space", type=click.Path())
@click.option("--index", "folder", type=click.Path(), metavar="DIR", help="The index; default: SPACE.index.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
def command(space: str, folder: str | None, port: int) -> None:
    """Search the index of SPACE in a web page, on this machine alone; Ctrl-C ends it.

    `modalign search SPACE DATA` makes the index.
    """
    import signal

    from modalign.errors import UserError
    from modalign.explore import Explorer, serve
    from modalign.search import identity, open_index
    from modalign.search.nearest import faiss
    from modalign.space_files import load

    from .search import index_folder

    faiss()
    index = open_index(index_folder(space, folder), identity(space))
    if not index.items:
        raise UserError("nothing is indexed yet. Run: modalign search SPACE DATA")
    try:
        server = serve(Explorer(load(space), index), port)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}): choose another --port") from None

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        click.echo(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
        server.server_close()
