"""Hands the rows of metrics.csv to TensorBoard, MLflow and Weights & Biases, through Lightning's loggers.

Everything stays in the run folder and off the network, unless the user's own environment variables say otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from semidg.config import ExperimentConfig
from semidg.errors import ConfigError, RunError
from semidg.files import write_text

#: MLflow's experiment and the project of Weights & Biases, where the environment names none.
PROJECT = "semidg"

#: Set before the first import of a logger, each unless the user has set it.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # a server that is gone holds up the training for seconds, not for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "WANDB_ERROR_REPORTING": "false",
}


def check_loggers(names: Sequence[str]) -> None:
    """Raise ConfigError, with what to install, if a package of a logger of ``trainer.loggers`` is missing."""
    database = () if os.environ.get("MLFLOW_TRACKING_URI") else ("sqlalchemy", "alembic")
    needs = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", *database), "wandb": ("wandb",)}
    for name in names:
        missing = [module for module in needs[name] if not _installed(module)]
        if missing:
            raise ConfigError(
                f"trainer.loggers: {name} needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}: "
                f"pip install 'semidg[{name}]', or leave it out of trainer.loggers"
            )


class Trackers:
    """The loggers of a run. One that fails is named on standard error, once, and left out from then on: the training
    and metrics.csv do not depend on it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.active: dict[str, Logger] = {}

    def open(self, name: str, make: Callable[[], Logger]) -> None:
        """Add a logger."""
        with self._guard(name):
            self.active[name] = make()

    def row(self, row: Mapping[str, float]) -> None:
        """A row of metrics.csv: each column but ``step`` is a value at that step, under the column's name."""
        self._log({name: value for name, value in row.items() if name != "step"}, int(row["step"]))

    def result(self, summary: Mapping[str, Any]) -> None:
        """The means of summary.json over the test images, as test_METRIC at the step of the chosen checkpoint."""
        overall = summary["result"]["overall"]
        means = {name: block.get("mean") for name, block in overall.items() if isinstance(block, dict)}
        step = summary["checkpoints"][summary["checkpoint"]]["step"]
        self._log({f"test_{name}": mean for name, mean in means.items() if isinstance(mean, float | int)}, step)

    def close(self, status: str) -> None:
        """Finish all. status: success, failed, or KILLED (MLflow's word for a run that was stopped)."""
        for name, logger in list(self.active.items()):
            with self._guard(name):
                logger.finalize(status)
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish(exit_code=int(status != "success"))
        self.active.clear()

    def _log(self, values: dict[str, float], step: int) -> None:
        for name, logger in list(self.active.items()):
            with self._guard(name):
                logger.log_metrics(values, step)

    @contextlib.contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a logger, its server or its disk can raise
            self.active.pop(name, None)
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            print(
                f"semidg: warning: the logger {name} failed and is left out from here on ({reason}); "
                f"{self.run / 'metrics.csv'} has every row",
                file=sys.stderr,
            )


