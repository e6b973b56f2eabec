"""What a run will cost, measured without leaving a run folder."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from semidg.cli import main
from semidg.config_file import dump_config
from semidg.errors import ConfigError
from semidg.experiment.estimate import Estimate, estimate, estimate_text
from semidg.experiment.run import train
from tests_support import tiny_config


def test_sizes_are_those_of_the_run_and_all_times_are_counted(phantom: Path, tmp_path: Path) -> None:
    config = tiny_config(phantom)
    found = estimate(config)
    values = dataclasses.asdict(found)
    assert all(v > 0 for k, v in values.items() if isinstance(v, int | float) and k not in ("gpu", "compiling"))
    assert found.step[1] <= found.step[0] <= found.step[2]
    parts = (found.training, found.validation, found.scoring, found.checkpoints)
    assert math.isclose(found.total, sum(parts))
    assert found.steps == 6
    run = tmp_path / "run"
    train(config, run)
    files = [*(run / "checkpoints").iterdir(), *(run / "model").iterdir()]
    assert found.run == pytest.approx(sum(path.stat().st_size for path in files), rel=0.05)


def test_the_command_prints_it_and_leaves_nothing(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_config(tiny_config(phantom, method={"name": "supervised", "networks": 1})))
    assert main(["train", "--config", str(file), "--estimate", "--out", "run"]) == 0
    text = capsys.readouterr().out
    for word in ("supervised, 6 steps on cpu", "training", "s a step", "in all", "peak memory", "image cache", "MiB"):
        assert word in text
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_several_devices_are_refused(phantom: Path) -> None:
    with pytest.raises(ConfigError, match="one device"):
        estimate(tiny_config(phantom, trainer={"devices": 2}))


def test_the_total_counts_every_step() -> None:
    found = Estimate(100, (0.5, 0.4, 0.9), 3.0, 2.0, 1.0, 1, None, 1, 1, "cpu", 1, "32-true")
    assert found.training == 50
    assert found.total == 56
    assert dataclasses.replace(found, compiling=4.0).total == 60


def test_it_says_what_another_precision_would_take(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    config = tiny_config(phantom, method={"name": "supervised", "networks": 1})
    found = estimate(config)
    assert found.precision == "32-true"
    assert found.other is not None
    assert found.other[0] == "bf16"
    assert found.other[1] > 0
    text = estimate_text(config, dataclasses.replace(found, other=("bf16", 0.736), compiling=0.0))
    assert "bf16   would take 0.74 of the time a step" in text
    text = estimate_text(config, dataclasses.replace(found, other=("bf16", 1.4)))
    assert "bf16   would take 1.40 times as long a step" in text
    assert "compiling" not in text
    text = estimate_text(config, dataclasses.replace(found, other=None, compiling=30.0))
    assert "would take" not in text
    assert "compiling          30.0 s" in text


def test_it_measures_no_bf16_where_there_is_none(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    config = tiny_config(phantom, method={"name": "supervised", "networks": 1})
    assert estimate(config).other is None
