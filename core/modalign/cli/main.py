"""The `modalign` command: finds the verb, runs it, turns the outcome into an exit status."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import modalign
from modalign.errors import UserError, suggest

VERBS = {
    "align": ("modalign.cli.align", "Train a space as a plan says"),
    "eval": ("modalign.cli.eval", "Run a plan's tasks on a finished space"),
    "compare": ("modalign.cli.compare", "Show runs side by side"),
    "embed": ("modalign.cli.embed", "Write the embeddings of files, literals or a table"),
    "search": ("modalign.cli.search", "Index files and tables, and find items by any modality"),
    "explore": ("modalign.cli.explore", "Search an index in a web page, with previews"),
    "list": ("modalign.cli.list", "Show the components a plan may name"),
    "plugins": ("modalign.cli.plugins", "Show and manage plugins"),
    "doctor": ("modalign.cli.doctor", "Check the installation, and the feature cache"),
    "ui": ("modalign.cli.ui", "Open MLflow on the tracking store"),
}
"""Verb -> the module whose ``command`` it is, and its line in ``--help``."""


class Verbs(click.Group):
    """Imports a verb's module only when that verb is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            hint = suggest(args[0], VERBS) or "."
            raise click.UsageError(f"no verb '{args[0]}'{hint} Known: {', '.join(VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(modalign.__version__, prog_name="modalign", message="%(prog)s %(version)s")
def group() -> None:
    """Align any modality with the ones you already have."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Inputs:
        arguments: what follows ``modalign``; default: the process's own.

    Returns 0 done, 2 wrong input, 1 the run failed, 130 interrupted; a verb may return its own.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if "_MODALIGN_COMPLETE" in os.environ:  # a shell asks for completions
            group.main(given, prog_name="modalign")
        # Not group.main: it takes a verb's EOFError for an interruption, and a broken pipe for a failure.
        with group.make_context("modalign", list(given)) as ctx:
            status = group.invoke(ctx)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except UserError as error:
        return _say(str(error), 2)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", 130)
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        return failed(error)


def _say(message: str, status: int) -> int:
    click.echo(f"modalign: {message}", err=True)
    return status


def failed(error: BaseException, advice: str = "") -> int:
    """Say why a run failed, and what to do about it; the exit status."""
    if os.environ.get("MODALIGN_DEBUG", "0") in ("", "0"):
        hint = " (MODALIGN_DEBUG=1 shows the traceback)"
    else:
        import traceback

        hint = ""
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    text = " ".join(str(error).split())
    advice = f". {advice}" if advice else ""
    return _say(f"the run failed: {type(error).__name__}: {text}{advice}{hint}", 1)


def _reader_left() -> int:
    """Whoever read our output has gone (``| head``): no mistake, and nobody to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
