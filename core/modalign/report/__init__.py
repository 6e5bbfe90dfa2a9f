"""What a run leaves for people to read: a table on the terminal, ``report.html``, figures."""

from .gallery import Answer, Example, Gallery, Shown
from .page import write
from .tables import columns, never_paired, stage_rows, task_rows, text

__all__ = [
    "Answer",
    "Example",
    "Gallery",
    "Shown",
    "columns",
    "never_paired",
    "stage_rows",
    "task_rows",
    "text",
    "write",
]
