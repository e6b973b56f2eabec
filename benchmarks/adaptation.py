"""What `semidg adapt` gains at a hospital that training never saw: runs with a held-out domain, plain and adapted.

    python -m benchmarks.adaptation RUN ... --out FOLDER     score runs into FOLDER/cases.csv.gz and print the table
    python -m benchmarks.adaptation --out FOLDER             print the table of FOLDER/cases.csv.gz

The images of the test part are halved by group; each half is scored with networks adapted to the images of the other,
so that none is scored with its own statistics. Both rows are of the chosen checkpoint, the mean of its networks. A run
that stands in the table already is passed over.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.rescored import METRICS, arm_of, gain, holds, read_cases, span, write_cases
from semidg.config import TrainerConfig
from semidg.evaluation.comparison import mean_over_parts
from semidg.experiment.adapt import adapt_bundle
from semidg.experiment.bundle import Bundle, load_bundle, to_inference
from semidg.experiment.device import set_threads
from semidg.experiment.prepare import Prepared, prepare
from semidg.experiment.run import open_config
from semidg.experiment.scoring import score_records
from semidg.files import read_json
from semidg.types import Record

_CPU = torch.device("cpu")


def halves(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The records in two halves of whole groups, every second group in each, in the order of the names."""
    groups = sorted({record.group for record in records})
    second = set(groups[1::2])
    return [r for r in records if r.group not in second], [r for r in records if r.group in second]


def score(run: Path) -> pd.DataFrame:
    """The cases of a run's test part, ``model`` plain and adapted."""
    config = open_config(run)
    prepared = prepare(config, run)
    bundle = load_bundle(run / "model" / "model.safetensors")
    parts = halves(prepared.split.test)
    tables = []
    for scored, others in (parts, parts[::-1]):
        images = np.stack([prepared.cache.images[prepared.cache.row(record.id)] for record in others])
        adapted = adapt_bundle(bundle, images, _CPU)
        tables += [_scores(bundle, scored, prepared, "plain"), _scores(adapted, scored, prepared, "adapted")]
    cases = pd.concat(tables, ignore_index=True)
    commit = read_json(run / "environment.json").get("commit", "")
    return cases.assign(arm=arm_of(run), target=config.data.split.target or "", seed=config.seed, commit=commit)


def _scores(bundle: Bundle, records: Sequence[Record], prepared: Prepared, model: str) -> pd.DataFrame:
    networks = to_inference(bundle.ensemble, _CPU)
    classes, root = bundle.network.classes, prepared.index.root
    cases = score_records(networks, records, prepared.cache, root, classes=classes).tables["mean"]
    return cases[["id", "domain", "class", "group", *METRICS]].assign(model=model)


def table(cases: pd.DataFrame) -> str:
    """A row an arm, in Markdown: Dice by held-out domain, plain to adapted, and the mean over them with its gain."""
    targets = sorted(set(cases["target"]))
    lines = ["| arm | seeds | n |" + "".join(f" {t or 'test part'} |" for t in targets)]
    lines[0] += " mean | adapted minus plain | with seeds | NSD % |"
    lines.append("|" + "---|" * (len(targets) + 7))
    for arm, own in cases.rename(columns={"seed": "run"}).groupby("arm", sort=True):
        parts = {m: [g for _, g in own[own["model"] == m].groupby("target")] for m in ("plain", "adapted")}
        dice, nsd = (mean_over_parts(parts["adapted"], parts["plain"], metric) for metric in ("dice", "nsd"))
        by_target = []
        for target in targets:
            of = [own[(own["model"] == m) & (own["target"] == target)]["dice"].mean() for m in ("plain", "adapted")]
            by_target.append("" if np.isnan(of).any() else "{:.1f} to {:.1f}".format(*(100 * value for value in of)))
        mean = 100 * dice["mean"]
        cells = [
            str(arm),
            ", ".join(map(str, sorted(set(own["run"])))),
            str(dice["n"]),
            *by_target,
            f"{mean - 100 * dice['difference']:.1f} to {mean:.1f}",
            gain(dice),
            span(dice["interval_seeds"]),
            f"{100 * (nsd['mean'] - nsd['difference']):.1f} to {100 * nsd['mean']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Score what is not scored yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    set_threads(TrainerConfig(threads=1))
    path = given.out / "cases.csv.gz"
    cases = read_cases(path)
    for run in given.runs:
        config = open_config(run)
        if not holds(cases, arm=arm_of(run), target=config.data.split.target or "", seed=config.seed):
            cases = pd.concat([cases, score(run)], ignore_index=True)
            write_cases(cases, path)
    print(table(cases))


if __name__ == "__main__":
    main()
