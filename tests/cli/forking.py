"""Runs many commands, each in a process forked from one that has imported them: importing is most of their time.

Reads a JSON list of lists of arguments, writes one of ``[exit status, stdout, stderr]``.
"""

import json
import os
import sys
import tempfile
import traceback

from service.cli import main


def run(arguments: list[str]) -> tuple[int, str, str]:
    """One command, with files instead of terminals."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), sys.stdout.fileno())
            os.dup2(err.fileno(), sys.stderr.fileno())
            os._exit(_status(arguments))
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode(errors="backslashreplace")


def _status(arguments: list[str]) -> int:
    sys.argv = ["winnow", *arguments]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is told as a process would tell it
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    json.dump([run(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
