"""The sections on the course of training, and on data and protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from semidg.config_file import dump_config
from semidg.report import charts, wording
from semidg.report.blocks import (
    Charts,
    Column,
    Figure,
    Folded,
    Section,
    Table,
    Text,
    column,
    number,
    word,
)
from semidg.report.runs import Method, Run

_NO_TERM = frozenset({"step", "seconds", "lr"})
_FIRST = ("loss", "supervised")
#: What each column of losses in metrics.csv is.
TERMS = {
    "supervised": "Against the labels.",
    "cacps": "Each network against the pseudo labels of the other.",
    "view": "The two views of an image against each other.",
    "network": "The two networks against each other.",
    "contrastive": "Features of pixels of one class together, of two classes apart.",
    "consistency": "The strong view against what the moving average says of the plain image, in probabilities.",
    "strong": "The strong view against what the moving averages say of the plain image.",
    "feature": "The plain image with dropped-out features against the pseudo label.",
    "copy_paste": "Images pasted together of labelled and unlabelled ones.",
    "cross": "Each network against the pseudo labels of the other.",
    "edge": "The edge head against the edges of the masks.",
    "boundary": "The boundary loss against the labels; its weight rises.",
    "hausdorff": "The Hausdorff loss against the labels.",
}

_FILES = (
    (
        "config.yaml",
        "the complete configuration; semidg train --config RUN/config.yaml --out OTHER makes the run again",
    ),
    ("environment.json", "versions, device, commit and command"),
    ("index.csv, split/", "the images, and which of them are labelled, unlabelled, validation and test"),
    ("metrics.csv", "the course of training, a row a logged step"),
    ("model/model.safetensors", "the networks that predict"),
    ("cases.csv", "a row a test image: every measure of it"),
    ("summary.json", "means and intervals, all of this page's numbers"),
)


def training(methods: Sequence[Method]) -> Section:
    """Every loss term and validation Dice over the steps, all runs on the same axes."""
    section = Section("training", "Course of training")
    runs = [(place, run) for place, method in enumerate(methods) for run in method.runs if len(run.course) > 1]
    names = list(dict.fromkeys(name for _, run in runs for name in run.course.columns if name not in _NO_TERM))
    dice = [name for name in names if name.startswith("validation")]
    losses = sorted((n for n in names if n not in dice), key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST))
    if not runs:
        section.blocks.append(Text("No course: metrics.csv is not there or holds one row.", note=True))
        return section
    for group, explain, percent in (
        (
            dice,
            "Mean Dice in % of the part that chose the checkpoint: of the mean of the networks, and of each alone. "
            "A curve that still rises at the end asks for a longer training; networks far apart ask why.",
            True,
        ),
        (
            losses,
            "The loss and the terms it is the sum of, weights included. In the warm-up only the supervised ones are "
            "there; a falling loss beside a falling validation Dice means the labels are learnt by heart.",
            False,
        ),
    ):
        figures = []
        for name in group:
            lines = [_line(place, run, name) for place, run in runs if name in run.course.columns]
            lines = [line for line in lines if np.isfinite(line.y).any()]
            if lines:
                title = _title(name)
                svg = charts.course(lines, f"{title} over the training steps", f"course-{name}", percent=percent)
                figures.append(Figure(title, svg, TERMS.get(name, "")))
        if figures:
            section.blocks.append(Charts(tuple(figures), explain, small=True))
    return section


def data_and_protocol(methods: Sequence[Method]) -> Section:
    """Counts of the split, protocol, twins, configuration, command, versions and files."""
    section = Section("data", "Data and protocol")
    for method in methods:
        run, head = method.lead, f"{method.name}: " if len(methods) > 1 else ""
        counts = run.split.get("counts")
        text = wording.protocol(run)
        if target := run.summary.get("target"):
            text += f" The domain held out is {target}."
        if (augmentation := run.summary.get("augmentation", "none")) != "none":
            text += f" Test-time augmentation: {augmentation}."
        section.blocks.append(Text(head + text))
        if mark := run.summary.get("mark"):
            section.blocks.append(Text(f"{head}{mark[0].upper()}{mark[1:]}.", note=True))
        if counts:
            what = "images of the run's own data" if run.elsewhere else "images"
            section.blocks.append(_counts_table(head + what, counts))
            if not run.elsewhere:
                section.blocks.append(Text(head + _twins(run)))
        else:
            section.blocks.append(
                Text(f"{head}split/split.json is not there, so the parts are not counted.", note=True)
            )
    for method in methods:
        for run in method.runs:
            facts = json.dumps(run.environment, indent=2, ensure_ascii=False)
            command = run.environment.get("command", "not known")
            section.blocks.append(Folded(f"{run.name}: command and versions", f"{command}\n\n{facts}"))
            section.blocks.append(Folded(f"{run.name}: configuration", dump_config(run.config)))
    rows = tuple((word(name), word(text)) for name, text in _FILES)
    heads = (Column("File", None, number=False), Column("Content", None, number=False))
    section.blocks.append(Table("Files of a run folder", heads, rows))
    return section


def _line(place: int, run: Run, name: str) -> charts.Line:
    return charts.Line(place, run.course["step"].to_numpy(float), run.course[name].to_numpy(float))


def _title(name: str) -> str:
    if name == "loss":
        return "loss (sum)"
    return name.replace("validation_dice", "validation Dice").replace("_network_", ", network ").replace("_", " ")


def _counts_table(caption: str, counts: dict[str, Any]) -> Table:
    kinds = [("domains", "domain"), ("classes", "class")]
    names = {key: sorted({n for part in counts.values() for n in part.get(key, {}) if n}) for key, _ in kinds}
    if names["domains"] == names["classes"]:  # in BUSI the domain is the class
        kinds = kinds[:1]
    shown = [(key, what, name) for key, what in kinds for name in names[key]]
    columns = [Column("Part", None, number=False), Column("Images"), column("group", "Groups")]
    columns += [Column(f"{what} {name}") for _, what, name in shown]
    rows = [
        (
            word(part),
            *(number(c[key], decimals=0) for key in ("images", "groups")),
            *(number(c.get(key, {}).get(name, 0), decimals=0) for key, _, name in shown),
        )
        for part, c in counts.items()
    ]
    return Table(caption[0].upper() + caption[1:], tuple(columns), tuple(rows))


def _twins(run: Run) -> str:
    twins = run.split.get("twins_in_training", {}).get("test")
    if twins is None:
        return "Near-duplicates between training and test part were not counted."
    if twins:
        return f"{twins} of the test images have a near-duplicate in training: the result is better than on new images."
    return "No test image has a near-duplicate in training."
