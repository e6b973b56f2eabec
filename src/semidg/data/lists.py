"""A split as text lists, one a part, and split.json with its counts and checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semidg.data.paths import printable, resolve_inside
from semidg.data.split_checks import refuse_divided_groups, refuse_target
from semidg.errors import DataError, SplitError
from semidg.types import Record

#: The parts of a split, in the order of their lists.
PARTS = ("labelled", "unlabelled", "validation", "test")

_FORMAT = "semidg-split"
_VERSION = 1
_FILES = frozenset({*(f"{part}.txt" for part in PARTS), "split.json", "index.csv"})  # what may be replaced


@dataclass(frozen=True)
class Split:
    """The four parts, each sorted by id, and what split.json says of them (docs/reference/splits.md)."""

    labelled: tuple[Record, ...]
    unlabelled: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> dict[str, tuple[Record, ...]]:
        """The four parts by name."""
        return {name: getattr(self, name) for name in PARTS}


def count_parts(split: Split) -> dict[str, dict[str, Any]]:
    """For each part the number of images and groups, and of images by domain and by class."""
    return {
        name: {
            "images": len(records),
            "groups": len({record.group for record in records}),
            "domains": dict(sorted(Counter(record.domain for record in records).items())),
            "classes": dict(sorted(Counter(record.class_name for record in records).items())),
        }
        for name, records in split.parts().items()
    }


def count_twins(split: Split) -> dict[str, int]:
    """How many images of the validation and of the test part share a group with a training image."""
    training = {record.group for record in (*split.labelled, *split.unlabelled)}
    return {name: sum(r.group in training for r in split.parts()[name]) for name in ("validation", "test")}


def write_split(split: Split, root: Path, folder: Path) -> None:
    """Write labelled.txt, unlabelled.txt, validation.txt, test.txt and split.json; the whole folder or nothing.

    A line is ``image<TAB>mask[<TAB>mask...]``, POSIX paths relative to ``root``; an image without a mask stands alone.
    A plane of a file is ``image#FRAME`` (``scan.nii.gz#z17``), its masks are the files that hold theirs.
    A folder that holds an older split (and its index.csv) and nothing else is replaced. Raises SplitError on a name
    with a tab or a line break, a path that leaves the root, a folder with other files, and a full disk.
    """
    folder = Path(folder)
    texts = {f"{name}.txt": _list_text(records, root) for name, records in split.parts().items()}
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        **split.meta,
        "sha256": {name: _digest(text) for name, text in texts.items()},
        "ids_sha256": _ids_digest(split),
    }
    texts["split.json"] = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
    temporary: Path | None = None
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        new = temporary / "new"
        new.mkdir()
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8", newline="")
        if folder.exists():
            folder.replace(temporary / "old")
        new.replace(folder)
    except OSError as error:
        if temporary is not None and (temporary / "old").exists() and not folder.exists():
            (temporary / "old").replace(folder)
        raise SplitError(f"{folder}: cannot be written ({error.strerror}); free space or choose another") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read_split(folder: Path, records: Sequence[Record], root: Path, target: str | None = None) -> Split:
    """Read a split and check it against the data; raises SplitError with the list, the line and the mend.

    target: the domain held out, as in data.split.target; default: that of split.json. See ``refuse_target``.

    Refused: a list that was changed after it was made, an image or mask that the data does not have, an image in two
    parts, a group in training and evaluation or in two evaluation parts (unless the protocol is ``random`` or
    ``published``), a training or evaluation image without a mask outside unlabelled.txt, a path that leaves the root.
    Lists without split.json are taken as grouped and their checksums not compared; of those, only labelled.txt must
    exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SplitError(f"{folder}: no folder of split lists; make one with `semidg split`")
    meta = _read_meta(folder)
    by_image = {_name(record): record for record in records}
    parts: dict[str, tuple[Record, ...]] = {}
    owner: dict[str, str] = {}
    for part in PARTS:
        found: list[Record] = []
        for number, line in enumerate(_read_lines(folder / f"{part}.txt", meta, part), start=1):
            if not line:
                continue
            where = f"{folder / part}.txt, line {number}"
            record = _match(line, by_image, root, where, masks_needed=part != "unlabelled")
            if record.id in owner:
                raise SplitError(
                    f"{where}: {printable(_name(record))} already stands in {owner[record.id]}.txt; "
                    "an image belongs to one part, remove one of the lines"
                )
            owner[record.id] = part
            found.append(record)
        parts[part] = tuple(sorted(found, key=lambda record: record.id))
    if not parts["labelled"]:
        raise SplitError(f"{folder / 'labelled.txt'}: no image in it; training needs labelled images")
    split = Split(**parts, meta=meta)
    if "ids_sha256" in meta and meta["ids_sha256"] != _ids_digest(split):
        raise SplitError(f"{folder}: the ids of the images are not those of split.json; index the same data set again")
    held_out = meta.get("target") or target
    if target not in (None, held_out):
        raise SplitError(f"{folder}: its lists hold out {held_out!r}, data.split.target is {target!r}; set it so")
    if held_out is not None and not meta.get("oracle"):
        refuse_target(split.parts(), records, held_out, str(folder))
    if meta.get("protocol") not in ("random", "published"):
        refuse_divided_groups(split.parts(), str(folder))
    return split


