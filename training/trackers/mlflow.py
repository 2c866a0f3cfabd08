"""Runs of MLflow."""

from training.trackers import TRACKERS, Tracked, Tracker, flat, needed

_LONGEST = 500
"""Characters of a parameter that every MLflow server takes."""


class _MlflowRun:
    def __init__(self, tracked: Tracked) -> None:
        mlflow = needed("mlflow", "mlflow")
        # The client, not the module's own functions: they keep one current run for the whole process.
        self._client = mlflow.MlflowClient()
        experiment = self._client.get_experiment_by_name("winnow")
        number = experiment.experiment_id if experiment else self._client.create_experiment("winnow")
        marker = tracked.folder / "mlflow-run"
        if tracked.start_step and marker.is_file():
            self._run = marker.read_text(encoding="utf-8")
            return
        self._run = self._client.create_run(number, run_name=tracked.name).info.run_id
        for name, value in flat(tracked.settings).items():
            self._client.log_param(self._run, name, str(value)[:_LONGEST])
        tracked.folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(self._run, encoding="utf-8")

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


@TRACKERS.register("mlflow")
def mlflow(tracked: Tracked) -> Tracker:
    """A run of the experiment ``winnow``, where MLFLOW_TRACKING_URI points; a resumed training goes on in it."""
    return _MlflowRun(tracked)
