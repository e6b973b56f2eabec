"""The pictures of a report: which cases are shown is decided by rank, and every picture is computed anew."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image

from semidg.data.images import resize_image
from semidg.data.index import Index
from semidg.evaluation.confidence import temper
from semidg.evaluation.metrics import boundary, case_metrics
from semidg.evaluation.predict import confidence_map, label_map, predict_batches, to_original
from semidg.evaluation.protocols import PROTOCOLS
from semidg.experiment.bundle import Bundle, load_bundle, to_inference
from semidg.experiment.prepare import Report
from semidg.report.colours import CLASS_COLOURS, TRUTH_COLOUR
from semidg.report.figures import Picture, confidence_image, overlay
from semidg.report.runs import Method, Run
from semidg.report.scored import read_pair, scored_cases, shown_plane
from semidg.types import IGNORE_INDEX, Record

#: Colours of what was marked and is not there, what is there and was not marked, and what got the wrong class.
FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_CLASS = CLASS_COLOURS[0], TRUTH_COLOUR, CLASS_COLOURS[2]

_SIDE = 300  # longest side of a picture in pixels
_QUALITY = 82
_TOLERANCE = 0.01  # a Dice that differs more from cases.csv was made by another model or from other data

Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Panel:
    """One picture: its caption and a data URI."""

    caption: str
    source: str


@dataclass(frozen=True)
class Row:
    """What one method makes of a case."""

    place: int
    name: str
    facts: tuple[tuple[str, str], ...]
    note: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Case:
    """A case of the gallery: why it is shown, input and truth, and a row a method."""

    id: str
    reasons: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    rows: tuple[Row, ...]


def choose(cases: pd.DataFrame, count: int) -> list[tuple[str, list[str]]]:
    """Ids with the reasons they are shown: ``count`` each of the best, median, worst and most over-confident cases.

    By rank of Dice, ties in the order of the id; the most over-confident have the largest expected minus real Dice,
    where the table knows what was expected. A case chosen twice stands once, with both reasons.
    """
    table = cases.sort_values("id", kind="stable").sort_values("dice", ascending=False, kind="stable")
    ids = table["id"].tolist()
    middle = max(0, (len(ids) - count + 1) // 2)
    kinds = {"best": ids[:count], "median": ids[middle : middle + count], "worst": ids[::-1][:count]}
    if "expected_dice" in table.columns:
        promised = (table["expected_dice"] - table["dice"]).to_numpy(float)
        order = np.argsort(-promised, kind="stable")[:count]
        kinds["over-confident"] = [ids[i] for i in order if promised[i] > 0]
    reasons: dict[str, list[str]] = {}
    for kind, chosen in kinds.items():
        for rank, name in enumerate(chosen, 1):
            number = f" {rank}" if len(chosen) > 1 else ""
            reasons.setdefault(name, []).append(
                f"{kind}{number}" if kind != "over-confident" else f"most {kind}{number}"
            )
    return list(reasons.items())


def draw_cases(
    methods: Sequence[Method], count: int, root: Path | None, device: torch.device, report: Report | None = None
) -> list[Case]:
    """The cases chosen on the first method, each with the predictions of the lead run of every method.

    Only the images of those cases are read; of a volume the plane with the largest true area is shown. root: where the
    data are now, by default as in each run's configuration.
    Raises DataError or RunError where data or a model are not there or do not fit.
    """
    chosen = dict(choose(methods[0].lead.cases, count))
    prepared = [scored_cases(method.lead, root) for method in methods]
    found: list[dict[str, Row]] = []
    for place, (method, (index, scored)) in enumerate(zip(methods, prepared, strict=True)):
        shown = {name: shown_plane(method.lead, index, scored[name]) for name in chosen if name in scored}
        found.append(_rows(place, method, index, shown, device))
        if report:
            report("drawing cases", place + 1, len(methods))
    index, scored = prepared[0]
    cases = []
    for name, reasons in chosen.items():
        run = methods[0].lead
        record = shown_plane(run, index, scored[name])
        image, truth = read_pair(run, index, record)
        panels = (_panel("input", _fit(image)), _truth(image, truth, run.config.network.classes))
        case = run.cases.set_index("id").loc[name]
        facts = [(key, str(case[key])) for key in ("domain", "class") if case[key]]
        facts = facts[:1] if len(facts) == 2 and facts[0][1] == facts[1][1] else facts
        if scored[name].is_volume:
            facts.append(("plane", f"{record.frame}, of {len(scored[name].planes)}"))
        rows = tuple(each[name] for each in found if name in each)
        cases.append(Case(name, tuple(reasons), tuple(facts), panels, rows))
    return cases


def error_map(image: Picture, prediction: Labels, truth: Labels) -> Picture:
    """The dimmed grey image with its errors, told apart without colour too: (H, W) or (H, W, C) -> (H, W, 3).

    Orange with rising stripes: marked, but not there. Blue, full: there, but not marked. Purple with level stripes:
    marked as another class. A white line runs round the truth. Ignored pixels are no error.
    """
    grey = image if image.ndim == 2 else image[..., :3].mean(axis=-1)
    result = np.repeat((0.6 * grey)[..., None], 3, axis=2).astype(np.uint8)
    known = truth != IGNORE_INDEX
    foreground = known & (truth > 0)
    rows, columns = np.indices(truth.shape)
    rising, level = (rows + columns) % 6 < 3, rows % 6 < 3
    wrong = foreground & (prediction > 0) & (prediction != truth)
    for errors, colour, stripes in (
        (known & (truth == 0) & (prediction > 0), FALSE_POSITIVE, rising),
        (foreground & (prediction == 0), FALSE_NEGATIVE, np.ones_like(known)),
        (wrong, WRONG_CLASS, level),
    ):
        result[errors & stripes] = colour
        result[errors & ~stripes] = (0.35 * np.array(colour)).astype(np.uint8)
    result[boundary(foreground)] = 255
    return result


def _rows(
    place: int, method: Method, index: Index, shown: Mapping[str, Record], device: torch.device
) -> dict[str, Row]:
    run = method.lead
    bundle = load_bundle(run.model)
    bundle.ensemble.augmentation = run.summary.get("asked_augmentation", bundle.ensemble.augmentation)
    ensemble = to_inference(bundle.ensemble, device)
    images = [read_pair(run, index, record) for record in shown.values()]
    small = (resize_image(image.reshape(*image.shape[:2], -1), bundle.size) for image, _ in images)
    predicted = predict_batches(ensemble.predict, small, run.config.trainer.eval_batch, device)
    temperature = (run.summary.get("confidence") or {}).get("temperature") or 1.0
    rows = {}
    table = run.cases.set_index("id")
    for (name, record), (image, truth), probabilities in zip(shown.items(), images, predicted, strict=True):
        full = to_original(probabilities, *image.shape[:2])
        labels = label_map(full)
        confidence = _fit(confidence_image(confidence_map(temper(full, temperature))))
        panels = (
            _panel("prediction", _outlined(image, truth if len(full) == 2 else np.zeros_like(truth), labels)),
            _panel("confidence", confidence),
            _panel("errors", error_map(_fit(image), _fit_labels(labels), _fit_labels(truth))),
        )
        case = table.loc[name]
        note = _plane_note(case, labels, truth) if record.volume else _note(case, labels, truth, run, bundle)
        rows[name] = Row(place, method.name, tuple(_facts(case, bundle.network.names)), note, panels)
    return rows


def _facts(case: Any, names: Sequence[str]) -> list[tuple[str, str]]:
    facts = [("Dice", f"{100 * case['dice']:.1f} %")]
    by_class = [(name, f"dice_{number}") for number, name in enumerate(names)]
    facts += [(name, f"{100 * case[key]:.1f} %") for name, key in by_class if key in case.index]
    if "expected_dice" in case.index:
        facts.append(("expected", f"{100 * case['expected_dice']:.1f} %"))
    if "hd95" in case.index:
        facts.append(("HD95", f"{case['hd95']:.1f} px"))
    if "lesions_false" in case.index and "lesions_found" in case.index:
        facts.append(("lesions found", f"{case['lesions_found']:.0f} of {case['lesions']:.0f}"))
        facts.append(("false", f"{case['lesions_false']:.0f}"))
    return facts


def _plane_note(case: Any, labels: Labels, truth: Labels) -> str:
    """What a picture of one plane says beside the numbers of the whole volume."""
    if not (labels > 0).any():
        return "Nothing was marked in this plane."
    if not ((truth > 0) & (truth != IGNORE_INDEX)).any():
        return "There is nothing to find in this volume."
    return "What was marked does not touch what is there." if case["dice"] == 0 else ""


def _note(case: Any, labels: Labels, truth: Labels, run: Run, bundle: Bundle) -> str:
    notes = []
    protocol = PROTOCOLS.get(run.summary["protocol"])
    if protocol is None or protocol.scoring == "original":
        dice = case_metrics(labels, truth, bundle.network.classes)["dice"]
        if abs(dice - case["dice"]) > _TOLERANCE:
            notes.append(
                f"The picture has a Dice of {100 * dice:.1f} %, the table {100 * case['dice']:.1f} %: the model or the "
                "data have changed since the run was scored."
            )
    if not (labels > 0).any():
        notes.append("Nothing was marked.")
    if not ((truth > 0) & (truth != IGNORE_INDEX)).any():
        notes.append("There is nothing to find in this image.")
    elif (labels > 0).any() and case["dice"] == 0:
        notes.append("What was marked does not touch what is there.")
    return " ".join(notes)


def _truth(image: Picture, truth: Labels, classes: int) -> Panel:
    """The truth as a line; of several classes filled in their colours, as predictions are."""
    if classes == 2:
        return _panel("truth (line)", _outlined(image, truth))
    return _panel("truth", overlay(_fit(image), np.where((small := _fit_labels(truth)) == IGNORE_INDEX, 0, small)))


def _outlined(image: Picture, truth: Labels, prediction: Labels | None = None) -> Picture:
    small = _fit_labels(truth)
    drawn = np.zeros_like(small) if prediction is None else _fit_labels(prediction)
    return overlay(_fit(image), drawn, small, 2)


def _shape(height: int, width: int) -> tuple[int, int]:
    scale = _SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fit(image: Picture) -> Picture:
    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    return np.asarray(picture.resize(_shape(*image.shape[:2]), Image.Resampling.BICUBIC))


def _fit_labels(labels: Labels) -> Labels:
    size = _shape(*labels.shape)
    return np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _panel(caption: str, picture: Picture) -> Panel:
    buffer = io.BytesIO()
    # full colour resolution: thin lines keep their colour
    Image.fromarray(picture).convert("RGB").save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return Panel(caption, f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}")
