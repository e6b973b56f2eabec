"""Run folders with fabricated numbers, complete as a report reads them, made without training."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from semidg.config_file import dump_config
from semidg.data.index import build_index, write_index
from semidg.data.lists import write_split
from semidg.data.splits import make_split
from semidg.evaluation.statistics import summarise
from semidg.experiment.bundle import Bundle, save_bundle
from semidg.experiment.evaluate import write_cases
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import make_pair
from tests_support import tiny_config

EVIL = "<script>alert('x')</script>&amp;\"$x_1$"
OLD_COLUMNS = [
    *("id", "domain", "class", "group", "dice", "iou", "precision", "sensitivity", "specificity", "hd95", "assd"),
]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a browser would show; fails on an element that is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text += data
        if "td" in self.open:
            self.cells[-1] += data

    def values(self, name: str, tag: str | None = None) -> list[str]:
        """All values of an attribute."""
        return [value for t, n, value in self.attributes if n == name and tag in (None, t)]


def make_cases(n: int = 36, seed: int = 0, gain: float = 0.0, *, evil: bool = False) -> pd.DataFrame:
    """A table of cases with every column of today; the last image has no lesion, the one before it is missed."""
    difficulty = np.random.default_rng(7).uniform(0.2, 0.85, n)  # of the image: the same for every method and seed
    dice = np.clip(difficulty + gain + np.random.default_rng(seed).normal(0, 0.03, n), 0.02, 0.99)
    area = np.random.default_rng(8).uniform(0.005, 0.2, n)
    bias = np.clip(np.random.default_rng(seed).normal(0, 0.2, n), -0.9, 0.9)
    dice[-1], area[-1], bias[-1] = 1.0, 0.0, 0.0
    dice[-2], bias[-2] = 0.0, -1.0
    domains = np.array([EVIL if evil else "clinic a", "clinic b", "clinic c"])[np.arange(n) % 3]
    table = pd.DataFrame(
        {
            "id": [f"{EVIL if evil else 'image'} {i:03}" for i in range(n)],
            "domain": domains,
            "class": np.array(["benign", "malignant"])[np.arange(n) % 2],
            "group": [f"group {i}" for i in range(n)],
            "area": area,
            "dice": dice,
            "iou": dice / (2 - dice),
            "precision": np.clip(dice + 0.02, 0, 1),
            "sensitivity": dice,
            "specificity": 0.98,
            "hd": 60 * (1 - dice),
            "hd95": 50 * (1 - dice),
            "assd": 9 * (1 - dice),
            "nsd": dice**2,
            "boundary_f1": dice**2,
            "area_error": np.abs(bias),
            "area_bias": bias,
        }
    )
    table["lesions"] = (table["area"] > 0).astype(int)
    table["lesions_found"] = ((table["area"] > 0) & (table["dice"] > 0.3)).astype(int)
    table["lesions_false"] = (np.arange(n) % 5 == 0).astype(int)
    table["expected_dice"] = np.clip(0.3 + 0.6 * dice, 0, 1)
    return table


def make_confidence(cases: pd.DataFrame) -> dict[str, Any]:
    """summary.json["confidence"] of a model that is a little over-confident."""

    def of(value: float, width: float = 0.01) -> dict[str, Any]:
        return {"value": value, "interval": [value - width, value + width]}

    bins = [
        {"low": low, "high": low + 0.1, "weight": w, "confidence": low + 0.05, "accuracy": None if w == 0 else low}
        for low, w in zip((0.5, 0.6, 0.7, 0.8, 0.9), (0.0, 0.02, 0.05, 0.1, 0.83), strict=True)
    ]
    dice = np.sort(cases["dice"].to_numpy())[::-1]
    kept = np.cumsum(dice) / np.arange(1, len(dice) + 1)
    pixels = {name: of(0.02) for name in ("ece", "brier", "boundary_ece")}
    pixels |= {f"{name}_uncalibrated": of(0.05) for name in ("ece", "brier", "boundary_ece")}
    return {
        "temperature": 1.3,
        "calibrated_on": {"part": "validation", "n": 65},
        "in_sample": False,
        "pixels": {**pixels, "boundary_width": 5, "reliability": bins, "reliability_uncalibrated": bins},
        "expected_dice": {
            "n": len(cases),
            "pearson": of(0.61, 0.08),
            "spearman": of(0.58, 0.07),
            "mae": of(0.11),
            "bias": of(0.042),
        },
        "risk_coverage": {
            "coverage": (np.arange(1, len(dice) + 1) / len(dice)).tolist(),
            "dice": kept.tolist(),
            "aurc": 0.2,
            "aurc_random": 0.28,
            "aurc_oracle": 0.15,
        },
        "referral": [
            {"referred": r, "n_kept": kept, "dice_kept": 0.781, "interval_kept": [0.7, 0.85], "dice_referred": 0.4}
            for r, kept in ((0.1, 32), (0.2, 29), (0.3, 25))
        ],
    }  # fmt: skip


def make_run(
    folder: Path,
    seed: int = 0,
    method: str = "dual_level",
    *,
    cases: pd.DataFrame | None = None,
    old: bool = False,
    evil: bool = False,
    confidence: bool = True,
    root: Path | None = None,
    **changes: Any,
) -> Path:
    """A run folder. ``old``: without the columns and keys that older versions lack. ``changes``: of summary.json."""
    split = {"target": "delta"} if root else {}
    data = {"root": root or folder / "nowhere", "size": 32, "channels": 1, "split": split}
    config = tiny_config(data=data, seed=seed, method={"name": method})
    table = make_cases(seed=seed, evil=evil) if cases is None else cases
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"format": 1, "semidg": "0.1.0"}')
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "environment.json").write_text(json.dumps({"semidg": "0.1.0", "command": f"semidg train {EVIL}"}))
    summary: dict[str, Any] = {
        "format": 1,
        "name": "tiny",
        "method": method,
        "labelled": 0.4,
        "seed": seed,
        "data": "test part",
        "protocol": "grouped",
        "target": None,
        "mark": None,
        "checkpoint": "best",
        "confidence": make_confidence(table) if confidence else None,
    }
    if old:
        table = table[OLD_COLUMNS]
        summary = {key: value for key, value in summary.items() if key not in {"mark", "confidence"}}
    summary["result"] = summarise(table, draws=100)
    if old:
        summary["result"].pop("detectable_difference")
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    write_cases(table, folder / "cases.csv")
    steps = np.arange(1, 7)
    course = pd.DataFrame({"step": steps, "seconds": steps, "lr": 0.1, "loss": 2.0 / steps, "supervised": 1.0 / steps})
    course["cacps"] = 0.1 * steps
    course["validation_dice"] = [np.nan, np.nan, 0.4, np.nan, np.nan, 0.6]
    course["validation_dice_network_0"] = course["validation_dice"] - 0.05
    course.to_csv(folder / "metrics.csv", index=False)
    count = {"images": 10, "groups": 9, "domains": {"clinic a": 6, "clinic b": 4}, "classes": {"": 10}}
    (folder / "split").mkdir()
    counts = {"labelled": count, "unlabelled": count, "validation": count, "test": count}
    split = {"counts": counts, "twins_in_training": {"validation": 0, "test": 0}}
    (folder / "split" / "split.json").write_text(json.dumps(split))
    return folder


def make_run_with_data(folder: Path, root: Path, method: str = "dual_level") -> Path:
    """A run whose images are those of a phantom at ``root``, and whose networks are as they were drawn."""
    config = tiny_config(root)
    index = build_index(root)
    split = make_split(index.records, config.data.split, config.labelled, 0)
    cases = make_cases(len(split.test))
    cases["id"] = [record.id for record in split.test]
    make_run(folder, method=method, cases=cases, root=root, target="delta", protocol="leave_one_domain_out")
    write_index(index, folder / "index.csv")
    write_split(split, index.root, folder / "split")
    ensemble = Ensemble(make_pair(config.network, config.data.channels, 0, 2))
    save_bundle(folder / "model" / "model.safetensors", Bundle(ensemble, config.network, 32, 1, {}))
    return folder
