"""The section on confidence: calibration of pixels, expected against real Dice, referral."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from semidg.report import charts, wording
from semidg.report.blocks import Cell, Charts, Column, Figure, Section, Table, Text, column, interval_cell, number, word
from semidg.report.runs import Method, Run


def confidence(methods: Sequence[Method]) -> Section:
    """Calibration of pixels, expected against real Dice, risk-coverage and referral."""
    section = Section("confidence", "Confidence and calibration")
    known = [(place, m.lead) for place, m in enumerate(methods) if m.lead.summary.get("confidence")]
    for method in methods:
        if not method.lead.summary.get("confidence"):
            section.blocks.append(Text(f"{method.name}: {wording.trust(method.lead)}", note=True))
    if not known:
        return section
    several = len(methods) > 1
    figures = [f for f in (_reliability(known), _expected(known), _coverage(known)) if f]
    section.blocks += [_origin(methods[place].name, run) for place, run in known]
    section.blocks.append(Charts(tuple(figures)))
    section.blocks.append(_calibration_table(methods, known, several))
    if any(run.summary["confidence"].get("referral") for _, run in known):
        section.blocks.append(_referral_table(methods, known, several))
    return section


def _reliability(known: Sequence[tuple[int, Run]]) -> Figure | None:
    curves = []
    for place, run in known:
        pixels = run.summary["confidence"].get("pixels") or {}
        for key, calibrated in (("reliability_uncalibrated", False), ("reliability", True)):
            if pixels.get(key) and (calibrated or len(known) == 1):
                curves.append((place, calibrated, pixels[key]))
    if not curves:
        return None
    label = "Reliability diagram: share of right pixels over stated confidence"
    before = " Dashed and hollow: before the temperature was set; solid: after." if len(known) == 1 else ""
    return Figure(
        "Is a pixel as sure as it says?",
        charts.reliability(curves, label, "reliability"),
        "On the line a confidence of 90 % is right nine times in ten; below it the model is "
        "over-confident. Larger marks stand "
        f"for more pixels.{before}",
    )


def _expected(known: Sequence[tuple[int, Run]]) -> Figure | None:
    tables = {place: run.cases for place, run in known if "expected_dice" in run.cases.columns}
    if not tables:
        return None
    label = "Scatter plot of real over expected Dice of each image"
    return Figure(
        "Does it know which masks are bad?",
        charts.expected_real(tables, label, "expected"),
        "Each mark is an image. Below the line the mask is worse than the model expects: bottom right "
        "are the mistakes it is sure of, and the gallery shows the worst of them.",
    )


def _coverage(known: Sequence[tuple[int, Run]]) -> Figure | None:
    curves = [
        (place, run.summary["confidence"]["risk_coverage"], run.cases["dice"].to_numpy(float))
        for place, run in known
        if run.summary["confidence"].get("risk_coverage")
    ]
    if not curves:
        return None
    label = "Risk-coverage curve: mean Dice of the images kept over their share"
    return Figure(
        "What does referral bring?",
        charts.risk_coverage(curves, label, "coverage"),
        "From left to right ever more of the least certain images go to a person. The steeper the rise, "
        "the better the model knows its own mistakes; a level line would be as good as chance.",
    )


def _origin(name: str, run: Run) -> Text:
    facts = run.summary["confidence"]
    source = facts.get("calibrated_on")
    temperature = facts.get("temperature")
    text = f"{name}: "
    if temperature is None:
        return Text(text + "the probabilities are shown as they are, without a temperature.")
    text += f"temperature {temperature:.2f}"
    text += f", set on the {source['n']} images of the {source['part']} part." if source else ", not set on any images."
    if facts.get("in_sample"):
        return Text(f"{text} It was set on the images it is judged on, so the numbers after it flatter.", note=True)
    return Text(text)


def _calibration_table(methods: Sequence[Method], known: Sequence[tuple[int, Run]], several: bool) -> Table:
    columns = [Column("Method", None, number=False)] if several else []
    columns += [Column("Measure", None, number=False), Column("Before")]
    columns += [column("interval"), column("temperature", "After"), column("interval")]
    rows = []
    for place, run in known:
        head = [Cell(methods[place].name, "", place)] if several else []
        rows += [(*head, *cells) for cells in _calibration_rows(run.summary["confidence"])]
    explain = (
        "Smaller is better but for the correlations. Calibration errors and risks in %; the expected "
        "Dice minus the real one is above 0 where the model promises too much."
    )
    return Table("Calibration, before and after the temperature", tuple(columns), tuple(rows), explain)


def _calibration_rows(facts: dict[str, Any]) -> Iterator[tuple[Cell, ...]]:
    """Measure, value and interval before, value and interval after the temperature."""
    none = Cell("–")
    pixels = facts.get("pixels") or {}
    for key, name, factor, decimals in _PIXELS:
        if key in pixels:
            before, after = (pixels.get(which) for which in (f"{key}_uncalibrated", key))
            yield word(name), *_pair(before, factor, decimals), *_pair(after, factor, decimals)
    expected = facts.get("expected_dice") or {}
    for key, name, factor, decimals in _EXPECTED:
        if key in expected:
            yield word(name), none, none, *_pair(expected[key], factor, decimals)
    curve = facts.get("risk_coverage") or {}
    for key, name in _CURVES:
        if curve.get(key) is not None:
            yield word(name), none, none, number(curve[key], 100), none


_PIXELS = (("ece", "ECE, %", 100, 2), ("boundary_ece", "Boundary ECE, %", 100, 2), ("brier", "Brier", 1, 3))
_CURVES = (
    ("aurc", "Area under risk-coverage, %"),
    ("aurc_random", "the same, images kept at random"),
    ("aurc_oracle", "the same, kept by their real Dice"),
)
_EXPECTED = (
    ("pearson", "Expected and real Dice, correlation", 1, 2),
    ("spearman", "the same, of ranks", 1, 2),
    ("mae", "Expected minus real Dice, mean size, points", 100, 1),
    ("bias", "Expected minus real Dice, mean, points", 100, 1),
)


def _pair(value: dict[str, Any] | None, factor: float, decimals: int) -> tuple[Cell, Cell]:
    if not value:
        return Cell("–"), Cell("–")
    return number(value["value"], factor, decimals), interval_cell(value.get("interval"), factor, decimals)


def _referral_table(methods: Sequence[Method], known: Sequence[tuple[int, Run]], several: bool) -> Table:
    columns = [Column("Method", None, number=False)] if several else []
    columns += [column("referral", "To a person, %"), Column("Images kept"), Column("Dice of those kept, %")]
    columns += [column("interval"), Column("Dice of those referred, %")]
    rows = []
    for place, run in known:
        head = [Cell(methods[place].name, "", place)] if several else []
        for row in run.summary["confidence"].get("referral") or []:
            cells = (number(row["referred"], 100, 0), number(row["n_kept"], decimals=0), number(row["dice_kept"], 100))
            rows.append(
                (*head, *cells, interval_cell(row.get("interval_kept"), 100), number(row["dice_referred"], 100))
            )
    explain = "The images with the lowest expected Dice go first. Referral pays where those referred are much worse."
    return Table("Sending the least certain images to a person", tuple(columns), tuple(rows), explain)
