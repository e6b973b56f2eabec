"""Loggers beside metrics.csv: what they hold, how they stop and go on, and that none of them can stop a training."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semidg.cli import main
from semidg.config import ExperimentConfig
from semidg.config_file import known_keys
from semidg.errors import ConfigError, RunError, SemidgError
from semidg.experiment import loggers
from semidg.experiment.loggers import Trackers, flat, open_trackers
from semidg.experiment.run import Stopped, train
from tests_support import tiny_config


def with_loggers(config: ExperimentConfig, *names: str) -> ExperimentConfig:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"loggers": names})})


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Any:
    """No variable of whoever runs the tests, and none left behind."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


class Interrupts:
    """Asks for a stop at a step, or fails after a row, whose values the loggers have by then."""

    def __init__(self, stop_at: int = 0, fail_at: int = 0) -> None:
        self.stop_at, self.fail_at = stop_at, fail_at

    def begin(self, step: int, total: int) -> None: ...

    def step(self, step: int) -> None:
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def row(self, row: dict[str, float]) -> None:
        if row["step"] == self.fail_at:
            raise SemidgError("the listener failed")


@dataclass
class Tracked:
    """A run that was stopped by a signal at step 3, failed behind the checkpoint of step 4, and was finished."""

    run: Path
    config: ExperimentConfig
    summary: dict[str, Any] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    left_in_folder: list[str] = field(default_factory=list)

    def note_status(self) -> None:
        self.statuses.append(self.client.get_run(self.mlflow_id).info.status)

    @property
    def columns(self) -> dict[str, dict[int, float]]:
        """Column of metrics.csv -> step -> value."""
        with (self.run / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        names = [name for name in rows[0] if name != "step"]
        return {name: {int(r["step"]): float(r[name]) for r in rows if r[name]} for name in names}

    @property
    def test_means(self) -> dict[str, float]:
        blocks = self.summary["result"]["overall"].items()
        return {f"test_{n}": b["mean"] for n, b in blocks if isinstance(b, dict) and b.get("mean") is not None}

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.run}/mlruns/mlflow.db")

    @property
    def mlflow_id(self) -> str:
        return str(json.loads((self.run / "loggers.json").read_text())["mlflow"])


