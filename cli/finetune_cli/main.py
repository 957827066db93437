"""Entry point of `finetune`; one file per command lies beside this one.

Nothing of the extra `cli` is imported before `app` runs: the script is part of every installation, also of one without
the extra, and must then say which command installs it instead of showing a traceback.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from finetune_cli import exit_codes

if TYPE_CHECKING:
    import typer

_EXTRA = ("typer", "rich")


def build_app() -> typer.Typer:
    """Build the command line with all its commands.

    Raises:
        ModuleNotFoundError: the extra `cli` is not installed.
    """
    import typer  # noqa: PLC0415 - see the module's docstring

    from finetune_cli.commands import checkpoint, schema, try_locally, validate  # noqa: PLC0415

    application = typer.Typer(
        name="finetune",
        help="Check FineTuneJobs, try them on this machine, print their schema: offline. Save a running one's state.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    application.command("validate")(validate.validate)
    application.command("schema")(schema.schema)
    application.command("try")(try_locally.try_locally)
    application.command("checkpoint")(checkpoint.checkpoint)
    return application


def app() -> None:
    """Run the command line; the console script calls this."""
    try:
        application = build_app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"finetune (without {missing}) must have the extra cli installed; "
            "run: pip install 'finetune-operator[cli]'\n"
        )
        raise SystemExit(exit_codes.UNCHECKED) from error
    application()
