"""What the command imports before it does anything: everybody waits for it, each time."""

import subprocess
import sys

HEAVY = {"numba", "scipy", "sklearn", "torch", "transformers", "sentence_transformers"}
PROGRAM = """
import sys
from service.cli import app
from curation.rules import RULES
from workers.pipelines import PIPELINES

RULES.load()
{load}
print(*sys.modules)
"""


def imported(load: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(load=load)], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_command_and_its_rules_import_no_compiler_and_no_model() -> None:
    assert imported("") & HEAVY == set()


def test_the_check_sees_what_is_imported() -> None:
    assert "numba" in imported("import curation.dedup.kernels")
