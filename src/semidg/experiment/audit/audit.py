"""The audit of a data set: all checks, in one pass over its files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from semidg.data import busi, folders
from semidg.data.index import Index, locate
from semidg.data.lists import PARTS
from semidg.data.paths import Problems, cpu_threads
from semidg.errors import SplitError
from semidg.experiment.audit.cases import Case, Labels, look
from semidg.experiment.audit.domains import Domains, describe_domains
from semidg.experiment.audit.issues import Issue, ranked
from semidg.experiment.audit.twins import find_twins
from semidg.types import Record


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    index: the records that can be used, grouped. images: the number of all. issues: the worst first. cases: what is
    kept of each usable record, by id. predicted: what networks expect of a mask, (S, S) class numbers, of the records
    with the issue "mask unlike its prediction".
    """

    index: Index
    images: int
    issues: tuple[Issue, ...]
    cases: dict[str, Case]
    domains: Domains
    similarity: float
    predicted: dict[str, Labels] = field(default_factory=dict)


def audit(
    root: Path,
    layout: str = "auto",
    *,
    classes: int = 2,
    similarity: float = 0.95,
    split: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look at every file of the data set at ``root``, BUSI with its normal class, and list all that is wrong.

    Files that cannot be used are issues, not errors. classes: how many values a mask may hold. similarity: correlation
    above which two images are twins. split: a folder of split lists, for twins across its parts. progress: called with
    (images done, all). Raises DataError if there is no data set at ``root``, SplitError if there are no lists.
    """
    parts = {} if split is None else _read_parts(split)
    located, found, records, problems = _find(Path(root), layout)
    issues = list(_file_issues(problems))
    cases: list[Case] = []
    with ThreadPoolExecutor(cpu_threads()) as pool:
        looks = pool.map(lambda record: look(located, record, classes), records)
        for done, (case, own) in enumerate(looks, start=1):
            issues += own
            if case is not None:
                cases.append(case)
            if progress is not None:
                progress(done, len(records))
    groups, twins = find_twins(cases, similarity, parts)
    issues += [*twins, *_emptiness(cases)]
    first: dict[int, str] = {}
    for case, group in zip(cases, groups.tolist(), strict=True):
        first.setdefault(group, case.record.id)
    usable = (replace(case.record, group=first[group]) for case, group in zip(cases, groups.tolist(), strict=True))
    return Audit(
        Index(located, found, tuple(usable)),
        len(records),
        ranked(issues),
        {case.record.id: case for case in cases},
        describe_domains(cases),
        similarity,
    )


def _find(root: Path, layout: str) -> tuple[Path, str, list[Record], Problems]:
    located, found = locate(root, layout)
    problems = Problems(located)
    if found == "busi":
        return located, found, busi.find_records(located, problems, include_normal=True), problems
    return located, found, folders.find_records(located, problems), problems


def _file_issues(problems: Problems) -> Iterator[Issue]:
    """What the listing of the files came upon."""
    for line in problems.lines():
        kind, _, text = line.partition(": ")
        yield Issue("", text.partition(": ")[0].partition(" and ")[0], kind, text)


def _emptiness(cases: Sequence[Case]) -> Iterator[Issue]:
    """Empty masks of classes of which most masks are not empty, and the reverse. Slices of volumes are passed over."""
    by_class: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.mask is not None and case.record.volume is None:
            by_class[case.record.class_name].append(case)
    for name, own in by_class.items():
        marked = sum(case.area > 0 for case in own)
        usual = 2 * marked >= len(own)
        whose = f"of class {name}" if name else "with a mask"
        for case in own:
            if (case.area > 0) != usual:
                kind = "empty mask" if usual else "mask that is not empty"
                text = f"{marked} of the {len(own)} images {whose} have a lesion"
                yield Issue(case.record.id, case.record.masks[0], kind, text, case.area or None)


def _read_parts(folder: Path) -> dict[str, str]:
    """Image file -> part, of lists that may be as wrong as the data; raises SplitError if there are none."""
    parts: dict[str, str] = {}
    for part in PARTS:
        path = folder / f"{part}.txt"
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise SplitError(f"{path}: cannot be read as UTF-8 text ({error})") from error
        parts |= {line.partition("\t")[0]: part for line in lines if line}
    if not parts:
        raise SplitError(
            f"{folder}: no split lists in it; give the folder that `semidg split` or a run wrote (RUN/split)"
        )
    return parts
