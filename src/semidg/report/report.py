"""The report: run folders in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from semidg.errors import ConfigError, SemidgError
from semidg.experiment.prepare import Report
from semidg.files import write_bytes
from semidg.report import wording
from semidg.report.blocks import Gallery, Section, Text
from semidg.report.colours import class_colour, css
from semidg.report.confidence import confidence
from semidg.report.distributions import distributions
from semidg.report.gallery import draw_cases
from semidg.report.glossary import METRIC_TERMS, OTHER_TERMS
from semidg.report.page import environment
from semidg.report.paired import comparison
from semidg.report.results import results
from semidg.report.runs import Method, read_methods
from semidg.report.sections import data_and_protocol, training
from semidg.report.svg import swatch


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    baseline: str | None = None,
    root: Path | None = None,
    gallery: int = 2,
    device: torch.device | None = None,
    progress: Report | None = None,
) -> str:
    """Write the page of one run, or of several compared, to ``out``; returns its summary as one paragraph.

    baseline: method or run folder that the others are compared with, by default the first. root: where the data are
    now, if they have moved. gallery: cases of each kind, 0 for none. The page holds everything, needs no network and
    is the same, byte for byte, for the same runs, options and versions. What a run does not have (older summaries, no
    data, no model) is left out with a note.
    Raises RunError for a folder that is no run, is not evaluated or is damaged, ConfigError for ``gallery`` below 0.
    """
    if gallery < 0:
        raise ConfigError(f"--gallery {gallery}: must be 0 (no pictures) or more")
    methods = read_methods(runs, baseline)
    sections = [results(methods)]
    rows: pd.DataFrame | None = None
    if len(methods) > 1:
        compared, rows = comparison(methods)
        sections.append(compared)
    sections += [training(methods), distributions(methods)]
    sections.append(_gallery(methods, gallery, root, device or torch.device("cpu"), progress))
    sections += [confidence(methods), data_and_protocol(methods)]
    page = (
        environment()
        .get_template("report.html.jinja")
        .render(
            title=_title(methods),
            facts=_facts(methods),
            summary=_summary(methods, rows),
            marks=_marks(methods),
            sections=sections,
            methods=[(method.name, len(method.runs), swatch(place)) for place, method in enumerate(methods)],
            glossary={**METRIC_TERMS, **OTHER_TERMS},
        )
    )
    write_bytes(out, page.encode("utf-8"))
    return wording.headline(methods, rows)


def _title(methods: Sequence[Method]) -> str:
    if len(methods) == 1:
        run = methods[0].lead
        return f"{methods[0].name} on {Path(run.summary['root']).name if run.elsewhere else run.config.name}"
    return " · ".join(method.name for method in methods[:4]) + (" · …" if len(methods) > 4 else "")


def _facts(methods: Sequence[Method]) -> list[tuple[str, str, str]]:
    """The few numbers that stand first: (name, value, what belongs to it)."""
    if len(methods) > 1:
        return [(method.name, *_mean(method)) for method in methods]
    run = methods[0].lead
    facts = [("Mean Dice", *_mean(methods[0]))]
    if block := run.overall.get("lesions"):
        sensitivity = f"sensitivity {wording.percent(block['sensitivity']['value'])}"
        what = "Lesions" if len(run.config.network.names) == 2 else "Regions"
        facts.append((f"{what} missed", f"{block['missed']} of {block['true']}", sensitivity))
        facts.append(("False regions", str(block["false"]), f"in {run.scored}"))
    if row := wording.referral_row(run):
        share = f"{100 * row['referred']:.0f} %"
        facts.append(
            (
                f"Dice without the least certain {share}",
                wording.percent(row["dice_kept"]),
                f"{row['n_kept']} {run.unit}",
            )
        )
    return facts


def _mean(method: Method) -> tuple[str, str]:
    if len(method.runs) > 1:
        means = [run.overall["dice"]["mean"] for run in method.runs]
        return wording.percent(sum(means) / len(means)), f"Dice, mean of {len(means)} seeds"
    dice = method.lead.overall["dice"]
    return wording.percent(dice["mean"]), f"Dice, 95 %: {wording.span(dice['interval'])}" if dice[
        "interval"
    ] else "Dice"


def _summary(methods: Sequence[Method], rows: pd.DataFrame | None) -> list[tuple[str, str]]:
    """(heading, text) of each paragraph."""
    if len(methods) == 1 and len(methods[0].runs) == 1:
        run = methods[0].lead
        return [
            ("What was done", f"{wording.trained(methods[0])} {wording.protocol(run)}"),
            ("How well", wording.accuracy(run)),
            ("Missed and false", wording.lesions(run)),
            ("Where it is weak", wording.weakness(run)),
            ("Can it be trusted", wording.trust(run)),
        ]
    paragraphs = []
    if rows is not None:
        own = rows[(rows["metric"] == "dice") & rows["difference"].notna()].to_dict("records")
        paragraphs += [(row["name"], wording.difference(row, methods[0].name)) for row in own]
    for method in methods:
        run = method.lead
        told = [wording.trained(method), f"It has a {wording.pooled(method)}."]
        told += [
            f"Seed {run.config.seed}:" if len(method.runs) > 1 else "",
            wording.lesions(run),
            wording.weakness(run, only_found=True),
            wording.referral(run),
        ]
        paragraphs.append((f"{method.name} by itself", " ".join(text for text in told if text)))
    paragraphs.append(("What the intervals cover", _COVERS))
    return paragraphs


_COVERS = (
    "An interval covers the draw of the test images. It covers another training only where it says so, with the seeds, "
    "and another hospital never."
)


def _marks(methods: Sequence[Method]) -> list[str]:
    """What must stand beside the numbers."""
    marks = []
    for method in methods:
        if mark := method.lead.summary.get("mark"):
            marks.append(f"{method.name}: {mark}" if len(methods) > 1 else mark)
    return marks


_COLOURS = (
    "Predictions are orange, the truth is a blue line. Confidence runs from dark blue (a coin's toss) to yellow "
    "(certain). Errors: orange stripes are marked but not there, full blue is there but not marked; the white line is "
    "the truth."
)
_CLASS_COLOURS = (
    "Truth and prediction are filled in the colours of the classes. Confidence runs from dark blue (all classes equal) "
    "to yellow (certain). Errors: orange stripes are marked but not there, full blue is there but not marked, purple "
    "stripes have another class; the white line is the truth."
)


def _gallery(
    methods: Sequence[Method], count: int, root: Path | None, device: torch.device, progress: Report | None
) -> Section:
    section = Section("gallery", "Gallery")
    if count == 0:
        section.blocks.append(Text("No pictures were asked for; --gallery 2 shows two cases of each kind.", note=True))
        return section
    try:
        cases = draw_cases(methods, count, root, device, progress)
    except SemidgError as error:
        text = f"No pictures: {error}. With the data and the model in place, make the page again."
        section.blocks.append(Text(text, note=True))
        return section
    names = methods[0].lead.config.network.names
    whose = methods[0].name + (f" (seed {methods[0].lead.config.seed})" if len(methods[0].runs) > 1 else "")
    section.blocks.append(
        Text(
            f"Cases are chosen by the rank of {whose}, never by eye: the best, the median, the worst, and "
            "those where it expects "
            f"most and gets least. {_COLOURS if len(names) == 2 else _CLASS_COLOURS}"
        )
    )
    if "expected_dice" not in methods[0].lead.cases.columns:
        section.blocks.append(
            Text("The most over-confident cases are not known: cases.csv has no expected Dice.", note=True)
        )
    legend = [(name, css(class_colour(number))) for number, name in enumerate(names) if number and len(names) > 2]
    section.blocks.append(Gallery(tuple(cases), tuple(legend)))
    return section
