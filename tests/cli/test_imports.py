"""What the command and a worker import before they do anything: everybody waits for it, each time."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_a_wrong_name_is_told_before_the_web_service_is_imported(tmp_path: Path) -> None:
    program = """
import sys
import typer
from catalog.errors import NotFoundError
from service.cli.app import app

command = typer.main.get_command(app)
command.main(["init", "--json"], standalone_mode=False)
for words in (["advise"], ["history"], ["agreement"], ["gold", "--list"], ["suggestions"], ["close"], ["schema"]):
    try:
        command.main(["label", words[0], "nothing", *words[1:]], standalone_mode=False)
    except NotFoundError as error:
        print(words[0], "fastapi" in sys.modules, file=sys.stderr)
"""
    environment = {**os.environ, "WINNOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    told = dict.fromkeys(("advise", "history", "agreement", "gold", "suggestions", "close", "schema"), "False")
    assert dict(line.split() for line in done.stderr.splitlines()) == told


def test_the_web_service_imports_no_model_before_it_answers() -> None:
    found = imported("import service.serve, service.app")
    assert found & MODELS == set()
    assert "fastapi" in found, "the check sees nothing"


def test_a_worker_imports_models_only_for_the_work_that_needs_them() -> None:
    found = imported("PIPELINES.load()")
    assert found & MODELS == set()
    assert "numba" in found, "the check sees nothing"
