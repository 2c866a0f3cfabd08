"""What the command and a worker import before they do anything: everybody waits for it, each time."""

import subprocess
import sys

MODELS = {"sklearn", "torch", "transformers", "sentence_transformers"}
PROGRAM = """
import sys
from service.cli import app
from curation.rules import RULES
from workers import main
from workers.pipelines import PIPELINES

RULES.load()
{load}
print(*sys.modules)
"""


def imported(load: str = "") -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(load=load)], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_command_and_its_rules_import_no_compiler_and_no_model() -> None:
    assert imported() & (MODELS | {"numba", "scipy"}) == set()


def test_the_web_service_imports_no_model_before_it_answers() -> None:
    found = imported("import service.serve, service.app")
    assert found & MODELS == set()
    assert "fastapi" in found, "the check sees nothing"


def test_a_worker_imports_models_only_for_the_work_that_needs_them() -> None:
    found = imported("PIPELINES.load()")
    assert found & MODELS == set()
    assert "numba" in found, "the check sees nothing"
