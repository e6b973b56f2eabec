"""What an audit can find, and issues.csv, the list of it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from semidg.data.paths import printable
from semidg.files import atomic_path

Severity = Literal["error", "warning", "note"]

#: From bad to good: training stops at an error, a warning makes its numbers wrong, a note is good to know.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

#: A rectangle of an image in pixels: left, top, width, height.
Box = tuple[int, int, int, int]


class Kind(NamedTuple):
    """One kind of finding: how bad it is, what it is and what to do, and what the value of an issue is."""

    severity: Severity
    meaning: str
    value: str = ""
    worst: Literal["low", "high"] = "high"


#: Every kind, the worst first: the order of issues.csv and of the page.
KINDS: dict[str, Kind] = {
    "file that cannot be used": Kind(
        "error", "Missing, empty, damaged or of an unknown format. Training refuses it: replace or remove the file."
    ),
    "mask with other values": Kind(
        "error",
        "A mask holds background and one other value (or class numbers). Grey values come from JPEG or from resizing "
        "with interpolation: threshold it and save it as PNG.",
    ),
    "size of image and mask differ": Kind("error", "A mask lies on its image only if the two have one size."),
    "series that is no volume": Kind(
        "error",
        "The DICOM files of one series in a folder do not make a volume: one is missing, doubled or of another size.",
    ),
    "mask without a known pixel": Kind(
        "error",
        "All pixels have a value to ignore (data.ignore_label, data.mask_values): nothing to learn from, or to score.",
    ),
    "row that cannot be used": Kind("error", "A table of the data set names something that is not there, or not so."),
    "mask without image": Kind("error", "The image is missing, or one of the two names is wrong."),
    "name that is not unique": Kind("error", "Two files claim one name: rename or remove one of them."),
    "path that is not accepted": Kind("error", "Data are read from plain files below the root, with UTF-8 names."),
    "twins of different classes": Kind(
        "warning",
        "Two images that look the same, with two classes: at least one of the labels is wrong. Ask who knows the "
        "patient, or leave both out.",
        "correlation of the two images",
    ),
    "twins across the split": Kind(
        "warning",
        "Two images that look the same in two of training, validation and test part: the score is too good. Make the "
        "split by groups (`semidg split`).",
        "correlation of the two images",
    ),
    "twins of different domains": Kind(
        "warning",
        "Two images that look the same in two domains: with one of the domains held out, the test has been seen. A "
        "split with a target leaves such images out.",
        "correlation of the two images",
    ),
    "twins with different masks": Kind(
        "warning",
        "Two images that look the same, with masks that do not agree: at least one of them is drawn carelessly, or the "
        "images differ where it matters.",
        "Dice of the two masks",
        "low",
    ),
    "mask placed elsewhere": Kind(
        "warning",
        "Image and mask have the same voxels, but their headers place them apart: the mask is of another image, or was "
        "saved without the affine of its image.",
        "mm between their middles",
    ),
    "mask unlike its prediction": Kind(
        "warning",
        "Networks that did not learn this mask expect another one. Look at both: either the mask is wrong, or the "
        "image is hard.",
        "agreement of mask and prediction, 0 to 1",
        "low",
    ),
    "empty mask": Kind(
        "warning", "Nothing is marked, while most images of its class have a lesion. Is it really without one?"
    ),
    "mask that is not empty": Kind(
        "warning", "A lesion is marked, while most images of its class have none.", "marked part of the image"
    ),
    "mask files that overlap": Kind(
        "warning",
        "Several mask files of one image mark the same pixels. They are united; if they are copies or two opinions of "
        "one lesion, keep one.",
        "pixels marked twice, as a part of those marked",
    ),
    "specks": Kind(
        "warning",
        "Tiny regions beside a large one, mostly a slip of the pen. They count as lesions of their own.",
        "number of specks",
    ),
    "calliper at the lesion": Kind(
        "warning",
        "A burnt-in cross of a measurement near the border of the mask. A network learns to find the cross in place of "
        "the lesion.",
        "number of crosses",
    ),
    "colour at the lesion": Kind(
        "warning",
        "Coloured pixels near the border of the mask, in a grey image: a coloured marker, or colour Doppler.",
        "number of coloured pixels",
    ),
    "text at the lesion": Kind(
        "warning",
        "Burnt-in letters on the mask or near its border. A network may learn the letters in place of the lesion.",
        "number of letters",
    ),
    "holes": Kind(
        "note", "Background enclosed by the mask: meant, or forgotten to be filled.", "holes as a part of the mask"
    ),
    "mask at the border": Kind(
        "note", "The mask touches the frame of the image: its size and outline are not known whole.", "pixels on it"
    ),
    "several mask files": Kind("note", "Their union is the mask.", "number of files"),
    "text in the image": Kind(
        "note",
        "Burnt-in letters away from the mask: a caption, a measurement, the name of the scanner. A network may learn "
        "what they say, and they may name a person.",
        "number of letters",
    ),
    "near-duplicate": Kind(
        "note",
        "Two images that look the same. Splits keep them on one side; they count as one piece of evidence.",
        "correlation of the two images",
    ),
}

#: Columns of issues.csv. ``exclude`` is empty: the user writes into it what is to be left out.
COLUMNS = ("id", "file", "kind", "severity", "value", "other", "box", "explanation", "exclude")


@dataclass(frozen=True)
class Issue:
    """One finding.

    id: of the record, empty for a file that belongs to none. file: relative to the root of the data set. kind: a key
    of KINDS, which says what ``value`` is. other: id of the twin, else empty. box: where in the image, if that says
    more than the mask does.
    """

    id: str
    file: str
    kind: str
    explanation: str
    value: float | None = None
    other: str = ""
    box: Box | None = None

    @property
    def severity(self) -> Severity:
        """``error``, ``warning`` or ``note``."""
        return KINDS[self.kind].severity


def ranked(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """In the order of KINDS, the worst of a kind first."""
    order = {kind: place for place, kind in enumerate(KINDS)}

    def key(issue: Issue) -> tuple[int, float, str, str]:
        value = issue.value or 0.0
        return order[issue.kind], value if KINDS[issue.kind].worst == "low" else -value, issue.id, issue.file

    return tuple(sorted(issues, key=key))


def counts(issues: Iterable[Issue]) -> dict[str, int]:
    """Number of issues of each kind that was found, the worst kind first."""
    found = Counter(issue.kind for issue in issues)
    return {kind: found[kind] for kind in KINDS if found[kind]}


def cells(issue: Issue) -> tuple[str, ...]:
    """The row of issues.csv, in the order of COLUMNS."""
    value = "" if issue.value is None else f"{issue.value:.6g}"
    box = "" if issue.box is None else " ".join(map(str, issue.box))
    file, explanation = printable(issue.file), printable(issue.explanation)
    return issue.id, file, issue.kind, issue.severity, value, issue.other, box, explanation, ""


def write_issues(issues: Sequence[Issue], path: Path) -> None:
    """Write issues.csv (UTF-8, docs/reference/data-formats.md), complete or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(cells(issue) for issue in issues)
