"""A worker that also knows a job kind of the benchmarks: units that only wait. Started as ``workers.main`` is."""

import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session

from catalog.tables.engine import Run
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.main import main
from workers.pipelines import PIPELINES, Pipeline, Stage

KIND = "benchmark"


def _plan(_session: Session, run: Run) -> Iterable[dict[str, Any]]:
    return ({"seconds": run.config["seconds"]} for _ in range(run.config["num_units"]))


def _wait(unit: UnitContext) -> UnitResult:
    seconds = unit.claim.payload["seconds"]
    if seconds:
        time.sleep(seconds)
    return UnitResult(result={"seconds": seconds})


PIPELINES.register(KIND)(Pipeline(stages=(Stage(name="wait", plan=_plan, work=_wait),)))

if __name__ == "__main__":
    main()
