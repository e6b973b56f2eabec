"""Tables of a summary, as text for a terminal and as rows for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

_SHOWN = ("dice", "iou", "precision", "sensitivity", "hd95", "assd")
_OVERLAP = ("dice", "iou", "precision", "sensitivity", "specificity")


def summary_rows(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row overall, then by domain, then by class: n, Dice with its interval, the other means.

    Overlap in %, distances in pixels of the original image.
    """
    blocks = [("all", result["overall"])]
    blocks += [(f"domain {name}", block) for name, block in result["by_domain"].items()]
    classes = {name: block for name, block in result["by_class"].items() if name}
    if set(classes) != set(result["by_domain"]):  # in BUSI the domain is the class
        blocks += [(f"class {name}", block) for name, block in classes.items()]
    rows = []
    for name, block in blocks:
        row: dict[str, Any] = {"cases": name, "n": block["n"]}
        for metric in _SHOWN:
            factor = 100 if metric in _OVERLAP else 1
            row[metric] = factor * block[metric]["mean"]
            if metric == "dice":
                row["95 % interval"] = interval_text(block[metric]["interval"], factor)
        rows.append(row)
    return pd.DataFrame(rows)


def interval_text(interval: list[float] | None, factor: float = 100) -> str:
    """``low - high``, or a dash where there is none."""
    return "-" if interval is None else f"{factor * interval[0]:.1f} - {factor * interval[1]:.1f}"


def summary_text(summary: Mapping[str, Any]) -> str:
    """A summary.json for the terminal."""
    checkpoints = summary["checkpoints"]
    lines = [
        f"{summary['name']}: {summary['method']}, {100 * summary['labelled']:g} % labelled, seed {summary['seed']}, "
        f"{summary['data']}, checkpoint '{summary['checkpoint']}' "
        f"(step {checkpoints[summary['checkpoint']]['step']}, chosen on validation)"
        if summary["checkpoint"] == "best"
        else f"{summary['name']}: {summary['method']}, {summary['data']}, last checkpoint",
        summary_rows(summary["result"]).to_string(index=False, float_format="{:.1f}".format),
    ]
    alone = [
        f"{checkpoint} {predictor} {100 * block['overall']['dice']['mean']:.1f}"
        for checkpoint, predictors in checkpoints.items()
        for predictor, block in predictors.items()
        if isinstance(block, dict)
    ]
    lines.append("Dice of each checkpoint and network: " + ", ".join(alone))
    lines.append("overlap in %, hd95 and assd in pixels of the original image")
    return "\n".join(lines)
