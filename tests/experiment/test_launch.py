"""Training in two processes of this machine: what is written, how it stops, dies and is resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semidg.config import ExperimentConfig
from semidg.errors import ConfigError, RunError
from semidg.experiment import launch
from semidg.experiment.distributed import find_place
from semidg.experiment.run import Stopped, train
from tests_support import tiny_config

#: A rank that kills itself, or sees a NaN, in a step.
BROKEN = """
import os, signal, sys
from pathlib import Path
from semidg.experiment import module, rank
original = module.MethodModule.training_step
def broken(self, batch, index):
    if os.environ["RANK"] == RANK and self.step == 3:
        if HOW == "nan":
            batch.labelled[:] = float("nan")
        else:
            os.kill(os.getpid(), getattr(signal, HOW))
    return original(self, batch, index)
module.MethodModule.training_step = broken
os._exit(rank.main(Path(sys.argv[1])))
"""


def config(root: Path, devices: int = 2, **trainer: object) -> ExperimentConfig:
    """No dropout, and BatchNorm over all images: the same training for any number of devices."""
    base = tiny_config(root)
    network = base.network.model_copy(update={"dropout": 0.0})
    changed = base.trainer.model_copy(update={"devices": devices, "sync_batchnorm": True} | trainer)
    return base.model_copy(update={"network": network, "trainer": changed})


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def step_of(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["step"])


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Watch:
    """Sends this process a signal at a step, and keeps what it hears."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.heard = at, []
        self.heard: list[Any]

    def begin(self, step: int, total: int) -> None:
        self.heard.append((step, total))

    def row(self, row: dict[str, float]) -> None:
        self.heard.append(row)

    def step(self, step: int) -> None:
        self.heard.append(step)
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_two_processes_stop_resume_on_one_and_train_as_one_does(phantom: Path, tmp_path: Path) -> None:
    """The curve is that of one process to rounding; the seed's labels at ties may turn, hence the tolerance."""
    two, one = tmp_path / "two", tmp_path / "one"
    handler = signal.getsignal(signal.SIGINT)
    watch = Watch(at=2)
    with pytest.raises(Stopped) as stopped:
        train(config(phantom), two, listener=watch)
    assert stopped.value.signal == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is handler
    assert watch.heard[0] == (0, 6)
    assert 2 <= step_of(two) < 6
    with pytest.raises(RunError, match="another configuration"):
        train(config(phantom, eval_every=1), two, resume=True)
    train(config(phantom, devices=1), two, resume=True, score=None)
    train(config(phantom, devices=1), one, score=None)
    ours, theirs = rows(two), rows(one)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [str(k) for k in range(1, 7)]
    for a, b in zip(ours, theirs, strict=True):
        assert float(a["supervised"]) == pytest.approx(float(b["supervised"]), rel=1e-2)
    assert float(ours[0]["loss"]) == pytest.approx(float(theirs[0]["loss"]), rel=1e-3)


def test_a_whole_training_writes_what_one_process_writes(phantom: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reported: list[str] = []
    summary = train(config(phantom, max_steps=2, eval_every=2), run, report=lambda what, *_: reported.append(what))
    assert summary == json.loads((run / "summary.json").read_text())
    assert {"checkpoints", "model", "evaluation", "cases.csv"} <= {p.name for p in run.iterdir()}
    assert len(rows(run)) == 2
    assert any("scoring" in what for what in reported)


@pytest.mark.parametrize(("rank", "how"), [("0", "SIGKILL"), ("1", "nan")])
def test_a_rank_that_dies_ends_the_run_and_leaves_it_resumable(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, how: str
) -> None:
    program = f"RANK, HOW = {rank!r}, {how!r}\n{BROKEN}"
    monkeypatch.setattr(launch, "PROGRAM", (sys.executable, "-c", program))
    run = tmp_path / "run"
    expected = r"supervised.* in step 4, on the records .*case_" if how == "nan" else f"rank {rank} of 2 was ended by"
    with pytest.raises(Exception, match=expected) as error:
        train(config(phantom, checkpoint_every=1), run)
    assert "step 3" in str(error.value)
    assert step_of(run) == 3
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    if how == "SIGKILL":
        train(config(phantom, checkpoint_every=1), run, resume=True, score=None)
        assert len(rows(run)) == 6


def test_an_error_of_the_configuration_is_said_once_and_leaves_no_folder(phantom: Path, tmp_path: Path) -> None:
    wrong = config(phantom)
    wrong = wrong.model_copy(update={"network": wrong.network.model_copy(update={"encoder": "resnet_18"})})
    with pytest.raises(ConfigError, match="resnet_18") as error:
        train(wrong, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_starters_of_processes_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (tiny_config(trainer={"devices": n}).trainer for n in (1, 2))
    for name in (
        "LOCAL_RANK",
        "RANK",
        "WORLD_SIZE",
        "SLURM_NTASKS",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_JOB_NAME",
        "TORCHELASTIC_RUN_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    assert find_place(two) is None
    place = find_place(one)
    assert place is not None
    assert (place.rank, place.world) == (0, 1)
    with pytest.raises(ConfigError, match=r"trainer\.nodes 2.* srun or torchrun"):
        find_place(tiny_config(trainer={"nodes": 2}).trainer)
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_NTASKS", "2")
        assert find_place(two) is None  # a job of two tasks whose script has not called srun: nobody else would come
        patch.setenv("SLURM_STEP_NUM_TASKS", "2")
        with pytest.raises(ConfigError, match=r"SLURM: .*ntasks-per-node"):
            find_place(two)
        for name, value in {
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_PROCID": "1",
            "SLURM_LOCALID": "1",
        }.items():
            patch.setenv(name, value)
        place = find_place(two)
        assert place is not None
        assert (place.rank, place.local, place.world) == (1, 1, 2)
        with pytest.raises(ConfigError, match="srun has started 2 processes"):
            find_place(
                tiny_config(trainer={"devices": 2, "nodes": 2, "batch_labelled": 4, "batch_unlabelled": 4}).trainer
            )
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    place = find_place(two)
    assert place is not None
    assert (place.rank, place.local, place.world) == (1, 1, 2)
    with pytest.raises(ConfigError, match=r"torchrun has started 2 processes, but trainer\.devices 1"):
        find_place(one)
