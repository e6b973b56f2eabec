"""Run folders as a report reads them, and runs that differ in their seed alone pooled into one method."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from semidg.config import ExperimentConfig
from semidg.errors import RunError
from semidg.evaluation.protocols import protocol_of
from semidg.experiment.cases import TEXTS
from semidg.experiment.run import open_config
from semidg.files import read_json

#: Keys in which runs of one method may differ: the seed, names and places, and what the hardware decides.
_NEUTRAL = frozenset({
    "name", "seed", "data.root", "data.more_roots", "data.cache", "network.class_names",
    "trainer.eval_batch", "trainer.checkpoint_every", "trainer.log_every",
    "trainer.accelerator", "trainer.devices", "trainer.nodes", "trainer.workers", "trainer.threads",
})  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a run folder holds: ``cases`` and ``course`` are cases.csv and metrics.csv, ``course`` may be empty.

    path: folder of the results: that of the run, or one that ``semidg evaluate`` made of it. folder: that of the run.
    """

    path: Path
    folder: Path
    name: str
    config: ExperimentConfig
    summary: dict[str, Any]
    cases: pd.DataFrame
    course: pd.DataFrame
    split: dict[str, Any]
    environment: dict[str, Any]

    @property
    def elsewhere(self) -> bool:
        """Whether images of another data set were scored."""
        return "root" in self.summary

    @property
    def model(self) -> Path:
        """The model that was scored: of the run, or adapted from it."""
        return Path(self.summary.get("model", self.folder / "model" / "model.safetensors"))

    @property
    def overall(self) -> dict[str, Any]:
        """The block of all test images."""
        block: dict[str, Any] = self.summary["result"]["overall"]
        return block

    @property
    def scored(self) -> str:
        """What was scored, with its number: ``65 images``, or ``12 volumes (130 planes)``."""
        text = f"{self.overall['n']} {self.unit}"
        return text if self.unit == "images" else f"{text} ({self.cases['planes'].sum():.0f} planes)"

    @property
    def unit(self) -> str:
        """images or volumes: what a row of ``cases`` is."""
        return "volumes" if "planes" in self.cases.columns else "images"


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seed alone, under a name that no other method of the report has."""

    name: str
    runs: tuple[Run, ...]

    @property
    def lead(self) -> Run:
        """The run whose pictures and distributions are shown: the first given."""
        return self.runs[0]

    def table(self) -> pd.DataFrame:
        """The cases of all runs, one below the other, with the column ``run``."""
        return pd.concat([run.cases.assign(run=run.name) for run in self.runs], ignore_index=True)


def read_run(path: Path) -> Run:
    """Read a run folder, or one of the results of a run elsewhere; raises RunError that names the file where it is
    neither, not evaluated yet or damaged."""
    folder = path
    if not (path / "run.json").is_file() and (path / "summary.json").is_file():
        folder = _scored_run(path)
    config = open_config(folder)
    for name in ("summary.json", "cases.csv"):
        if not (path / name).is_file():
            raise RunError(f"{path}: not evaluated yet (no {name}); score it with: semidg evaluate {path}")
    summary = _json(path / "summary.json")
    result = summary.get("result")
    if not isinstance(result, dict) or "dice" not in result.get("overall", {}):
        raise RunError(f"{path / 'summary.json'}: has no result; score the run again: semidg evaluate {path}")
    split = folder / "split" / "split.json"
    if "mark" not in summary:  # scored before protocols had marks
        protocol = protocol_of(config.data.split, read_json(split))
        summary |= {"protocol": protocol.name, "mark": protocol.mark}
    environment = folder / "environment.json"
    return Run(
        path=path,
        folder=folder,
        name=path.resolve().name,
        config=config,
        summary=summary,
        cases=_cases(path),
        course=_course(folder / "metrics.csv"),
        split=_json(split) if split.is_file() else {},
        environment=_json(environment) if environment.is_file() else {},
    )


def _scored_run(results: Path) -> Path:
    """The run that results in a folder of their own are of; if it is not where it was, the one they lie in."""
    run = _json(results / "summary.json").get("run")
    if isinstance(run, str) and Path(run).is_dir():
        return Path(run)
    for folder in results.resolve().parents:
        if (folder / "run.json").is_file():
            return folder
    if not isinstance(run, str):
        raise RunError(
            f"{results}: does not say which run was scored; score it again: semidg evaluate RUN --data FOLDER"
        )
    raise RunError(f"{results}: the run that was scored is not at {run} any more; score it again where it is")


def read_methods(paths: Sequence[Path], baseline: str | None = None) -> list[Method]:
    """The runs as methods, the baseline first.

    ``baseline`` names a method or a run folder; by default the method of the first run. Raises RunError for no run,
    a run given twice and an unknown baseline.
    """
    if not paths:
        raise RunError("no run to report on; give run folders: semidg report RUN")
    twice = [path for path, n in Counter(path.resolve() for path in paths).items() if n > 1]
    if twice:
        raise RunError(f"{twice[0]}: given twice; give each run once")
    runs = [read_run(path) for path in paths]
    repeated = {name for name, n in Counter(run.name for run in runs).items() if n > 1}
    runs = [replace(run, name=str(run.path)) if run.name in repeated else run for run in runs]
    pools: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        pools[_pool_key(run)].append(run)
    methods = [
        Method(name, tuple(pool)) for name, pool in zip(_names(list(pools.values())), pools.values(), strict=True)
    ]
    if baseline is None:
        return methods
    chosen = [m for m in methods if baseline == m.name or any(baseline == run.name for run in m.runs)]
    if not chosen:
        known = ", ".join(repr(m.name) for m in methods)
        raise RunError(f"--baseline {baseline!r}: no such method or run folder; the methods are {known}")
    return [chosen[0], *(m for m in methods if m is not chosen[0])]


def why_not_paired(baseline: Run, other: Run) -> str | None:
    """Why two runs cannot be compared case by case, in words; None where they can."""
    for key, what in (("protocol", "protocol"), ("target", "held-out domain"), ("data", "data")):
        here, there = baseline.summary.get(key), other.summary.get(key)
        if here != there:
            return f"another {what} ({there or 'none'} in place of {here or 'none'})"
    differing = len(set(baseline.cases["id"]) ^ set(other.cases["id"]))
    if differing:
        return f"other test images ({differing} images were scored by one of the two alone)"
    merged = baseline.cases.set_index("id")["group"].eq(other.cases.set_index("id")["group"])
    return None if merged.all() else "other groups of near-duplicates for the same images"


def _pool_key(run: Run) -> str:
    settings = {key: value for key, value in _flat(run).items() if key not in _NEUTRAL}
    scored = [run.summary.get(key) for key in ("data", "protocol", "target", "model", "asked_augmentation")]
    return json.dumps([settings, scored, sorted(zip(run.cases["id"], run.cases["group"], strict=True))], default=str)


def _flat(run: Run) -> dict[str, Any]:
    """The configuration as dotted keys."""
    flat: dict[str, Any] = {}

    def walk(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(run.config.model_dump(mode="json"), "")
    return flat


def _names(pools: list[list[Run]]) -> list[str]:
    """The method's name, and where that is not enough what sets it apart: settings, at last the run folder."""
    plain = [pool[0].config.method.name for pool in pools]
    flats = [_flat(pool[0]) for pool in pools]
    names = []
    for place, name in enumerate(plain):
        alike = [flats[i] for i, other in enumerate(plain) if other == name]
        mine = flats[place]
        differing = [key for key in mine if key not in _NEUTRAL and any(f.get(key) != mine[key] for f in alike)]
        differing.sort(key=lambda key: key != "labelled")
        summary = pools[place][0].summary
        scored = ["adapted"] if "model" in summary else []
        scored += [f"augmentation {summary['asked_augmentation']}"] if "asked_augmentation" in summary else []
        names.append(", ".join([name, *scored, *(_setting(key, mine[key]) for key in differing[:2])]))
    repeated = {name for name, n in Counter(names).items() if n > 1}
    return [f"{n} ({pool[0].name})" if n in repeated else n for n, pool in zip(names, pools, strict=True)]


