"""What a run leaves for people to read: a table on the terminal, ``report.html``, figures."""

from .gallery import Answer, Example, Gallery, Shown
from .page import write
from .tables import as_text, columns, never_paired

__all__ = [
    "Answer",
    "Example",
    "Gallery",
    "Shown",
    "as_text",
    "columns",
    "never_paired",
    "write",
]
