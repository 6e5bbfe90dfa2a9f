"""A web page to search an index across modalities, served on this machine alone."""

from .answers import Explorer
from .server import serve

__all__ = ["Explorer", "serve"]
