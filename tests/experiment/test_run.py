"""Training into a run folder: resumed runs, stops, failures, evaluation."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from killed import exit_code, train_until
from semidg.config_file import dump_config, parse_config
from semidg.errors import ConfigError, NonFiniteLossError, RunError, SplitError
from semidg.evaluation.metrics import LESION_COUNTS, METRICS, MM_METRICS
from semidg.experiment import executors
from semidg.experiment import run as run_module
from semidg.experiment.bundle import load_bundle
from semidg.experiment.evaluate import evaluate_elsewhere
from semidg.experiment.run import Stopped, open_config, train
from semidg.files import locked
from semidg.methods import make_method
from tests_support import tiny_config


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"{name}.safetensors")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def finished(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run and its summary."""
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return run, train(tiny_config(phantom), run)


def test_run_folder_is_complete_and_readable_without_the_package(finished: tuple[Path, dict[str, Any]]) -> None:
    run, summary = finished
    expected = [
        "config.yaml", "environment.json", "index.csv", "metrics.csv", "cases.csv", "summary.json", "run.json",
        "split/split.json", "split/labelled.txt", "checkpoints/last.pt", "model/model.safetensors",
    ]  # fmt: skip
    assert all((run / name).is_file() for name in expected)
    assert not list(run.rglob("*.part"))
    assert json.loads((run / "summary.json").read_text()) == json.loads(json.dumps(summary))
    cases = pd.read_csv(run / "cases.csv", keep_default_na=False)
    assert list(cases.columns) == [
        "id", "domain", "class", "group", "area", *METRICS, "area_bias", *LESION_COUNTS, *MM_METRICS, "expected_dice",
    ]  # fmt: skip
    assert set(cases["domain"]) == {"delta"}
    assert len(cases) == 6  # every test image, none dropped
    assert cases["dice"].between(0, 1).all()
    assert summary["result"]["overall"]["dice"]["mean"] == pytest.approx(cases["dice"].mean(), abs=1e-5)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"]
    assert [row["step"] for row in rows(run)] == ["1", "2", "3", "4", "5", "6"]
    assert [bool(row["validation_dice"]) for row in rows(run)] == [False, False, True, False, False, True]


def test_each_checkpoint_and_each_network_is_scored(finished: tuple[Path, dict[str, Any]]) -> None:
    run, summary = finished
    for name in ("best", "last"):
        assert {"mean", "network_0", "network_1"} <= set(summary["checkpoints"][name])
        for predictor in ("mean", "network_0", "network_1"):
            assert len(pd.read_csv(run / "evaluation" / f"{name}-{predictor}.csv")) == 6
    validation = [(float(r["validation_dice"]), int(r["step"])) for r in rows(run) if r["validation_dice"]]
    best = max(validation, key=lambda pair: (pair[0], -pair[1]))
    assert summary["checkpoints"]["best"]["step"] == best[1]
    assert summary["checkpoints"]["last"]["step"] == 6


def test_networks_and_teachers_learn(finished: tuple[Path, dict[str, Any]], phantom: Path) -> None:
    """Every weight has moved, those of a teacher less than those of its network."""
    run, _ = finished
    fresh = make_method(tiny_config(phantom))
    trained = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["method"]
    way = {name: float((trained[name] - before.detach()).norm()) for name, before in fresh.named_parameters()}
    of_teachers = {name: length for name, length in way.items() if name.startswith("teachers.")}
    assert len(of_teachers) == len(way) / 2
    assert all(way.values())
    for name, length in of_teachers.items():
        assert length < way[name.replace("teachers.", "networks.")], name
    assert weights(run, "best").keys() == weights(run).keys()


@pytest.mark.parametrize("moment", ["step1", "step3", "saving", "validated", "trained"])
def test_a_killed_run_resumes_bit_for_bit(
    finished: tuple[Path, dict[str, Any]], phantom: Path, tmp_path: Path, moment: str
) -> None:
    """SIGKILL before the first checkpoint, between two, while one is written, between best and last, and at the end."""
    run = tmp_path / "run"
    assert exit_code(train_until, moment, tiny_config(phantom), run) == -signal.SIGKILL
    threads = torch.get_num_threads()
    try:
        train(tiny_config(phantom), run, resume=True)
    finally:
        torch.set_num_threads(threads)
    whole, _ = finished
    for name in ("best", "last"):
        ours, theirs = weights(run, name), weights(whole, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours), name
    assert rows(run) == rows(whole)
    pd.testing.assert_frame_equal(pd.read_csv(run / "cases.csv"), pd.read_csv(whole / "cases.csv"))
    assert not list((run / "checkpoints").glob("[!.]*.part"))


