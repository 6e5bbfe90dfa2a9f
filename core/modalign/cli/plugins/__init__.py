"""`modalign plugins`: find, install, check, write and remove plugins."""

from __future__ import annotations

import click

from .check import check
from .install import install
from .list import list_plugins
from .new import new
from .recover import recover
from .search import search
from .uninstall import uninstall


@click.group("plugins", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Find, install, check, write and remove plugins."""
    recover()


for verb in (list_plugins, search, install, uninstall, check, new):
    command.add_command(verb)