def _list_text(records: Sequence[Record], root: Path) -> str:
    lines = []
    for record in records:
        for path in (record.image, *record.masks):
            if any(character in path for character in "\t\n\r"):
                raise SplitError(
                    f"{printable(path)}: a name with a tab or line break cannot stand in a list; rename it"
                )
            try:
                resolve_inside(root, path)
            except DataError as error:
                raise SplitError(str(error)) from error
        lines.append("\t".join((_name(record), *record.masks)) + "\n")
    return "".join(lines)


def _name(record: Record) -> str:
    """How a list calls an image."""
    return record.image if record.frame is None or record.series else f"{record.image}#{record.frame}"


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and _FILES.issuperset(path.name for path in folder.iterdir())):
        raise SplitError(f"{folder}: exists and holds other files than a split; choose another folder")


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "split.json"
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SplitError(f"{path}: cannot be read as JSON ({error}); make the split again or remove it") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("sha256", {}), dict):
        raise SplitError(f"{path}: is not a description of a split; make the split again or remove it")
    if meta.get("format", _FORMAT) != _FORMAT or meta.get("version", _VERSION) != _VERSION:
        raise SplitError(f"{path}: of another format or version than {_FORMAT} {_VERSION}; make the split again")
    if not isinstance(meta.get("target"), str | None):
        raise SplitError(f"{path}: its target is no name of a domain; make the split again or remove it")
    return meta


def _read_lines(path: Path, meta: dict[str, Any], part: str) -> list[str]:
    if not path.exists() and not meta.get("sha256") and part != "labelled":
        return []
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SplitError(f"{path}: the list is missing; make the split again with `semidg split`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    expected = meta.get("sha256", {}).get(path.name)
    if expected is not None and expected != hashlib.sha256(data).hexdigest():
        raise SplitError(
            f"{path}: was changed after the split was made (its checksum is not that of split.json); restore it, "
            "make the split again, or remove split.json to use the lists as your own"
        )
    return text.replace("\r\n", "\n").split("\n")


def _match(line: str, by_image: dict[str, Record], root: Path, where: str, masks_needed: bool) -> Record:
    image, *masks = line.split("\t")
    for path in (image, *masks):
        try:
            resolve_inside(root, path)
        except DataError as error:
            raise SplitError(f"{where}: {error}") from error
    record = by_image.get(image)
    if record is None:
        raise SplitError(f"{where}: {printable(image)} is not an image of the data set {root}; correct or remove it")
    if set(masks) != set(record.masks) and (masks or masks_needed):
        has = ", ".join(printable(mask) for mask in record.masks) or "none"
        raise SplitError(f"{where}: the mask files of {printable(image)} in the data are: {has}; write the same here")
    if masks_needed and not masks:
        raise SplitError(f"{where}: {printable(image)} has no mask; move the line to unlabelled.txt or add the mask")
    return record


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _ids_digest(split: Split) -> str:
    return _digest("\n".join(sorted(record.id for records in split.parts().values() for record in records)))
