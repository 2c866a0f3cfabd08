"""One worker process: a Celery consumer, a sweeper thread, and a watch on the parent that started it."""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable

from celery.signals import setup_logging, task_postrun, task_prerun, worker_ready
from sqlalchemy import delete

from catalog import logs, tracing
from catalog.database import Catalog
from catalog.errors import ServiceError
from catalog.faults import arm_from_environment, fault
from catalog.migrate import check_revision
from catalog.settings import load_settings
from catalog.store import Store
from catalog.tables.engine import Worker
from workers import hearing, process_names, requests, schedules, sweeping, webhooks
from workers.app import make_app, relay, worker_arguments
from workers.stopping import STOPPING, watch_parent

# Not by its own name, which is __main__ in a worker.
log = logging.getLogger("workers.main")


class Sweeper(threading.Thread):
    """Repairs the engine's state every few seconds, in every worker; any number of them may run at once."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(name="sweeper", daemon=True)
        self.catalog = catalog
        self.app = make_app(catalog.settings)
        self.busy = threading.Event()
        self.ready = threading.Event()
        self.hearing = hearing.Hearing(self.app, catalog.settings.serves)
        worker_ready.connect(lambda **_: self.ready.set(), weak=False)
        task_prerun.connect(lambda **_: self.hearing.note(), weak=False)
        task_prerun.connect(lambda **_: self.busy.set(), weak=False)
        task_postrun.connect(lambda **_: self.busy.clear(), weak=False)

    def run(self) -> None:
        """Sweep until the process stops."""
        while True:
            try:
                self._show_life()
                fault("sweep.before")
                sweeping.sweep(self.catalog, idle=not self.busy.is_set())
                fault("sweep.after")
                relay(self.catalog, self.app)
                if self.ready.is_set() and self.hearing.is_lost(idle=not self.busy.is_set()):
                    self.hearing.start_anew()
            except ServiceError as error:
                log.warning("sweep failed, will try again: %s", error)
            except Exception:
                # Whatever it was: a worker without its sweeper looks dead to everybody.
                log.exception("sweep failed, will try again")
            if STOPPING.wait(self.catalog.settings.sweep_seconds):
                return

    def _show_life(self) -> None:
        with self.catalog.write() as session:
            now = self.catalog.now(session)
            worker = session.get(Worker, process_names.this_process())
            if worker is None:
                serves = ",".join(self.catalog.settings.serves)
                session.add(
                    Worker(
                        name=process_names.this_process(), pid=os.getpid(), needs=serves, started_at=now, seen_at=now
                    )
                )
            else:
                worker.seen_at = now


class Repeated(threading.Thread):
    """Does one thing again and again beside the work, apart from the sweeper: it may take long, or wait for others."""

    def __init__(self, name: str, catalog: Catalog, do: Callable[[Catalog], object]) -> None:
        super().__init__(name=name, daemon=True)
        self.catalog = catalog
        self.do = do

    def run(self) -> None:
        """Repeat until the process stops."""
        while not STOPPING.wait(self.catalog.settings.sweep_seconds):
            try:
                self.do(self.catalog)
            except ServiceError as error:
                log.warning("%s failed, will try again: %s", self.name, error)
            except Exception:
                # Whatever it was: nobody else would start what is due.
                log.exception("%s failed, will try again", self.name)


def start_what_is_due(catalog: Catalog) -> None:
    """Schedules, and jobs that waited for others."""
    schedules.tick(catalog)
    requests.settle_requests(catalog)


def limit_threads(num_workers: int) -> None:
    """Share the machine's cores among its workers; must run before polars or torch are imported."""
    threads = str(max(1, (os.cpu_count() or 1) // num_workers))
    for variable in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        os.environ.setdefault(variable, "false" if variable == "TOKENIZERS_PARALLELISM" else threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Entry point of ``python -m workers.main --name w1 [--parent PID]``."""
    parser = argparse.ArgumentParser(prog="winnow-worker")
    parser.add_argument("--name", default=f"w{os.getpid()}")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    options = parser.parse_args()
    settings = load_settings()
    limit_threads(settings.num_workers)
    logs.configure(settings, worker=options.name)
    # Or Celery would set up logging of its own on top.
    setup_logging.connect(lambda **_: None, weak=False)
    # Celery says by the way, in words of its own, that it stops; but a log file is one JSON object a line.
    vars(sys)["__stdout__"] = None
    # Celery prints advice about running as root and about its own deprecations on every start.
    warnings.filterwarnings("ignore", module=r"celery\..*")
    catalog = Catalog(settings)
    try:
        arm_from_environment()
        tracing.configure(settings, "winnow-worker")
        check_revision(catalog)
        Store.of(settings).check()
        sweeper = Sweeper(catalog)
    except ServiceError as error:
        sys.stderr.write(f"worker {options.name}: {error}\n")
        raise SystemExit(error.exit_code) from error
    # Until Celery installs its own handler, a request to stop must still end in the clean-up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if options.parent is not None:
            # Not between two sweeps: those may be rare, and long.
            threading.Thread(target=watch_parent, args=(options.parent,), daemon=True).start()
        sweeper.start()
        Repeated("schedules", catalog, start_what_is_due).start()
        Repeated("webhooks", catalog, webhooks.deliver).start()
        log.info("worker %s started", process_names.this_process())
        make_app(settings).worker_main(worker_arguments(options.name, settings.serves))
    finally:
        STOPPING.set()
        log.info("worker stops")
        tracing.shut_down()
        with catalog.write() as session:
            session.execute(delete(Worker).where(Worker.name == process_names.this_process()))


if __name__ == "__main__":
    main()