@pytest.fixture(scope="module")
def tracked(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    folder = tmp_path_factory.mktemp("trackers")
    config = with_loggers(tiny_config(phantom), "tensorboard", "mlflow")
    here = folder / "working directory"
    here.mkdir()
    tracked = Tracked(folder / "a run", config)
    with contextlib.chdir(here):
        with pytest.raises(Stopped):
            train(config, tracked.run, listener=Interrupts(stop_at=3))
        tracked.note_status()
        with pytest.raises(SemidgError, match="listener failed"):
            train(config, tracked.run, resume=True, listener=Interrupts(fail_at=5))
        tracked.note_status()
        tracked.summary = train(config, tracked.run, resume=True)
        tracked.note_status()
    tracked.left_in_folder = [p.name for p in here.iterdir()]
    return tracked


def test_tensorboard_holds_the_columns_of_metrics_csv_once_and_the_configuration(tracked: Tracked) -> None:
    events = EventAccumulator(str(tracked.run / "tensorboard")).Reload()
    columns, means = tracked.columns, tracked.test_means
    assert {"loss", "lr", "supervised", "validation_dice"} <= set(columns)
    assert set(events.Tags()["scalars"]) == set(columns) | set(means)
    for name, points in columns.items():
        logged = [(e.step, e.value) for e in events.Scalars(name)]
        assert [step for step, _ in logged] == list(points), (
            name
        )  # the row made again behind the checkpoint stands once
        assert [value for _, value in logged] == pytest.approx(list(points.values()), rel=2e-5, abs=1e-6), name
    chosen = tracked.summary["checkpoints"][tracked.summary["checkpoint"]]["step"]
    for name, mean in means.items():
        (event,) = events.Scalars(name)
        assert (event.step, event.value) == (chosen, pytest.approx(mean, rel=1e-5, abs=1e-6))
    assert "_hparams_/session_start_info" in events.summary_metadata
    stored = yaml.safe_load((tracked.run / "tensorboard" / "hparams.yaml").read_text())
    assert stored == flat(tracked.config.model_dump(mode="json"))


def test_mlflow_holds_the_columns_of_metrics_csv_in_one_run(tracked: Tracked) -> None:
    assert tracked.statuses == ["KILLED", "FAILED", "FINISHED"]
    client, columns = tracked.client, tracked.columns
    experiment = client.get_experiment_by_name("semidg")
    assert [r.info.run_id for r in client.search_runs([experiment.experiment_id])] == [tracked.mlflow_id]
    run = client.get_run(tracked.mlflow_id)
    assert run.info.run_name == "a run"
    assert experiment.artifact_location == (tracked.run / "mlruns" / "artifacts").as_uri()
    assert set(run.data.metrics) == set(columns) | set(tracked.test_means)
    for name, points in columns.items():
        history = sorted(client.get_metric_history(tracked.mlflow_id, name), key=lambda m: m.timestamp)
        assert {m.step: m.value for m in history} == pytest.approx(points, rel=2e-5, abs=1e-6), name
    assert sorted(m.step for m in client.get_metric_history(tracked.mlflow_id, "loss")) == [1, 2, 3, 4, 5, 5, 6]
    for name, mean in tracked.test_means.items():
        assert run.data.metrics[name] == pytest.approx(mean), name
    parameters = flat(tracked.config.model_dump(mode="json"))
    assert run.data.params == {name: str(value)[:250] for name, value in parameters.items()}


def test_nothing_leaves_the_run_folder_or_asks_to(tracked: Tracked) -> None:
    assert tracked.left_in_folder == []
    assert "MLFLOW_TRACKING_URI" not in os.environ  # Lightning sets it; the next run would take it for the user's
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_said_before_anything_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=rf"pip install 'semidg\[{name}\]'") as error:
        train(with_loggers(tiny_config(tmp_path / "no data"), name), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_local_mlflow_needs_a_database_a_server_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda module: find_spec("json") if module == "mlflow" else None)
    with pytest.raises(ConfigError, match="sqlalchemy, alembic"):
        loggers.check_loggers(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    loggers.check_loggers(["mlflow"])


def test_a_folder_that_a_logger_left_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leftover").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_spec("leftover") is not None
    assert [loggers._installed(name) for name in ("leftover", "no_such_module", "json")] == [False, False, True]


class Memory:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.status = ""

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.seen.append((step, values))

    def finalize(self, status: str) -> None:
        self.status = status


ROWS = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0}]


def test_a_logger_that_fails_midway_is_named_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Any, metrics: Any, step: int | None = None) -> None:
        raise OSError(28, "No space left on device")

    with open_trackers(with_loggers(tiny_config(), "tensorboard"), tmp_path, 0) as trackers:
        memory = Memory()
        trackers.open("memory", lambda: memory)  # type: ignore[arg-type, return-value]
        trackers.row(ROWS[0])
        monkeypatch.setattr(loggers.TensorBoardLogger, "log_metrics", full)
        for row in ROWS[1:]:
            trackers.row(row)
    (line,) = capsys.readouterr().err.splitlines()
    assert "tensorboard failed" in line
    assert "No space left" in line
    assert str(tmp_path / "metrics.csv") in line
    assert memory.seen == [(1, {"loss": 3.0}), (2, {"loss": 2.0}), (3, {"loss": 1.0})]
    assert memory.status == "success"


def test_a_server_that_does_not_answer_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with open_trackers(with_loggers(tiny_config(), "mlflow", "tensorboard"), tmp_path, 0) as trackers:
        assert set(trackers.active) == {"tensorboard"}
        trackers.row(ROWS[0])
    assert capfd.readouterr().err.count("mlflow failed") == 1
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "loggers.json").exists()


def test_an_mlflow_store_of_the_user_is_used_and_an_unknown_run_begun_anew(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked.run}/mlruns/mlflow.db")  # saves making another one
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    (tmp_path / "loggers.json").write_text(json.dumps({"mlflow": "0" * 32, "wandb": "kept"}))
    with open_trackers(with_loggers(tiny_config(), "mlflow"), tmp_path, 2) as trackers:
        trackers.row(ROWS[2])
    ids = json.loads((tmp_path / "loggers.json").read_text())
    assert ids["wandb"] == "kept"
    assert ids["mlflow"] not in ("0" * 32, tracked.mlflow_id)
    run = tracked.client.get_run(ids["mlflow"])
    assert run.data.metrics == {"loss": 1.0}
    assert tracked.client.get_experiment(run.info.experiment_id).name == "mine"
    assert not (tmp_path / "mlruns").exists()


