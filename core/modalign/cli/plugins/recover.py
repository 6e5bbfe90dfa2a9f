"""Before any verb: puts back what a `modalign plugins` command that was killed has left."""

from __future__ import annotations

import os
import sys

from .options import say


def recover() -> None:
    """Roll back a change that was cut short, if there is one; never stops the verb itself."""
    if not os.path.exists(os.path.join(sys.prefix, ".modalign", "journal.json")):
        return
    from modalign.plugin.install import InstallFailed, finish_interrupted
    from modalign.plugin.lock import Busy, locked

    try:
        with locked():
            finish_interrupted(say)
    except (Busy, InstallFailed, OSError) as error:
        say(str(error))