@contextlib.contextmanager
def open_trackers(
    config: ExperimentConfig, run: Path, done: int, stops: tuple[type[BaseException], ...] = ()
) -> Iterator[Trackers]:
    """The loggers of ``trainer.loggers``, given the configuration as hyper-parameters; finished at the end.

    done: steps of the checkpoint that is resumed; its TensorBoard folder, MLflow run and Weights & Biases id go on.
    stops: exceptions that mean a stop by the user, not a failure. Raises RunError where loggers.json is damaged.
    """
    trackers = Trackers(run)
    names = dict.fromkeys(config.trainer.loggers) if getattr(rank_zero_only, "rank", 0) == 0 else ()
    ids = _read_ids(run) if names else {}
    before = dict(ids)
    if names:
        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)
    parameters = flat(config.model_dump(mode="json"))
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: _tensorboard(run, done, parameters),
        "mlflow": lambda: _mlflow(run, ids, parameters),
        "wandb": lambda: _wandb(run, ids, parameters),
    }
    status = "success"
    try:
        for name in names:
            trackers.open(name, makers[name])
        if ids != before:
            write_text(run / "loggers.json", json.dumps(ids, indent=1) + "\n")
        yield trackers
    except BaseException as error:
        status = "KILLED" if isinstance(error, (*stops, KeyboardInterrupt, SystemExit)) else "failed"
        raise
    finally:
        trackers.close(status)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Dotted key -> value of a nested mapping; what is neither number nor text becomes JSON, as loggers want it."""
    result: dict[str, bool | int | float | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return result


def _tensorboard(run: Path, done: int, parameters: dict[str, Any]) -> Logger:
    """RUN/tensorboard. Points after step ``done`` that an earlier part of the run has left are hidden by purge_step."""
    from torch.utils.tensorboard.summary import hparams

    logger = TensorBoardLogger(
        run, name="", version="tensorboard", default_hp_metric=False, purge_step=done + 1, flush_secs=10
    )
    logger.log_hyperparams(parameters)
    logger.save()
    # Lightning fills the tab HParams only together with a value; these are the names of values that are still to come
    for summary in hparams(parameters, {"validation_dice": 0, "test_dice": 0}):  # type: ignore[no-untyped-call]
        logger.experiment.file_writer.add_summary(summary)
    return logger


def _mlflow(run: Path, ids: dict[str, str], parameters: dict[str, Any]) -> Logger:
    """MLFLOW_TRACKING_URI, else the database RUN/mlruns/mlflow.db: MLflow's store of plain files is shut since 3.13."""
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    folder = run.resolve() / "mlruns"
    if not uri:
        if set("%?#") & set(str(folder)):
            raise ValueError("its database cannot lie in a folder with %, ? or # in its path; set MLFLOW_TRACKING_URI")
        folder.mkdir(exist_ok=True)  # at once; MLflow would try for minutes where it may not write

    def connect(run_id: str | None) -> MLFlowLogger:
        logger = MLFlowLogger(
            experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
            run_name=run.name,
            tracking_uri=uri or f"sqlite:///{folder.as_posix()}/mlflow.db",
            artifact_location=None if uri else (folder / "artifacts").as_uri(),
            run_id=run_id,
        )
        _ = logger.experiment  # makes the run, or finds it
        return logger

    known = ids.get("mlflow")
    try:
        try:
            logger = connect(known)
        except MlflowException as error:
            if known is None or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known, logger = None, connect(None)  # another server than before, or the run was deleted
    finally:
        mlflow.set_tracking_uri(uri)  # it is also an environment variable, and would pass for the user's in a next run
    assert logger.run_id is not None
    if known:
        logger.experiment.update_run(known, status="RUNNING")
    ids["mlflow"] = logger.run_id
    if not known:  # a run that goes on has them; MLflow refuses another value, as of the number of devices
        logger.log_hyperparams(parameters)
    return logger


def _wandb(run: Path, ids: dict[str, str], parameters: dict[str, Any]) -> Logger:
    """RUN/wandb, offline unless WANDB_MODE says otherwise."""
    import wandb

    mode = os.environ.get("WANDB_MODE", "offline")
    experiment = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=os.environ.get("WANDB_NAME", run.name),
        dir=os.environ.get("WANDB_DIR", run),
        id=ids.get("wandb"),
        resume=None if mode == "offline" else "allow",  # offline parts of one id are joined by wandb sync
        mode=mode,
        reinit="create_new",  # a run that the caller has open stays the caller's
        # console: the terminal has our progress bars, and belongs to nobody else
        settings=wandb.Settings(console="off", silent=mode == "offline"),
    )
    experiment.define_metric("trainer/global_step")  # the name under which Lightning gives the step
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    ids["wandb"] = experiment.id
    logger = WandbLogger(experiment=experiment)
    logger.log_hyperparams(parameters)
    return logger


def _read_ids(run: Path) -> dict[str, str]:
    """loggers.json: logger -> id of the run there; empty if there is none."""
    path = run / "loggers.json"
    if not path.is_file():
        return {}
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path}: damaged; remove it, and the loggers begin a new run") from error


def _installed(module: str) -> bool:
    """Whether a module can be imported; a folder of that name, such as a logger leaves behind, is none."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
