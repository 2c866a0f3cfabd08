"""The ``winnow`` command: a verb, its object, its flags. Data to stdout, everything else to stderr."""

import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from catalog.errors import ServiceError, nearest
from service.cli import admin, cleaning, labels, reports, running, teaching
from service.cli.output import complain

app = typer.Typer(
    name="winnow",
    help="Clean, label and train in one loop that remembers why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _home(
    home: Annotated[str | None, typer.Option("--home", help="Home folder; default $WINNOW_HOME or ~/.winnow.")] = None,
) -> None:
    """Clean, label and train in one loop that remembers why."""
    if home is not None:
        os.environ["WINNOW_HOME"] = home


for module in (admin, running, cleaning, teaching, reports):
    module.add(app)
app.add_typer(labels.app, name="label")


def main() -> None:
    """Run the command. Exit 0 done, 1 failed, 2 misused, 130 interrupted."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Third-party deprecations are for developers; the tests turn them into errors.
    warnings.simplefilter("ignore")
    command = typer.main.get_command(app)
    try:
        status = command.main(standalone_mode=False)
    except typer.Abort:
        _interrupted()
    except KeyboardInterrupt:
        _interrupted()
    except typer.TyperException as error:
        complain(_usage(error, command))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except ServiceError as error:
        complain(str(error))
        raise SystemExit(error.exit_code) from error
    raise SystemExit(status if isinstance(status, int) else 0)


def _interrupted() -> NoReturn:
    complain("interrupted; everything finished so far is kept, and the same command goes on from there")
    raise SystemExit(130)


def _usage(error: typer.TyperException, command: Any) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    group = context.command if context is not None else command
    if message.startswith("No such command") and hasattr(group, "commands"):
        wrong = message.split("'")[1]
        return f"there is no command {wrong!r}; {nearest(wrong, group.commands)}"
    where = context.command_path if context is not None else "winnow"
    return f"{message.rstrip('.')}. See `{where} --help`"
