"""Searching with a space: an index of files and tables, asked by any modality."""

from .add import Added, add
from .index import Index
from .index_files import identity, open_index, save_index
from .items import Item, find
from .nearest import KINDS, Nearest
from .query import Hit, Term, hits, parse, vector

__all__ = [
    "KINDS",
    "Added",
    "Hit",
    "Index",
    "Item",
    "Nearest",
    "Term",
    "add",
    "find",
    "hits",
    "identity",
    "open_index",
    "parse",
    "save_index",
    "vector",
]
