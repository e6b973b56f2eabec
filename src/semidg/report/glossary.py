"""Names, units and one-line definitions of everything a report shows."""

from __future__ import annotations

from typing import NamedTuple

from semidg.evaluation.metrics import BOUNDARY_F1_TOLERANCE, NSD_TOLERANCE, NSD_TOLERANCE_MM
from semidg.evaluation.statistics import LARGE_FROM, SMALL_BELOW


class Term(NamedTuple):
    """How a quantity is written: its name, its unit, the factor from the file to that unit, and what it means."""

    name: str
    unit: str
    factor: float
    meaning: str

    @property
    def heading(self) -> str:
        """Name and unit, for a table or an axis."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


_OVERLAP = "Both masks empty: 100 %; only one of them empty: 0 %."
_DISTANCE = "Both masks empty: 0; only one of them empty: the diagonal of the image."
_EDGE = "from the border of one mask to that of the other"

#: The metrics of a case by their name in cases.csv.
METRIC_TERMS: dict[str, Term] = {
    "dice": Term("Dice", "%", 100, f"Twice the common area over the sum of both areas; 100 % is agreement. {_OVERLAP}"),
    "iou": Term("IoU", "%", 100, f"Common area over united area; never above Dice. {_OVERLAP}"),
    "precision": Term("Precision", "%", 100, f"Share of what was marked that is there. {_OVERLAP}"),
    "sensitivity": Term("Sensitivity", "%", 100, f"Share of what is there that was marked. {_OVERLAP}"),
    "specificity": Term(
        "Specificity",
        "%",
        100,
        "Share of the background left unmarked; cannot see a missed lesion. No background: 100 %.",
    ),
    "area_error": Term(
        "Area error",
        "%",
        100,
        "Difference of both areas over the larger. Both masks empty: 0 %; only one empty: 100 %.",
    ),
    "hd": Term("HD", "px", 1, f"Largest distance {_EDGE} (Hausdorff), in pixels. {_DISTANCE}"),
    "hd95": Term("HD95", "px", 1, f"The same without the farthest 5 % of border pixels. {_DISTANCE}"),
    "assd": Term("ASSD", "px", 1, f"Mean distance {_EDGE}. {_DISTANCE}"),
    "nsd": Term("NSD", "%", 100, f"Share of both borders within {NSD_TOLERANCE:g} pixels of the other. {_OVERLAP}"),
    "boundary_f1": Term(
        "Boundary F1",
        "%",
        100,
        "Precision and sensitivity of the border pixels together, right within "
        f"{100 * BOUNDARY_F1_TOLERANCE:g} % of the "
        f"image's diagonal. {_OVERLAP}",
    ),
    "hd_mm": Term("HD", "mm", 1, f"HD in millimetres. {_DISTANCE}"),
    "hd95_mm": Term("HD95", "mm", 1, f"HD95 in millimetres. {_DISTANCE}"),
    "assd_mm": Term("ASSD", "mm", 1, f"ASSD in millimetres. {_DISTANCE}"),
    "nsd_mm": Term("NSD, mm", "%", 100, f"NSD with a tolerance of {NSD_TOLERANCE_MM:g} mm. {_OVERLAP}"),
}

#: Everything else that a heading or a sentence links to.
OTHER_TERMS: dict[str, Term] = {
    "interval": Term(
        "95 % interval",
        "",
        1,
        "Where the mean would fall for 95 % of the test sets drawn from the same source: whole groups are drawn again, "
        "2,000 times. It knows nothing of another training, another labelled draw or another hospital. "
        "None for one group.",
    ),
    "group": Term(
        "Group", "", 1, "Images that are not independent: near-duplicates, slices of one patient. Resampled as one."
    ),
    "size": Term(
        "Size",
        "",
        1,
        f"By true area: none 0, small below {100 * SMALL_BELOW:g} %, medium up to {100 * LARGE_FROM:g} %, "
        "large from there, of the image.",
    ),
    "lesion": Term(
        "Lesion found, missed, false",
        "",
        1,
        "A lesion is a connected region of the truth. A marked region that matches no lesion is false. "
        "Lesion sensitivity is "
        "found over all, lesion precision found over found and false; neither exists where there is "
        "nothing to divide by.",
    ),
    "holm": Term(
        "p, Holm", "", 1, "Wilcoxon's signed-rank test on groups, adjusted for the number of comparisons shown."
    ),
    "detectable": Term(
        "Detectable difference",
        "",
        1,
        "The true difference that this test set would show in 80 % of tries (test at 5 %).",
    ),
    "expected": Term(
        "Expected Dice",
        "%",
        100,
        "The Dice the model expects of its own mask, without seeing the truth. An image in which it "
        "marks nothing has one too.",
    ),
    "ece": Term(
        "ECE", "%", 100, "Mean gap between stated confidence and share of right pixels, over bins of confidence."
    ),
    "boundary_ece": Term("Boundary ECE", "%", 100, "ECE of the pixels near a border, where mistakes are made."),
    "brier": Term("Brier", "", 1, "Mean squared distance of the probabilities from the truth; 0 is perfect."),
    "temperature": Term(
        "Temperature", "", 1, "One number that softens (above 1) or sharpens all probabilities; it changes no mask."
    ),
    "referral": Term("Referral", "", 1, "Images in which the model expects the lowest Dice go to a person."),
    "protocol": Term("Protocol", "", 1, "Which images are scored, how, and what chose the checkpoint."),
}


def term(name: str) -> Term:
    """The term of a metric or another quantity; a name of its own where it is not known."""
    return METRIC_TERMS.get(name) or OTHER_TERMS.get(name) or Term(name, "", 1, "")