def _setting(key: str, value: object) -> str:
    if key == "labelled" and isinstance(value, float):
        return f"{100 * value:g} % labelled"
    return f"{key.rsplit('.', 1)[-1]} {value}"


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged ({' '.join(str(error).split())}); evaluate or train the run again") from error
    if not isinstance(values, dict):
        raise RunError(f"{path}: damaged (not a table of keys); evaluate or train the run again")
    return values


def _cases(run: Path) -> pd.DataFrame:
    path = run / "cases.csv"
    mend = f"score the run again: semidg evaluate {run}"
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(TEXTS, str))
        if absent := [name for name in (*TEXTS, "dice") if name not in table.columns]:
            raise RunError(f"{path}: has no column {', '.join(absent)}; {mend}")
        numbers = [name for name in table.columns if name not in TEXTS]
        table[numbers] = table[numbers].astype(float)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not a readable table ({' '.join(str(error).split())}); {mend}") from error
    if table.empty or table["id"].duplicated().any():
        raise RunError(f"{path}: has no case, or one twice; {mend}")
    return table


def _course(path: Path) -> pd.DataFrame:
    """metrics.csv; empty where there is none (a run whose model came from elsewhere)."""
    if not path.is_file() or not path.stat().st_size:
        return pd.DataFrame({"step": []})
    try:
        table = pd.read_csv(path).apply(pd.to_numeric, errors="coerce")
    except ValueError as error:
        raise RunError(f"{path}: not a readable table ({' '.join(str(error).split())}); remove it") from error
    return table if "step" in table.columns else pd.DataFrame({"step": []})
