"""The layouts of data sets on disk: recognised by their files, each read by its own module."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from semidg.data import busi, csv_layout, folders, mms, nnunet, patterns, scgm
from semidg.data.frames import Axis, Orientation, in_planes
from semidg.data.paths import Problems
from semidg.data.suggest import suggest_patterns
from semidg.data_config import DataConfig
from semidg.errors import DataError
from semidg.types import Record


class Choices(NamedTuple):
    """What a data set is read with, as in ``data`` of the configuration; a layout looks at what concerns it. patients:
    DICOM headers say which images are of one patient, as no pattern does. excluded: ids that the user leaves out, whose
    files may be bad."""

    include_normal: bool = False
    classes: int = 2
    slice_axis: Axis = "auto"
    all_times: bool = False
    ignore_label: int | None = None
    patients: bool = True
    orientation: Orientation = "stored"
    excluded: frozenset[str] = frozenset()
    images: str | None = None
    masks: str | None = None
    mask_values: str | None = None

    @property
    def stored_classes(self) -> int:
        """How many values mask files may hold: any, where rules say what they mean."""
        return self.classes if self.mask_values is None else 2**16

    @classmethod
    def of(cls, data: DataConfig, classes: int) -> Choices:
        """Those of a configuration."""
        return cls(
            data.include_normal,
            classes,
            data.slice_axis,
            data.all_times,
            data.ignore_label,
            data.groups is None,
            data.orientation,
            images=data.images,
            masks=data.masks,
            mask_values=data.mask_values,
        )


class Layout(NamedTuple):
    """One layout.

    expected: what it looks like, for the error. find_root: the folder that paths start from, or None if the data set
    is in another layout. find_records: records without size, problems noted.
    """

    expected: str
    find_root: Callable[[Path], Path | None]
    find_records: Callable[[Path, Problems, Choices], list[Record]]


#: By name; the first that fits is taken.
LAYOUTS: dict[str, Layout] = {
    "mms": Layout(
        "the folders and the table of the M&Ms challenge",
        mms.find_root,
        lambda root, problems, choices: mms.find_records(
            root,
            problems,
            choices.stored_classes,
            choices.slice_axis,
            choices.all_times,
            choices.orientation,
            choices.excluded,
        ),
    ),
    "nnunet": Layout(
        "dataset.json, imagesTr/ and labelsTr/",
        nnunet.find_root,
        lambda root, problems, choices: nnunet.find_records(
            root, problems, choices.stored_classes, choices.ignore_label, choices.mask_values is not None
        ),
    ),
    "folders": Layout(
        "images/ and masks/, or DOMAIN/images/ and DOMAIN/masks/",
        lambda root: root if folders.domains(root) else None,
        lambda root, problems, _: folders.find_records(root, problems),
    ),
    "busi": Layout(
        "benign/ and malignant/ with 'NAME.png' and 'NAME_mask.png'",
        busi.find_root,
        lambda root, problems, choices: busi.find_records(root, problems, choices.include_normal),
    ),
    "scgm": Layout(
        "'siteN-scMM-image.nii.gz' of the SCGM challenge",
        scgm.find_root,
        lambda root, problems, choices: scgm.find_records(root, problems, choices.stored_classes),
    ),
}


def locate(root: Path, layout: str = "auto", guess: bool = True) -> tuple[Path, str]:
    """The folder that paths start from, and the layout of the data set; raises DataError if it is none we know.

    guess: look at the files below the root for what the error may suggest.
    """
    if layout not in ("auto", "csv", *LAYOUTS):
        raise DataError(f"{layout!r}: unknown layout; set data.layout to auto, csv, {', '.join(LAYOUTS)}")
    if root.is_file() and root.suffix.lower() == ".csv" and layout in ("auto", "csv"):
        return root.parent, "csv"
    if layout == "csv":
        raise DataError(f"{root}: is no table; in the layout csv data.root is a file NAME.csv")
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {state}; set data.root to the root folder of the data set, or to a table NAME.csv")
    wanted = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    try:
        for name, known in wanted.items():
            located = known.find_root(root)
            if located is not None:
                return located, name
        if "folders" in wanted and folders.holds_images(root):  # the last: other layouts may lie beside such folders
            return root, "folders"
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error.strerror}); check its permissions") from error
    usual = sorted(wanted, key=lambda name: name != "folders")
    inner = _below(root) if layout == "auto" and guess else None
    if inner is not None:
        raise DataError(f"{root}: no image found here, but a data set in {inner.name}/; give {inner}")
    found = suggest_patterns(root) if layout == "auto" and guess else None
    if found is not None:
        images, masks = map(shlex.quote, found)
        raise DataError(
            f"{root}: in no layout that is known by itself; its files look like --images {images} --masks {masks} "
            "(of a training: --data.images, --data.masks); docs/how-to/your-own-data.md"
        )
    expected = " or ".join(wanted[name].expected for name in usual)
    if layout != "auto":
        expected += f", as data.layout is {layout}; --data.layout auto recognises the others"
    tables = sorted(path.name for path in root.glob("*.csv"))
    table = f", or give the table: {root / tables[0]}" if tables else ", or a table of the images, NAME.csv"
    pattern = ", or say where they are: --data.images PATTERN" if layout == "auto" else ""
    raise DataError(f"{root}: no image found; expected {expected}{table}{pattern} (docs/how-to/your-own-data.md)")


def _below(root: Path) -> Path | None:
    """The one folder in ``root`` that is a data set, if there is one."""
    found = []
    for child in sorted(root.iterdir())[:100]:
        if child.is_dir() and not child.name.startswith("."):
            try:
                locate(child, guess=False)
            except DataError:
                continue
            found.append(child)
    return found[0] if len(found) == 1 else None


def find_records(root: Path, layout: str, choices: Choices) -> tuple[Path, str, list[Record], Problems]:
    """(folder that paths start from, layout, records without size, problems) of the data set at ``root``.

    ``group`` of a record is what the layout itself says of patients, empty where it says nothing.
    """
    located, name = (root, "patterns") if choices.images is not None else locate(root, layout)
    if not located.is_dir():
        raise DataError(f"{root}: is no folder; with data.images, data.root is the folder that the patterns start from")
    problems = Problems(located if name != "csv" else root)
    if name == "csv":
        records = csv_layout.find_records(root, problems)
    elif choices.images is not None:
        records = patterns.find_records(root, choices.images, choices.masks, problems)
    else:
        records = LAYOUTS[name].find_records(located, problems, choices)
    how = (choices.slice_axis, choices.orientation, choices.patients, choices.excluded)
    found = in_planes(located, records, problems, *how)
    if choices.mask_values is not None:
        found = [replace(record, mask_values=choices.mask_values, ignore=None) for record in found]
    elif choices.ignore_label is not None:  # where a table gives rules, they say it
        found = [record if record.mask_values else replace(record, ignore=choices.ignore_label) for record in found]
    return located, name, found, problems
