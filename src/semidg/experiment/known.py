"""Scores of runs made elsewhere: a comparison takes over those of a configuration of its own, and makes the others.

``runs.json.gz`` says what each run of a comparison was, ``cases.csv.gz`` what it scored; together they are the results
of a comparison without its networks, small enough to publish beside a table.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from semidg.config import ExperimentConfig
from semidg.config_file import dump_config, parse_config
from semidg.errors import ConfigError, RunError
from semidg.experiment.cases import TEXTS
from semidg.experiment.compare import Part, run_folder, scores_folder, status
from semidg.experiment.grid import Cell, flat
from semidg.experiment.run import ORIGIN, RUN_FORMAT
from semidg.files import read_json, write_bytes, write_text

#: Keys that say where a run was made and how it was watched, and nothing of what it is.
ELSEWHERE = (
    *("name", "data.root", "data.more_roots", "data.cache", "network.class_names"),
    *("trainer.threads", "trainer.workers", "trainer.activation_checkpointing"),
    *("trainer.loggers", "trainer.log_every", "trainer.checkpoint_every"),
)
#: What tells a row of ``cases.csv.gz`` to its run.
RUN_COLUMNS = ("arm", "labelled", "target", "seed")

_DIGITS = 6  # of a labelled fraction in a table of cases

_MADE = ("commit", "threads", "device", "precision")


@dataclass(frozen=True)
class Known:
    """A run made elsewhere; ``cases`` holds the table of each predictor: mean, network_0, ..."""

    config: ExperimentConfig
    entry: Mapping[str, Any]
    checkpoint: str
    cases: Mapping[str, pd.DataFrame]
    source: Path


def ending(part: Part) -> str:
    """What stands in the names of the files of a part."""
    return "" if part == "test" else f"-{part}"


def identity(config: ExperimentConfig, *but_for: str) -> str:
    """Equal for configurations of the same run, wherever it was made, and whatever its keys ``but_for`` are.

    Of the data it knows how many folders there are, not which: a folder has another path on another machine.
    """
    values = flat(config.model_dump(mode="json"))
    same = {key: values[key] for key in sorted(values) if key not in (*ELSEWHERE, *but_for)}
    if config.data.more_roots:
        same["data.more_roots"] = len(config.data.more_roots)
    return json.dumps(same)


def write_runs(cells: Sequence[Cell], out: Path, part: Part) -> None:
    """OUT/runs.json.gz: configuration, protocol, checkpoint, time and environment of every done run."""
    entries = []
    for cell in cells:
        if status(cell, out, part).state != "done":
            continue
        run = run_folder(out, cell)
        summary, made = read_json(scores_folder(run, part) / "summary.json"), read_json(run / "environment.json")
        config = cell.config.model_dump(mode="json")
        more = [f"root-{k}" for k, _ in enumerate(cell.config.data.more_roots, 2)]
        config["data"] |= {"root": None, "more_roots": more, "cache": None}  # paths are of the machine
        entries.append(
            {name: getattr(cell, name) for name in RUN_COLUMNS}
            | {name: summary.get(name) for name in ("protocol", "mark", "checkpoint", "training_seconds")}
            | {name: made.get(name) for name in _MADE}
            | {"config": config}
        )
    text = "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n"
    write_bytes(out / f"runs{ending(part)}.json.gz", gzip.compress(text.encode(), mtime=0))


def read_known(folders: Sequence[Path], part: Part) -> dict[str, Known]:
    """Identity -> run, of the files of each folder; of equal runs the first counts, and none where two of one folder
    have other scores: they were trained on other data, which the files do not tell apart.

    Raises RunError, which names the file, where one is missing, damaged or does not fit the other.
    """
    found: dict[str, Known] = {}
    for folder in folders:
        here: dict[str, list[Known]] = {}
        listed, table = folder / f"runs{ending(part)}.json.gz", folder / f"cases{ending(part)}.csv.gz"
        cases = _cases(table)
        for entry in _entries(listed):
            try:
                config = parse_config(entry["config"], f"{listed}: {entry['arm']}")
                labelled = round(float(entry["labelled"]), _DIGITS)
                scored = cases[entry["arm"], labelled, entry["target"] or "", int(entry["seed"])]
                checkpoint = {"best": "best", "last": "last"}[entry["checkpoint"]]
            except ConfigError as error:
                raise RunError(f"{error}; made by another version of semidg?") from error
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(f"{listed}: damaged, or does not belong to {table} ({error!r})") from error
            here.setdefault(identity(config), []).append(Known(config, entry, checkpoint, scored, folder))
        for key, (first, *others) in here.items():
            if all(first.cases["mean"].equals(other.cases["mean"]) for other in others):
                found.setdefault(key, first)
    return found


def match(known: Mapping[str, Known], cells: Sequence[Cell]) -> dict[str, Known]:
    """Name of a cell -> its known run: one of the same configuration or, failing that, of the same but for
    ``trainer.precision``, which a machine may not have; not where the cells differ in that themselves. Cells that
    differ in nothing but the folders of their data have none."""
    otherwise: dict[str, Known] = {}
    for one in known.values():
        otherwise.setdefault(identity(one.config, "trainer.precision"), one)
    loose = {cell.name: identity(cell.config, "trainer.precision") for cell in cells}
    alone = {key for key, count in Counter(loose.values()).items() if count == 1}
    data: dict[str, set[Any]] = {}
    for cell in cells:
        data.setdefault(identity(cell.config), set()).add((cell.config.data.root, cell.config.data.more_roots))
    found = {}
    for cell in cells:
        key = loose[cell.name]
        if len(data[identity(cell.config)]) > 1:
            continue
        if run := known.get(identity(cell.config)) or (otherwise.get(key) if key in alone else None):
            found[cell.name] = run
    return found


def is_open(folder: Path, part: Part, run: Known) -> bool:
    """Whether a run folder is empty, or was taken over from the same run and has no scores of the part yet."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return True
    made = read_json(folder / "environment.json")
    same = ORIGIN in made and all(made.get(name) == run.entry.get(name) for name in _MADE)
    return same and not (scores_folder(folder, part) / "summary.json").is_file()


