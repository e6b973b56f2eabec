"""The audit of a data set: all checks, in one pass over its files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from semidg.data.groups import pattern_groups
from semidg.data.index import Index, in_groups
from semidg.data.layouts import Choices
from semidg.data.lists import PARTS
from semidg.data.paths import Problems, cpu_threads
from semidg.data.reading import by_file
from semidg.data.roots import find
from semidg.data.styles import file_means, find_styles
from semidg.data_config import DataConfig
from semidg.errors import ConfigError, SplitError
from semidg.experiment.audit.cases import Case, Labels, look_at_file
from semidg.experiment.audit.domains import Domains, describe_domains
from semidg.experiment.audit.issues import Issue, ranked
from semidg.experiment.audit.twins import find_twins


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
    data: DataConfig,
    classes: int = 2,
    *,
    split: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look at every file of the data set that a configuration names and list all that is wrong with it.

    Files that cannot be used are issues, not errors; of what can be used the records and groups are those of
    ``index_data``. split: a folder of split lists, for twins across its parts. Raises ConfigError without a data set,
    DataError if there is none at its root, SplitError if there are no lists.
    """
    if data.root is None:
        raise ConfigError("data.root is not set; say where the data set is")
    parts = {} if split is None else _read_parts(split)
    found = find(data.root, data.layout, Choices.of(data, classes), data.more_roots)
    groups, domains, similarity = data.groups, data.domains, data.split.similarity
    patients = pattern_groups(found.records, groups) if groups is not None else [None] * len(found.records)
    issues = list(_file_issues(found.problems))
    told: set[tuple[str, str, str]] = set()
    cases: list[Case] = []
    relations: list[tuple[Hashable | None, ...]] = []
    styled = domains != "layout"
    with ThreadPoolExecutor(cpu_threads()) as pool:
        files = pool.map(lambda unit: look_at_file(found.root, unit, classes, styled), by_file(found.records))
        together = zip(found.records, chain.from_iterable(files), patients, found.named, strict=True)
        for done, (record, (case, own), patient, named) in enumerate(together, start=1):
            issues += [issue for issue in own if _is_new(issue, told)]
            if case is not None:
                cases.append(case)
                relations.append((record.group or None, patient, named))
            if progress is not None:
                progress(done, len(found.records))
    if styled and cases:
        cases = _in_styles(cases, int(domains.partition(":")[2]))
    twins, contradictions = find_twins(cases, similarity, parts)
    issues += [*contradictions, *_emptiness(cases)]
    usable = in_groups([case.record for case in cases], [twins.tolist(), *zip(*relations, strict=True)])
    return Audit(
        Index(found.root, found.layout, tuple(usable)),
        len(found.records),
        ranked(issues),
        {case.record.id: case for case in cases},
        describe_domains(cases),
        similarity,
    )


def _in_styles(cases: Sequence[Case], count: int) -> list[Case]:
    """The cases with derived styles for domains, as ``build_index`` has them."""
    features = np.stack([case.features for case in cases if case.features is not None])
    styles = find_styles(file_means([case.record for case in cases], features), count).tolist()
    return [
        replace(case, record=replace(case.record, domain=f"style-{k + 1}"))
        for case, k in zip(cases, styles, strict=True)
    ]


def _is_new(issue: Issue, told: set[tuple[str, str, str]]) -> bool:
    """Whether an error has not been told before: that of a file with many planes comes once a plane."""
    key = (issue.kind, issue.file, issue.explanation)
    if issue.severity == "error" and key in told:
        return False
    told.add(key)
    return True


def _file_issues(problems: Problems) -> Iterator[Issue]:
    """What the listing of the files came upon."""
    for kind, file, line in problems.told():
        yield Issue("", file, kind, line)


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
    """Image, as lists name it -> part; the lists may be as wrong as the data. SplitError if there are none."""
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
