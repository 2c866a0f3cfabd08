"""The ``winnow`` command: a verb, its object, its flags. Data to stdout, everything else to stderr."""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import ConfigError, ServiceError, nearest
from catalog.faults import arm_from_environment
from service.cli import (
    admin,
    bias,
    cleaning,
    dedup,
    difficulty,
    export,
    label_errors,
    label_exchange,
    label_lead,
    labels,
    mapping,
    models,
    operations,
    passages,
    pii,
    quality,
    recipes,
    reports,
    running,
    schedules,
    steering,
    teaching,
    webhooks,
    what_if,
)
from service.cli.output import complain, err, first_line

INTERRUPTED = 130

app = typer.Typer(
    name="winnow",
    help="Clean, label and train in one loop that remembers why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's signature
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"winnow {version('winnow')}\n")
        raise typer.Exit


@app.callback()
def _home(
    *,
    home: Annotated[str | None, typer.Option("--home", help="Home folder; default $WINNOW_HOME or ~/.winnow.")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,  # noqa: ARG001
) -> None:
    """Clean, label and train in one loop that remembers why."""
    # Absolute at once, whichever way it was given: URLs are made of it, and children read it from the environment.
    given = os.environ.get("WINNOW_HOME", "") if home is None else home
    os.environ["WINNOW_HOME"] = str(Path(given or "~/.winnow").expanduser().absolute())


JUDGING = (cleaning, what_if, bias, pii, recipes, export)
for module in (
    admin,
    running,
    operations,
    steering,
    schedules,
    webhooks,
    *JUDGING,
    dedup,
    passages,
    mapping,
    label_errors,
    difficulty,
    teaching,
    models,
    reports,
):
    module.add(app)
label_exchange.add(labels.app)
label_lead.add(labels.app)
app.add_typer(labels.app, name="label")
app.add_typer(quality.app, name="quality")


def main() -> None:
    """Run the command. Exit 0 done, 1 failed, 2 misused, 130 interrupted."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Third-party deprecations are for developers; the tests turn them into errors.
    warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter gets its escape instead of an error.
            stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        arm_from_environment()
        status = command.main(standalone_mode=False)
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except typer.TyperException as error:
        _complain_of_usage(error, command)
        raise SystemExit(getattr(error, "exit_code", 1)) from error
    except BrokenPipeError:
        _forget_output()
        raise SystemExit(0) from None
    except ServiceError as error:
        complain(str(error))
        raise SystemExit(error.exit_code) from error
    except (OSError, SQLAlchemyError, UnicodeError) as error:
        known = _refusal(error)
        complain(str(known))
        raise SystemExit(known.exit_code) from error
    if status == INTERRUPTED:
        # typer has made of Ctrl-C an exit without a word.
        _interrupted()
    raise SystemExit(status if isinstance(status, int) else 0)


def _forget_output() -> None:
    # What is still buffered would fail once more when Python exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refusal(error: Exception) -> ServiceError:
    """What the system or a driver refused on its own, as one of our errors."""
    if isinstance(error, UnicodeEncodeError):
        return ConfigError(f"{error.object[:100]!r} is not valid UTF-8; rename it")
    if isinstance(error, UnicodeError):
        return ConfigError(f"a file that was given is not UTF-8 ({error}); write it again in UTF-8")
    if isinstance(error, OSError):
        if error.filename is None:
            _forget_output()
        return ServiceError(f"{error.filename or 'output'}: {error.strerror or error}")
    return ServiceError(f"the database failed ({first_line(error)}); nothing of the last step was kept")


def _interrupted() -> NoReturn:
    # CPython remembers a KeyboardInterrupt that went through code of a string, as dataclasses are made of, and a
    # program started by -m then kills itself at its end, whatever its status. Another string's code makes it forget.
    exec("")  # noqa: S102
    complain("interrupted; everything finished so far is kept, and the same command goes on from there")
    raise SystemExit(INTERRUPTED)


def _complain_of_usage(error: typer.TyperException, command: Any) -> None:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if message.startswith("Usage:"):
        err.print(message)
        return
    complain(_usage(error, message, command))


def _usage(error: typer.TyperException, message: str, command: Any) -> str:
    context = getattr(error, "ctx", None)
    group = context.command if context is not None else command
    if message.startswith("No such command") and hasattr(group, "commands"):
        wrong = message.split("'")[1]
        return f"there is no command {wrong!r}; {nearest(wrong, group.commands)}"
    where = context.command_path if context is not None else "winnow"
    return f"{message.rstrip('.')}. See `{where} --help`"
