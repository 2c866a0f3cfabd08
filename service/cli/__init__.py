"""The ``winnow`` command."""

import sys


def main() -> None:
    """Entry point. Nothing is imported before: a Ctrl-C in the first second must not end in a traceback either."""
    try:
        from service.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("winnow: interrupted\n")
        raise SystemExit(130) from None