def test_a_path_that_no_database_uri_can_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "50%20").mkdir()
    with open_trackers(with_loggers(tiny_config(), "mlflow"), tmp_path / "50%20", 0) as trackers:
        assert not trackers.active
    assert "set MLFLOW_TRACKING_URI" in capsys.readouterr().err


def test_damaged_ids_are_named(tmp_path: Path) -> None:
    (tmp_path / "loggers.json").write_text('{"mlflow": "abc')
    with pytest.raises(RunError, match=r"loggers\.json: damaged; remove it"):
        open_trackers(with_loggers(tiny_config(), "mlflow"), tmp_path, 0).__enter__()


def test_a_result_without_a_mean_is_not_logged(tmp_path: Path) -> None:
    trackers, memory = Trackers(tmp_path), Memory()
    trackers.open("memory", lambda: memory)  # type: ignore[arg-type, return-value]
    overall = {"n": 6, "dice": {"mean": 0.5}, "hd95": {"mean": None}, "lesions": {"true": 6}}
    trackers.result(
        {
            "result": {"overall": overall},
            "checkpoint": "best",
            "checkpoints": {"best": {"step": 3}, "last": {"step": 6}},
        }
    )
    assert memory.seen == [(3, {"test_dice": 0.5})]


def test_flat_has_the_documented_keys_and_plain_values() -> None:
    config = tiny_config()
    values = flat(config.model_dump(mode="json"))
    assert set(values) <= set(known_keys())
    rest = set(known_keys()) - set(values)
    assert "method.networks" in rest
    assert all(key.startswith("method.") for key in rest)  # of other methods
    assert values["network.atrous_rates"] == "[1, 2, 3]"
    assert values["data.root"] == "null"
    assert values["trainer.max_steps"] == 6


def test_the_command_line_takes_several_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "phantom", "--trainer.loggers", "tensorboard", "mlflow", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["loggers"] == ["tensorboard", "mlflow"]


def test_help_imports_no_logger() -> None:
    code = (
        "import sys\n"
        "from semidg.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join(sorted({'tensorboard', 'mlflow', 'wandb', 'lightning'} & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--trainer.loggers" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not loggers._installed("wandb"), reason="wandb is not installed: pip install 'semidg[wandb]'")
def test_wandb_writes_offline_into_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    for folder in (run := tmp_path / "run", elsewhere := tmp_path / "elsewhere"):
        folder.mkdir()
    config = with_loggers(tiny_config(), "wandb")
    with open_trackers(config, run, 0) as trackers:
        trackers.row(ROWS[0])
        trackers.row(ROWS[1])
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    with open_trackers(config, run, 1) as trackers:
        trackers.row(ROWS[1])
        trackers.row(ROWS[2])
    identity = json.loads((run / "loggers.json").read_text())["wandb"]
    (first,) = run.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb")
    (second,) = elsewhere.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb")
    assert wandb_history(first) == [(1, 3.0), (2, 2.0)]
    assert wandb_history(second) == [(2, 2.0), (3, 1.0)]


def wandb_history(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of the rows in a file of Weights & Biases: a LevelDB log, here of less than one block of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    points, place = [], 7
    while place < len(data):
        _, length, kind = struct.unpack_from("<IHB", data, place)
        assert kind == 1  # a record in one piece
        record = Record.FromString(data[place + 7 : place + 7 + length])
        place += 7 + length
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            points.append((items["trainer/global_step"], items["loss"]))
    return points


def test_a_run_goes_on_in_mlflow_with_another_number_of_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_loggers(tiny_config(tmp_path), "mlflow")
    run = tmp_path / "run"
    run.mkdir()
    two = config.model_copy(update={"trainer": config.trainer.model_copy(update={"devices": 2})})
    for asked in (two, config):
        with open_trackers(asked, run, 0) as trackers:
            trackers.row({"step": 1, "loss": 1.0})
            assert [*trackers.active] == ["mlflow"]
    assert "left out" not in capsys.readouterr().err
