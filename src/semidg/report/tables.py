"""Tables of a summary, as text for a terminal and as rows for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

_SHOWN = ("dice", "iou", "precision", "sensitivity", "nsd", "hd95", "assd")
_OVERLAP = ("dice", "iou", "precision", "sensitivity", "specificity", "nsd")


def summary_rows(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row overall, then by domain, by class and by lesion size: n, Dice with its interval, the other means.

    Overlap in %, distances in pixels of the original image.
    """
    blocks = [("all", result["overall"])]
    blocks += [(f"domain {name}", block) for name, block in result["by_domain"].items()]
    classes = {name: block for name, block in result["by_class"].items() if name}
    if set(classes) != set(result["by_domain"]):  # in BUSI the domain is the class
        blocks += [(f"class {name}", block) for name, block in classes.items()]
    blocks += [(f"size {name}", block) for name, block in result.get("by_size", {}).items()]
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
    chosen = summary["checkpoint"]
    how = f"best on the {summary['chosen_on']}" if summary["chosen_on"] else "no part to choose on"
    lines = [
        f"{summary['name']}: {summary['method']}, {100 * summary['labelled']:g} % labelled, seed {summary['seed']}, "
        f"{summary['data']}, checkpoint '{chosen}' (step {checkpoints[chosen]['step']}, {how})",
        f"protocol {summary['protocol']}" + (f": {summary['mark']}" if summary["mark"] else ""),
        summary_rows(summary["result"]).to_string(index=False, float_format="{:.1f}".format),
        lesion_text(summary["result"]["overall"]["lesions"]),
    ]
    if by_class := class_text(summary):
        lines.insert(3, by_class)
    if summary["confidence"]:
        lines.append(confidence_text(summary["confidence"], summary["result"]["overall"]["dice"]["mean"]))
    alone = [
        f"{checkpoint} {predictor} {100 * block['overall']['dice']['mean']:.1f}"
        for checkpoint, predictors in checkpoints.items()
        for predictor, block in predictors.items()
        if isinstance(block, dict)
    ]
    lines.append("Dice of each checkpoint and network: " + ", ".join(alone))
    if summary.get("augmentation", "none") != "none":
        lines.append(f"test-time augmentation: {summary['augmentation']}")
    size = "of the resized mask" if summary["protocol"] == "published" else "of the original image"
    lines.append(f"overlap and nsd in %, hd95 and assd in pixels {size}")
    return "\n".join(lines)


def class_text(summary: Mapping[str, Any]) -> str:
    """Mean Dice of each foreground class where there are several, else nothing."""
    overall, names = summary["result"]["overall"], summary.get("classes") or ()
    blocks = [(name, overall.get(f"dice_{number}")) for number, name in enumerate(names)]
    shown = [f"{name} {100 * b['mean']:.1f} ({interval_text(b['interval'])})" for name, b in blocks if b]
    return f"Dice by class: {', '.join(shown)}" if shown else ""


def lesion_text(lesions: Mapping[str, Any]) -> str:
    """How many lesions were found, missed and falsely seen."""
    sensitivity = lesions["sensitivity"]
    share = ""
    if sensitivity["value"] is not None:
        share = f" ({100 * sensitivity['value']:.0f} %, {interval_text(sensitivity['interval'])})"
    return f"lesions: {lesions['found']} of {lesions['true']} found{share}, {lesions['false']} false ones"


def confidence_text(confidence: Mapping[str, Any], mean: float) -> str:
    """How far the expected Dice can be trusted, and what referring a fifth of the cases brings."""
    rank = confidence["expected_dice"]["spearman"]
    if rank["value"] is None:
        text = "expected Dice: the same for all cases"
    else:
        text = f"expected Dice: rank correlation {rank['value']:.2f} with the real one"
    fifth = next(row for row in confidence["referral"] if row["referred"] == 0.2)
    text += f"; without the least certain 20 % Dice is {100 * fifth['dice_kept']:.1f} (all: {100 * mean:.1f})"
    return text + (" - on the part that calibrated it, so too good" if confidence["in_sample"] else "")
