"""docs/results/performance.json, and the tables of docs/performance.md, which are made from it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from semidg.errors import DataError
from semidg.files import write_text

#: What one run of a benchmark gave: its figures, and on what.
Entry = dict[str, Any]
NOT_YET = "Not measured yet."


def to_json(value: Any) -> Any:
    """Figures and what they hold as JSON, numbers with five significant digits."""
    if isinstance(value, Figure):
        return to_json(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def read(path: Path) -> dict[str, list[Entry]]:
    """The entries by benchmark, one a processor, none where there is no file; raises DataError for another kind of
    file."""
    try:
        found = json.loads(path.read_text("utf-8"))
        for entry in chain.from_iterable(found.values()):
            for one in entry["figures"]:
                Figure(**one)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"{path}: holds no results of benchmarks ({error}); choose another --out") from error
    return dict(found)


def merge(path: Path, name: str, entry: Entry) -> None:
    """Put the entry of one benchmark in the place of its old one on the same processor; the others stay as they are."""
    found = read(path)
    others = [old for old in found.get(name, []) if old["processor"] != entry["processor"]]
    found[name] = sorted([*others, entry], key=lambda one: str(one["processor"]))
    write_text(path, json.dumps(found, indent=1, sort_keys=True) + "\n")


def render(page: str, entries: Mapping[str, Sequence[Entry]]) -> str:
    """A page with the tables of each benchmark, one a processor, between its markers, ``<!-- NAME -->`` and
    ``<!-- end of NAME -->``.

    Raises DataError for an entry without a place.
    """
    for name in entries:
        if f"<!-- {name} -->" not in page:
            raise DataError(
                f"the page has no place for {name}; add the lines <!-- {name} --> and <!-- end of {name} -->"
            )

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        text = "\n\n".join(map(table, entries[name])) if name in entries else NOT_YET
        return f"<!-- {name} -->\n\n{text}\n\n<!-- end of {name} -->"

    return re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- end of \1 -->", filled, page, flags=re.DOTALL)


def table(entry: Entry) -> str:
    """The figures in Markdown, and under them what they were measured on. Figures that are all called ``row: column``
    stand in a table of such rows and columns."""
    figures = [Figure(**one) for one in entry["figures"]]
    lines = _crossed(figures) if all(": " in f.name for f in figures) else _listed(figures)
    return "\n".join([*lines, "", about(entry)])


def _listed(figures: Sequence[Figure]) -> list[str]:
    rows = [(f.name, value(f), target(f), verdict(f)) for f in figures]
    return _markdown(("figure", "median (quartiles)", "target", ""), rows)


def _crossed(figures: Sequence[Figure]) -> list[str]:
    places = {tuple(f.name.split(": ", 1)): f for f in figures}
    rows, columns = (list(dict.fromkeys(place[k] for place in places)) for k in (0, 1))
    cells = [[row, *(_cell(places.get((row, column))) for column in columns)] for row in rows]
    return _markdown(("", *columns), cells)


def _cell(found: Figure | None) -> str:
    if found is None:
        return ""
    return value(found) if found.target is None else f"{value(found)}; {target(found)}: {verdict(found)}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def value(found: Figure) -> str:
    """Median and quartiles in words: ``1.083 (1.071 to 1.102)``, and the unit if there is one."""
    text = _number(found.median)
    if (found.q25, found.q75) != (found.median, found.median):
        text += f" ({_number(found.q25)} to {_number(found.q75)})"
    return f"{text} {found.unit}".strip()


def target(found: Figure) -> str:
    """``at most 1.1``, empty without one."""
    return "" if found.target is None else f"at {'most' if found.at_most else 'least'} {found.target:g}"


def verdict(found: Figure) -> str:
    """``reached``, ``missed``, empty without a target."""
    return {None: "", True: "reached", False: "missed"}[found.reached]


def about(entry: Entry) -> str:
    """A sentence: when and on what the figures were measured."""
    load = "" if entry["load"] is None else ", load {:.1f} at its begin and {:.1f} at its end".format(*entry["load"])
    threads = f"{entry['threads']} thread{'s' * (entry['threads'] != 1)}"
    versions = f"Python {entry['python']}, PyTorch {entry['torch']}"
    return f"Commit {entry['commit']}, {entry['date']}, {entry['processor']}, {threads}{load}; {versions}."


def _number(number: float) -> str:
    size = abs(number)
    return f"{number:,.0f}" if size >= 100 else f"{number:.1f}" if size >= 10 else f"{number:.3f}"
