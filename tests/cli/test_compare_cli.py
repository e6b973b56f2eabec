"""semidg compare as a user calls it; but for one test, a program without torch stands in for the training."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from comparison_support import FAKE
from semidg.cli import main
from semidg.cli.compare import CompareOptions, again, split_overrides
from semidg.cli.options import parse
from semidg.config_file import dump_config, load_config
from semidg.experiment import compare as grid_module
from semidg.experiment import executors
from tests_support import tiny_config


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(executors, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.setattr(grid_module, "_PAUSE", 0.02)


def write(folder: Path, **values: Any) -> Path:
    (folder / "base.yaml").write_text(dump_config(tiny_config()))
    path = folder / "arms.yaml"
    path.write_text(yaml.safe_dump({"name": "try", "base": "base.yaml"} | values, sort_keys=False, allow_unicode=True))
    return path


def call(*arguments: object) -> int:
    return main(["compare", *map(str, arguments)])


def test_two_unlike_arms_are_really_trained_and_compared(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    arms = {
        "无 CutMix / light": {"method.name": "dual_level", "method.strong.cutmix": 0, "trainer.max_steps": 3},
        "supervised": {"optimiser.lr": 0.01},
    }
    file = write(
        tmp_path, arms=arms, overrides={"trainer.max_steps": 2, "trainer.eval_every": 2}, baseline="supervised"
    )
    out = tmp_path / "out"
    arguments = (file, "--out", out, "--data.root", phantom, "--jobs", 2, "--part", "validation")
    assert call(*arguments) == 0, [log.read_text() for log in (out / "logs").iterdir()]
    shown = capsys.readouterr()
    assert "无 CutMix / light" in shown.out
    assert "validation Dice" in shown.err
    assert not list(out.glob("runs/*/summary.json"))  # the test part stays unseen
    runs = sorted((out / "runs").iterdir())
    assert [load_config(run / "config.yaml").trainer.max_steps for run in runs] == [3, 2]
    assert [load_config(run / "config.yaml").method.name for run in runs] == ["dual_level", "supervised"]
    table = pd.read_csv(out / "table-validation.csv")
    assert table["arm"].tolist() == ["无 CutMix / light"] * 2 + ["supervised"] * 2
    for run, dice in zip(runs, table[table["predictor"] == "mean"]["dice"], strict=True):
        summary = json.loads((run / "parts" / "validation" / "summary.json").read_text())
        assert dice == pytest.approx(summary["result"]["overall"]["dice"]["mean"], abs=1e-5)
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert call("--out", out, "--part", "validation") == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}


@pytest.mark.usefixtures("fake")
def test_a_failure_is_reported_and_the_rest_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    file = write(tmp_path, arms={"supervised": None}, seeds=[7, 0])
    assert call(file, "--out", out, "--data.root", "data") == 1
    shown = capsys.readouterr()
    assert "failed    supervised_labelled-0.4_target-delta_seed-7: semidg: error: seed 7 is not liked" in shown.err
    assert f"1 runs failed; try them again: semidg compare --out {out}" in shown.err
    assert "| supervised | leave_one_domain_out, delta | 40 % | 0 | 6 |" in (out / "table.md").read_text()
    # with another seed in place of the wrong one; the folder itself is enough to continue
    write(tmp_path, arms={"supervised": None}, seeds=[0, 1])
    assert call(file, "--out", out, "--data.root", "data") == 0
    assert "| 0, 1 | 6 |" in (out / "table.md").read_text()
    assert call("--out", out) == 0


@pytest.mark.usefixtures("fake")
def test_a_dry_run_writes_nothing_and_says_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    file = write(tmp_path, arms={"supervised": None}, seeds=[8, 0])
    arguments = (file, "--out", out, "--data.root", "data")
    assert call(*arguments, "--dry-run") == 0
    assert "2 runs: 0 done, 0 half-done, 2 left; no run measured yet" in capsys.readouterr().out
    assert not out.exists()
    assert call(*arguments) == 1
    before = sorted(out.rglob("*"))
    assert call(*arguments, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "half-done  supervised_labelled-0.4_target-delta_seed-8 (step 3 of 6)" in text
    assert "2 runs: 1 done, 1 half-done, 0 left; less than a minute left" in text
    assert sorted(out.rglob("*")) == before


@pytest.mark.usefixtures("fake")
def test_the_quick_form_needs_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    quick = ("--methods", "supervised", "epl", "--labelled", 0.25, 0.5, "--seeds", 0, 1, "--targets", "delta", "none")
    arguments = ("busi-lite", *quick, "--out", out, "--data.root", "data", "--trainer.max-steps=7")
    assert call(*arguments, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "16 runs" in text
    assert text.splitlines()[0] == "left       supervised_labelled-0.25_target-delta_seed-0"
    assert (
        call("busi-lite", "--methods", "supervised", "--out", out, "--data.root", "data", "--trainer.max-steps=7") == 0
    )
    found = yaml.safe_load((out / "comparison.yaml").read_text())
    assert found["name"] == "busi-lite"
    assert found["overrides"] == {"data.root": "data", "trainer.max_steps": 7}
    assert load_config(next((out / "configs").iterdir())).trainer.max_steps == 7


@pytest.mark.usefixtures("fake")
def test_sigterm_stops_and_says_how_to_continue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    file = write(tmp_path, arms={"supervised": None}, seeds=[9])

    def interrupt() -> None:
        while not list(out.glob("runs/*/waiting")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert call(file, "--out", out, "--data.root", "data", "--jobs", 1) == 143
    thread.join()
    line = next(line for line in capsys.readouterr().err.splitlines() if "stopped" in line)
    command = shlex.split(line.partition("continue with: ")[2])
    assert command[:2] == ["semidg", "compare"]
    assert main(command[1:]) == 0
    assert "1 of 1 runs" in (out / "table.md").read_text()


def test_mistakes_are_named_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    file = write(tmp_path, arms={"supervised": {"optimiser.lr": 0.1}}, seeds=[0])

    def refused(*arguments: object) -> str:
        assert call(*arguments) == 2
        assert not out.exists()
        return capsys.readouterr().err

    assert "--out is not set" in refused(file)
    assert "data.root is not set" in refused(file, "--out", out)
    assert "has a grid of its own; set seeds there" in refused(file, "--out", out, "--seeds", 1)
    assert "--optimiser.lr: the arm 'supervised' sets it" in refused(file, "--out", out, "--optimiser.lr", 1)
    assert "'trainer.max_stepz'; the nearest known key is 'trainer.max_steps'" in refused(
        file, "--out", out, "--trainer.max-stepz", 3
    )
    assert "has no arms; name them: --methods" in refused("busi-lite", "--out", out)
    assert "did you mean 'busi-lite'" in refused("busi-lit", "--out", out)
    assert "unknown method 'sup'" in refused("busi-lite", "--methods", "sup", "--out", out)
    assert "has no comparison yet" in refused("--out", out)
    published = ("busi-paper", "--methods", "epl", "--out", out, "--data.root", "data")
    assert "its split has no validation part" in refused(*published, "--part", "validation")
    assert "--jobs 0: must be 1 or more" in refused(file, "--out", out, "--jobs", 0)


def test_dotted_options_are_split_from_those_of_the_verb() -> None:
    own, overrides = split_overrides(
        shlex.split(
            "arms.yaml --data.root 'my data' --out o --jobs 2 --network.atrous-rates 1 2 3 --data.include-normal "
            "--trainer.no-channels-last --trainer.max-steps=9 --data.split.target None --seeds 0 1 --optimiser.lr -0.5 "
            "--trainer.max-steps 8 --trainer.precision 32 --data.cache 2024"
        )
    )
    assert own == ["arms.yaml", "--out", "o", "--jobs", "2", "--seeds", "0", "1"]
    assert overrides == {
        "data.root": "my data", "network.atrous_rates": [1, 2, 3], "data.include_normal": True,
        "trainer.channels_last": False, "trainer.max_steps": 8, "data.split.target": None, "optimiser.lr": -0.5,
        "trainer.precision": "32", "data.cache": "2024",
    }  # fmt: skip


def test_keys_that_take_several_values_take_one() -> None:
    _, found = split_overrides(["--data.more-roots", "b", "--trainer.loggers", "tensorboard", "--seed", "1"])
    assert found == {"data.more_roots": ["b"], "trainer.loggers": ["tensorboard"]}
    _, found = split_overrides(["--trainer.loggers", "[tensorboard, mlflow]", "--data.more-roots", "b", "c"])
    assert found == {"trainer.loggers": ["tensorboard", "mlflow"], "data.more_roots": ["b", "c"]}
    _, found = split_overrides(["--network.atrous-rates", "1", "2", "3", "--trainer.max-steps=4"])
    assert found == {"network.atrous_rates": [1, 2, 3], "trainer.max_steps": 4}


def test_what_continues_a_comparison_says_all_that_it_was_given() -> None:
    assert again(CompareOptions(out=Path("my out"))) == ["--out", "my out"]
    options = CompareOptions(
        out=Path("out"), executor="ray", gpus_per_run=0.5, cpus_per_run=2, known=(Path("a"), Path("b c"))
    )
    text = shlex.join(again(options))
    assert text == "--out out --executor ray --cpus-per-run 2 --gpus-per-run 0.5 --known a 'b c'"
    assert parse("compare", CompareOptions, shlex.split(text), "") == options