class StopAt:
    """Sends this process a signal at a step."""

    def __init__(self, step: int, number: int) -> None:
        self.at, self.number = step, number

    def begin(self, step: int, total: int) -> None: ...

    def row(self, row: dict[str, float]) -> None: ...

    def step(self, step: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_leave_a_resumable_run(
    finished: tuple[Path, dict[str, Any]], phantom: Path, tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"--resume --out") as stopped:
        train(tiny_config(phantom), run, listener=StopAt(3, number))
    assert stopped.value.signal == number
    assert signal.getsignal(number) is handler
    assert torch.load(run / "checkpoints" / "last.pt", weights_only=True)["step"] in (3, 4)
    train(tiny_config(phantom), run, resume=True)
    ours, theirs = weights(run), weights(finished[0])
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_finished_run_is_not_trained_again(finished: tuple[Path, dict[str, Any]], phantom: Path) -> None:
    run, summary = finished
    before = (run / "checkpoints" / "last.pt").stat().st_mtime_ns
    again = train(tiny_config(phantom), run, resume=True)
    assert (run / "checkpoints" / "last.pt").stat().st_mtime_ns == before
    assert again["result"] == summary["result"]


def test_nan_names_the_term_the_step_and_the_records(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semidg.methods.dual_level import DualLevel

    original = DualLevel.losses

    def broken(self: Any, batch: Any, progress: Any) -> Any:
        terms = original(self, batch, progress)
        return terms | {"view": terms["view"] * float("nan")} if progress.step == 3 else terms

    monkeypatch.setattr(DualLevel, "losses", broken)
    run = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match=r"view.*step 4.*case_.*checkpoint is of step 2"):
        train(tiny_config(phantom), run)
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert state["step"] == 2
    assert all(torch.isfinite(v).all() for v in state["method"].values() if v.is_floating_point())


class _Poison(torch.autograd.Function):
    """A finite loss with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * float("inf")


@pytest.mark.parametrize(("poisoned", "gradient"), [(3, False), (3, True), (2, True), (6, True)])
def test_no_network_with_nan_is_kept(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: int, gradient: bool
) -> None:
    """A loss or a gradient that is not finite in the step of a validation, of a checkpoint, and in the last one."""
    from semidg.methods.supervised import Supervised

    original = Supervised.losses

    def broken(self: Any, batch: Any, progress: Any) -> Any:
        terms = original(self, batch, progress)
        if progress.step != poisoned - 1:
            return terms
        spoil: Any = _Poison.apply if gradient else (lambda term: term * float("nan"))
        return {name: spoil(term) for name, term in terms.items()}

    monkeypatch.setattr(Supervised, "losses", broken)
    config = tiny_config(phantom, method={"name": "supervised", "networks": 1})
    with pytest.raises(NonFiniteLossError, match="lower --optimiser"):
        train(config, tmp_path / "run")
    kept = [load_file(path) for path in (tmp_path / "run").rglob("*.safetensors")]
    with contextlib.suppress(FileNotFoundError):
        kept.append(torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["method"])
    assert len(kept) == {2: 0, 3: 1, 6: 2}[poisoned]  # the best of step 3, the checkpoint of step 2 or 4
    assert all(torch.isfinite(v).all() for state in kept for v in state.values() if v.is_floating_point())


def test_folders_that_must_not_be_overwritten_are_refused(
    finished: tuple[Path, dict[str, Any]], phantom: Path, tmp_path: Path
) -> None:
    run, _ = finished
    with pytest.raises(RunError, match="already holds a run"):
        train(tiny_config(phantom), run)
    with pytest.raises(RunError, match=r"another configuration \(it differs in seed\)"):
        train(tiny_config(phantom, seed=9), run, resume=True)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text("seed: 1  # mine\n")
    with pytest.raises(RunError, match="not empty"):
        train(tiny_config(phantom), begun)
    (begun / "config.yaml").write_text(dump_config(tiny_config(phantom)))  # killed before it was a run
    (begun / ".run.json.0123456789abcdef.part").write_text("half")
    (begun / "notes.part").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(tiny_config(phantom), begun)
    (begun / "notes.part").unlink()
    train(tiny_config(phantom), begun)
    assert not [*begun.rglob("*.part")]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(tiny_config(phantom), tmp_path)
    with pytest.raises(RunError, match="not a run folder"):
        open_config(tmp_path)
    marker = tmp_path / "old" / "run.json"
    marker.parent.mkdir()
    marker.write_text(json.dumps({"format": 99}))
    with pytest.raises(RunError, match="format 99"):
        open_config(marker.parent)


def test_a_run_is_trained_by_one_process_at_a_time(
    finished: tuple[Path, dict[str, Any]], phantom: Path, tmp_path: Path
) -> None:
    run, new = finished[0], tmp_path / "new"
    with locked(run, "somebody"), pytest.raises(RunError, match="another training works there"):
        train(tiny_config(phantom), run, resume=True)
    with locked(new, "somebody"), pytest.raises(RunError, match="another training works there"):
        train(tiny_config(phantom), new)
    assert [path.name for path in new.iterdir()] == [".lock"]
    with pytest.raises(ConfigError, match="resnet_18"):  # the folder of a lock alone is as good as a new one
        train(tiny_config(phantom, network={"encoder": "resnet_18", "weights": "none"}), new)


def test_a_failed_preparation_leaves_no_run_folder(phantom: Path, tmp_path: Path) -> None:
    config = tiny_config(phantom, network={"encoder": "resnet_18", "weights": "none"})
    with pytest.raises(ConfigError, match="resnet_18"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_method_with_nothing_unlabelled_says_so(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tiny_config(phantom).trainer.model_dump() | {"max_steps": 1}
    train(tiny_config(phantom, labelled=1.0, trainer=short), tmp_path / "all", score="validation")
    assert "nothing is unlabelled, so dual_level trains on the labels alone" in capsys.readouterr().err
    alone = tiny_config(phantom, labelled=1.0, trainer=short, method={"name": "supervised"})
    train(alone, tmp_path / "supervised", score="validation")
    train(tiny_config(phantom, trainer=short), tmp_path / "some", score="validation")
    train(tiny_config(phantom, labelled=1.0, trainer=short), tmp_path / "for another purpose", score=None)
    assert "unlabelled" not in capsys.readouterr().err


def test_a_target_without_masks_is_refused_before_training(phantom: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(phantom, root)
    shutil.rmtree(root / "delta" / "masks")
    with pytest.raises(SplitError, match="mask"):
        train(tiny_config(root), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_damaged_checkpoint_and_model_are_named(
    finished: tuple[Path, dict[str, Any]], phantom: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", str(finished[0]), str(run)], check=True)
    for name in ("checkpoints/last.pt", "model/model.safetensors"):
        (run / name).write_bytes((run / name).read_bytes()[:1000])
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        train(tiny_config(phantom), run, resume=True)
    with pytest.raises(RunError, match=r"model\.safetensors"):
        load_bundle(run / "model" / "model.safetensors")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_any_damage_to_a_checkpoint_is_named(seed: int) -> None:
    from semidg.experiment.checkpoint import State, load_state, save_state

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        optimiser = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
        save_state(path, State({"a": torch.zeros(2)}, optimiser, 3, (0.5, 2), 1.0))
        data = bytearray(path.read_bytes())
        for place in rng.integers(0, len(data), rng.choice([1, 3, 20])):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(RunError):
            assert isinstance(load_state(path), State)
        torch.save({"format": 1, "step": 3}, path)
        with pytest.raises(RunError, match=r"last\.pt: damaged checkpoint"):
            load_state(path)


@pytest.mark.parametrize(
    "change",
    [{"size": -1}, {"size": float("inf")}, {"about": None}, {"calibration": [1]}, {"networks": 0}, {"network": 3}],
)
def test_a_description_that_makes_no_sense_is_named(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, change: dict[str, Any]
) -> None:
    with safe_open(finished[0] / "model" / "model.safetensors", "pt") as stream:
        metadata = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    metadata["description"] = json.dumps(json.loads(metadata["description"]) | change)
    save_file(tensors, tmp_path / "model.safetensors", metadata=metadata)
    with pytest.raises(RunError, match=r"model\.safetensors: damaged model"):
        load_bundle(tmp_path / "model.safetensors")


def test_evaluation_on_another_data_set_scores_every_labelled_image(
    finished: tuple[Path, dict[str, Any]], phantom: Path, tmp_path: Path
) -> None:
    run, _ = finished
    out = tmp_path / "out"
    summary = evaluate_elsewhere(run, open_config(run), phantom, out, torch.device("cpu"))
    cases = pd.read_csv(out / "cases.csv", keep_default_na=False)
    assert len(cases) == 24
    assert set(summary["result"]["by_domain"]) == {"aster", "borea", "cirrus", "delta"}
    own = pd.read_csv(run / "cases.csv").set_index("id")["dice"]
    again = cases.set_index("id")["dice"]
    np.testing.assert_allclose(again[own.index], own, atol=1e-6)


def test_images_of_another_data_set_that_training_has_seen_are_counted(phantom: Path, tmp_path: Path) -> None:
    """As they are, and gone through a JPEG; the root of the training may be gone later."""
    shutil.copytree(phantom, tmp_path / "data")
    config = tiny_config(tmp_path / "data")
    config = config.model_copy(update={"data": config.data.model_copy(update={"size": 64})})
    train(config, tmp_path / "run")
    lists = {part: (tmp_path / "run" / "split" / f"{part}.txt").read_text("utf-8") for part in ("labelled", "test")}
    (seen, also, *_), (new, *_) = (text.splitlines() for text in lists.values())
    other = tmp_path / "other" / "here"
    for place, (line, ending) in enumerate([(seen, ".png"), (also, ".jpg"), (new, ".png")]):
        for kind, file, end in zip(("images", "masks"), line.split("\t"), (ending, ".png"), strict=True):
            (other / kind).mkdir(parents=True, exist_ok=True)
            Image.open(tmp_path / "data" / file).save(other / kind / f"{place}{end}")
    other = other.parent
    summary = evaluate_elsewhere(tmp_path / "run", config, other, tmp_path / "out", torch.device("cpu"))
    assert summary["mark"].startswith("2 of 3 images are near-duplicates of images of the training")
    shutil.rmtree(tmp_path / "data")
    summary = evaluate_elsewhere(tmp_path / "run", config, other, tmp_path / "out", torch.device("cpu"))
    assert summary["mark"].startswith("not compared with the training images")
    assert str(tmp_path / "data") in summary["mark"]


def test_the_signal_of_a_lost_starter_is_no_second_one(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter told the run to stop and was killed: the checkpoint is written all the same."""
    orphaned = threading.Event()
    monkeypatch.setattr(executors, "_ORPHANED", orphaned)

    class Lost(StopAt):
        def step(self, step: int) -> None:
            super().step(step)
            if step == self.at:
                orphaned.set()
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(tiny_config(phantom), tmp_path / "run", listener=Lost(3, signal.SIGTERM))
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert state["step"] == 4  # the one after, which looks at the signals


def test_full_disk_is_said_plainly(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save hides what the disk says behind an error of its own."""
    from semidg.errors import SemidgError
    from semidg.experiment import checkpoint

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    save = torch.save
    monkeypatch.setattr(checkpoint.torch, "save", lambda values, stream: save(values, Full()))
    with pytest.raises(SemidgError, match="disk is full"):
        train(tiny_config(phantom), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()
    assert not list((tmp_path / "run").rglob("*.part"))
    assert run_module.open_config(tmp_path / "run") == tiny_config(phantom)


def test_activation_checkpointing_trains_the_same_and_a_run_can_be_resumed_with_it(
    phantom: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    config = tiny_config(phantom)
    with_it = config.model_copy(
        update={"trainer": config.trainer.model_copy(update={"activation_checkpointing": True})}
    )
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", listener=StopAt(3, signal.SIGTERM))
    train(with_it, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(finished[0])
    for name, tensor in weights(finished[0]).items():
        assert torch.equal(weights(tmp_path / "run")[name], tensor), name


def test_lightning_brings_no_checkpoint_of_its_own_not_even_under_slurm(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of something else in the working folder was loaded over our state, and its step taken for ours."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0",
                        "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (here / "hpc_ckpt_1.ckpt").write_bytes(b"of something else")
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM)}
    short = tiny_config(phantom).trainer.model_dump() | {"max_steps": 2}
    train(tiny_config(phantom, trainer=short), tmp_path / "run", score=None)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2"]
    assert [path.name for path in here.iterdir()] == ["hpc_ckpt_1.ckpt"]
    assert {n: signal.getsignal(n) for n in before} == before


def test_a_run_without_validation_has_a_last_row(phantom: Path, tmp_path: Path) -> None:
    config = tiny_config(phantom)
    trainer = config.trainer.model_copy(update={"max_steps": 5, "log_every": 3})
    data = config.data.model_copy(update={"split": config.data.split.model_copy(update={"validation": 0.0})})
    train(config.model_copy(update={"trainer": trainer, "data": data}), tmp_path / "run", score=None)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["3", "5"]


def test_nan_in_the_warm_up_names_the_term_that_was_there(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semidg.methods.dual_level import DualLevel

    original = DualLevel.losses
    monkeypatch.setattr(DualLevel, "losses", lambda *a: {k: v * float("nan") for k, v in original(*a).items()})
    config = tiny_config(phantom, method={"name": "dual_level", "ramp": {"warmup": 0.9, "end": 0.95}})
    with pytest.raises(NonFiniteLossError, match="the loss term supervised became NaN"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [{"seed": -1}, {"seed": 2**32}, {"network": {"atrous_rates": [0, 6, 12]}}, {"spatial": {"scale": [0, 1.2]}},
     {"spatial": {"scale": [1.2, 0.8]}}, {"data": {"size": 4}}],
)  # fmt: skip
def test_values_that_would_end_in_the_middle_of_a_training_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        parse_config(change, "tests")