def take_over(known: Mapping[str, Known], cells: Sequence[Cell], out: Path, part: Part) -> list[Cell]:
    """Write the scores of known runs as done run folders of the grid, without networks, where nothing is yet, or where
    the other part of the same run has been taken over.

    Returns the cells taken over. ``environment.json`` of such a folder names where the run comes from.
    """
    taken, matched = [], match(known, cells)
    for cell in cells:
        run = matched.get(cell.name)
        folder = run_folder(out, cell)
        if run is None or not is_open(folder, part, run):
            continue
        begun = folder.is_dir() and any(folder.iterdir())
        made = folder if begun else folder.with_name(f".{folder.name}.part")
        if not begun:
            shutil.rmtree(made, ignore_errors=True)
            environment = {name: run.entry.get(name) for name in _MADE} | {ORIGIN: str(run.source)}
            write_text(made / "environment.json", json.dumps(environment, indent=2) + "\n")
            write_text(made / "config.yaml", dump_config(cell.config))
            write_text(made / "run.json", json.dumps({"format": RUN_FORMAT}) + "\n")
        scores = scores_folder(made, part)
        for predictor, table in run.cases.items():
            path = "cases.csv" if predictor == "mean" else f"evaluation/{run.checkpoint}-{predictor}.csv"
            write_text(scores / path, table.to_csv(index=False, lineterminator="\n"))
        summary = {name: run.entry.get(name) for name in ("protocol", "mark", "checkpoint", "training_seconds")}
        summary["checkpoints"] = {"last": {"step": cell.config.trainer.max_steps}}
        write_text(scores / "summary.json", json.dumps(summary, indent=2) + "\n")  # last: until then it is not scored
        if not begun:
            if folder.is_dir():
                folder.rmdir()
            made.rename(folder)
        taken.append(cell)
    return taken


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        values = json.loads(_text(path))
    except ValueError as error:
        raise RunError(f"{path}: is no JSON ({error})") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RunError(f"{path}: is no list of runs")
    return values


def _cases(path: Path) -> dict[tuple[Any, ...], dict[str, pd.DataFrame]]:
    try:
        kinds = dict.fromkeys((*TEXTS, "arm", "target", "predictor"), str)
        table = pd.read_csv(io.StringIO(_text(path)), keep_default_na=False, dtype=kinds)
        own = [*RUN_COLUMNS, "predictor", "protocol", "commit"]
        table = table[table["predictor"].str.fullmatch(r"mean|network_\d{1,3}")]  # it becomes a file's name
        found: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
        for key, rows in table.groupby([*RUN_COLUMNS, "predictor"], sort=False):
            arm, labelled, target, seed, predictor = cast(tuple[Any, ...], key)
            run = (str(arm), round(float(labelled), _DIGITS), str(target), int(seed))
            # every table of cases has the text, if need be empty; other empty columns are those of other runs
            blank = [name for name in rows if name not in TEXTS and (rows[name].astype(str) == "").all()]
            found.setdefault(run, {})[str(predictor)] = rows.drop(columns={*own, *blank})
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: is no table of cases as semidg compare writes it ({error})") from error
    return found


def _text(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}); --known takes folders with runs.json.gz and cases.csv.gz"
        ) from error
