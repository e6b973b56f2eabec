"""A grid with run folders that hold fabricated scores, and a program that makes them in place of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from semidg.config_file import dump_config
from semidg.experiment.compare import Part, run_folder, scores_folder
from semidg.experiment.comparison_file import Comparison, parse_comparison
from semidg.experiment.grid import Cell
from tests_support import tiny_config

#: ``PROGRAM train --config|--resume ... --out RUN --score PART`` without torch. What it does depends on the seed:
#: 7 fails, 8 kills itself after half of its steps, 9 waits for SIGTERM, which it obeys with exit code 143.
FAKE = r"""
import json, os, shutil, signal, sys, time
from pathlib import Path
import yaml

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2])) if "--resume" not in sys.argv else None
resume = arguments is None
if resume:
    rest = [a for a in sys.argv[2:] if a != "--resume"]
    arguments = dict(zip(rest[::2], rest[1::2]))
run, part = Path(arguments["--out"]), arguments["--score"]
if not resume:
    run.mkdir(parents=True)
    shutil.copy(arguments["--config"], run / "config.yaml")
    (run / "run.json").write_text(json.dumps({"format": 1}))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    (run / "environment.json").write_text(json.dumps({"commit": "abc", "threads": threads, "device": "cpu"}))
config = yaml.safe_load((run / "config.yaml").read_text())
seed, steps = config["seed"], config["trainer"]["max_steps"]
print("training", run.name, flush=True)
(run / "calls.txt").open("a").write("resume\n" if resume else "start\n")
if seed == 7:
    sys.exit("semidg: error: seed 7 is not liked")
(run / "metrics.csv").write_text(f"step,seconds\n{steps // 2},1.5\n")
if seed == 8 and not resume:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 9 and not resume:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    (run / "waiting").touch()
    time.sleep(60)
target = config["data"]["split"]["target"]
dice = {"mean": 0.5 + 0.01 * seed, "network_0": 0.4, "network_1": 0.3}
scores = run if part == "test" else run / "parts" / part
(scores / "evaluation").mkdir(parents=True, exist_ok=True)
for predictor, value in dice.items():
    text = "id,domain,class,group,dice,hd95,nsd\n"
    text += "".join(f"{target} {i},{target},c,{target} {i},{value + 0.01 * i},10.0,0.5\n" for i in range(6))
    (scores / "evaluation" / f"best-{predictor}.csv").write_text(text)
    if predictor == "mean":
        (scores / "cases.csv").write_text(text)
(scores / "summary.json").write_text(json.dumps({
    "checkpoint": "best", "checkpoints": {"last": {"step": steps}}, "training_seconds": 3.0, "mark": None,
    "protocol": "leave_one_domain_out" if target else "grouped", "target": target,
    "result": {"overall": {"dice": {"mean": dice["mean"]}}},
}))
"""


def comparison(arms: Mapping[str, Any], **grid: Any) -> Comparison:
    """A comparison around the tiny configuration, six steps a run."""
    return parse_comparison({"base": tiny_config(Path("data")).model_dump(mode="json"), "arms": arms} | grid, "test")


def make_cases(dice: Sequence[float], domain: str = "delta", group: int = 1) -> pd.DataFrame:
    """A table of cases with these values of Dice, ``group`` cases a group."""
    n = len(dice)
    return pd.DataFrame(
        {
            "id": [f"{domain} {i:03}" for i in range(n)],
            "domain": domain,
            "class": "lesion",
            "group": [f"{domain} {i // group}" for i in range(n)],
            "dice": np.asarray(dice, float),
            "hd95": 20 * (1 - np.asarray(dice, float)),
            "nsd": np.asarray(dice, float) ** 2,
        }
    )


def finish(
    cell: Cell,
    out: Path,
    cases: pd.DataFrame,
    networks: Sequence[pd.DataFrame] = (),
    *,
    part: Part = "test",
    mark: str | None = None,
    environment: Mapping[str, Any] | None = None,
    protocol: str | None = None,
) -> None:
    """The run folder of a cell, trained to the end and scored."""
    run = run_folder(out, cell)
    scores = scores_folder(run, part)
    (scores / "evaluation").mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text('{"format": 1}')
    (run / "config.yaml").write_text(dump_config(cell.config))
    precision = "bf16-mixed" if cell.config.trainer.precision == "bf16" else "32-true"
    made = {"commit": "abc1234", "threads": 2, "device": "cpu", "precision": precision} | dict(environment or {})
    (run / "environment.json").write_text(json.dumps(made))
    cases.to_csv(scores / "cases.csv", index=False)
    for i, table in enumerate(networks):
        table.to_csv(scores / "evaluation" / f"best-network_{i}.csv", index=False)
        table.assign(dice=0.0).to_csv(scores / "evaluation" / f"last-network_{i}.csv", index=False)
    summary = {
        "checkpoint": "best",
        "checkpoints": {"last": {"step": cell.config.trainer.max_steps}},
        "training_seconds": 60.0,
        "protocol": protocol or ("leave_one_domain_out" if cell.target else "grouped"),
        "mark": mark,
        "result": {"overall": {"dice": {"mean": float(cases["dice"].mean())}}},
    }
    (scores / "summary.json").write_text(json.dumps(summary))
