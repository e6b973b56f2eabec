"""The nnU-Net raw layout: ``imagesTr/CASE_0000.ext``, ``labelsTr/CASE.ext`` and ``dataset.json``.

A case without a label is unlabelled; ``imagesTs`` is not read, as nnU-Net does not read it. One file an image: further
channels (``_0001``) are refused. The domain of all images is the name of the folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from semidg.data.images import is_image_name
from semidg.data.paths import Problems, list_images, printable, require_classes
from semidg.errors import DataError
from semidg.types import Record

_CASE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL | re.ASCII)
_LARGEST = 254  # class number; 255 is the pixel that does not count


class _Description(NamedTuple):
    ending: str
    classes: dict[int, str]


def find_root(folder: Path) -> Path | None:
    """``folder`` if it holds ``dataset.json`` and ``imagesTr``."""
    return folder if (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir() else None


def find_records(
    root: Path, problems: Problems, classes: int, ignore_label: int | None = None, ruled: bool = False
) -> list[Record]:
    """Records without size and group, in natural order; files that do not fit go to ``problems``.

    Raises DataError for a dataset.json that does not describe such a data set, more classes than ``classes``, or a
    label ``ignore`` that is not ``ignore_label``; not where data.mask_values say what values mean (``ruled``).
    """
    described = _read(root / "dataset.json", ignore_label, ruled)
    names = ", ".join(described.classes[number] for number in sorted(described.classes))
    require_classes(root, max(described.classes) + 1, classes, names)
    labels: dict[str, str] = {}
    if (root / "labelsTr").is_dir():
        for path in list_images(root, root / "labelsTr", problems):
            case = _case(path, described.ending)
            if case is None:
                problems.add("file that cannot be used", f"{path}: is not called CASE{described.ending}")
            else:
                labels[case] = path
    domain = root.resolve().name or "nnunet"
    records: list[Record] = []
    further: list[str] = []
    for path in list_images(root, root / "imagesTr", problems):
        match = _CASE.fullmatch(_case(path, described.ending) or "")
        if match is None:
            problems.add("file that cannot be used", f"{path}: is not called CASE_0000{described.ending}")
        elif int(match["channel"]):
            further.append(path)
        else:
            mask = labels.pop(match["case"], None)
            records.append(Record(match["case"], path, (mask,) if mask else (), domain, "", "", 0, 0))
    if further:
        raise DataError(
            f"{root}: {len(further)} files of further channels, such as {printable(further[0])}; one file an image is "
            "read (grey or RGB): keep _0000 alone in imagesTr, or give each channel a data set of its own"
        )
    for path in labels.values():
        problems.add("mask without image", path)
    return records


def _case(path: str, ending: str) -> str | None:
    name = path.rpartition("/")[2]
    return name[: -len(ending)] if name.endswith(ending) and len(name) > len(ending) else None


def _read(path: Path, ignore_label: int | None, ruled: bool) -> _Description:
    try:
        values = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); correct it") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds no description of a data set; see the documentation of nnU-Net")
    if "dataset" in values:
        raise DataError(f"{path}: lists its files under 'dataset', which is not read; copy them to imagesTr, labelsTr")
    ending = values.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith(".") or not is_image_name(f"x{ending}"):
        raise DataError(f"{path}: file_ending {ending!r} is no format that is read; convert the files, to .nii.gz say")
    return _Description(ending, _classes(path, values.get("labels"), ignore_label, ruled))


def _classes(path: Path, labels: Any, ignore_label: int | None, ruled: bool) -> dict[int, str]:
    """Class number -> name; of regions, which hold several numbers, the name of the first one that holds it."""
    wanted = f'{path}: labels must be names with their numbers, such as {{"background": 0, "lesion": 1}}'
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{wanted}; correct it")
    if all(isinstance(value, str) for value in labels.values()):  # version 1: number -> name
        labels = {name: number for number, name in labels.items()}
    found: dict[int, str] = {}
    for name, value in labels.items():
        if name.strip().lower() == "ignore":
            if value == ignore_label or ruled:
                continue
            raise DataError(f"{path}: the label {name!r} marks pixels that do not count; set data.ignore_label {value}")
        for number in value if isinstance(value, list) else [value]:
            try:
                known = int(number) if isinstance(number, int | str) and not isinstance(number, bool) else -1
            except ValueError:
                known = -1
            if not 0 <= known <= _LARGEST:
                raise DataError(f"{wanted}, from 0 to {_LARGEST}; {printable(str(name))} is {number!r}")
            found.setdefault(known, printable(str(name)))
    if not found:
        raise DataError(f"{wanted}; correct it")
    return found
