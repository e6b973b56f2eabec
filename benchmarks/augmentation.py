"""What test-time augmentation gains: runs, scored with each, and with the one that their validation part chooses.

    python -m benchmarks.augmentation RUN ... --out FOLDER --part validation    to see what is worth offering
    python -m benchmarks.augmentation RUN ... --out FOLDER --part test          what ``auto`` brings
    python -m benchmarks.augmentation --out FOLDER                              print the tables of FOLDER/cases.csv.gz

The networks of the chosen checkpoint, the mean of them and, of two, the first alone. With ``--part test`` both parts
are scored: of each run ``auto`` is the augmentation of the best mean Dice on its own validation part. A run and part
that stand in the table already are passed over.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from benchmarks.rescored import METRICS, arm_of, gain, holds, read_cases, span, write_cases
from semidg.config import TrainerConfig
from semidg.evaluation.comparison import mean_over_parts
from semidg.experiment.bundle import load_bundle, to_inference
from semidg.experiment.device import set_threads
from semidg.experiment.prepare import prepare
from semidg.experiment.run import open_config
from semidg.experiment.scoring import score_records
from semidg.files import read_json
from semidg.networks.ensemble import VIEWS, Ensemble

_CPU = torch.device("cpu")
_RUN = ["arm", "labelled", "target", "seed"]


def score(run: Path, part: str) -> pd.DataFrame:
    """The cases of a part of a run, a row for each and ``augmentation``."""
    config = open_config(run)
    prepared = prepare(config, run)
    networks = load_bundle(run / "model" / "model.safetensors").ensemble.networks
    arm = arm_of(run)
    tables = []
    for name in VIEWS:
        scores = score_records(
            to_inference(Ensemble(networks, name), _CPU),
            prepared.split.parts()[part],
            prepared.cache,
            prepared.index.root,
            classes=config.network.classes,
        ).tables
        for predictor, of in (("mean", arm), ("network_0", f"{arm}, one network")):
            if predictor in scores:
                cases = scores[predictor][["id", "domain", "class", "group", *METRICS]]
                tables.append(cases.assign(arm=of, augmentation=name))
    commit = read_json(run / "environment.json").get("commit", "")
    about = {"labelled": config.labelled, "target": config.data.split.target or "", "seed": config.seed}
    return pd.concat(tables, ignore_index=True).assign(**about, part=part, commit=commit)


def with_auto(cases: pd.DataFrame) -> pd.DataFrame:
    """The test cases, and again those of each run's ``auto``: the augmentation of its best validation Dice, of equal
    ones the quickest."""
    validation = cases[cases["part"] == "validation"]
    means = validation.groupby([*_RUN, "augmentation"])["dice"].mean().unstack()[list(VIEWS)]
    test = cases[cases["part"] == "test"]
    chosen = means.idxmax(axis=1).rename("chosen")
    told = test.merge(chosen, left_on=_RUN, right_index=True)
    auto = told[told["augmentation"] == told["chosen"]].assign(augmentation="auto")
    return pd.concat([test.assign(chosen=""), auto], ignore_index=True)


def table(cases: pd.DataFrame, last: str) -> str:
    """A row for each arm and part of the labels, in Markdown: mean Dice with each augmentation, and what ``last`` gains
    over none, the mean over the held-out domains."""
    names = [*VIEWS, *([] if last in VIEWS else [last])]
    lines = ["| labelled | arm | seeds | n | " + " | ".join(names)]
    lines[0] += f" | {last} minus none | with seeds | NSD, none to {last} | HD95, pixels |"
    lines.append("|" + "---|" * (len(names) + 8))
    for (labelled, arm), own in cases.rename(columns={"seed": "run"}).groupby(["labelled", "arm"], sort=True):
        found = {
            (name, metric): mean_over_parts(_parts(own, name), _parts(own, "none"), metric)
            for name in names
            for metric in ("dice", "nsd", "hd95")
        }
        dice = found[last, "dice"]
        cells = [
            f"{100 * float(str(labelled)):g} %",
            str(arm),
            ", ".join(map(str, sorted(set(own["run"])))),
            str(dice["n"]),
            *(f"{100 * found[name, 'dice']['mean']:.1f}" for name in names),
            gain(dice),
            span(dice["interval_seeds"]),
            " to ".join(f"{100 * found[name, 'nsd']['mean']:.1f}" for name in ("none", last)),
            " to ".join(f"{found[name, 'hd95']['mean']:.0f}" for name in ("none", last)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def against(cases: pd.DataFrame, baseline: str) -> str:
    """A row for each other arm and part of the labels: its Dice and NSD minus those of the baseline in the seeds that
    both have, both plain and both with ``auto``."""
    lines = [
        f"| labelled | arm minus {baseline} | seeds | Dice, none | Dice, auto | with seeds | NSD, none | NSD, auto |"
    ]
    lines.append("|" + "---|" * 8)
    for (labelled, arm), own in cases.rename(columns={"seed": "run"}).groupby(["labelled", "arm"], sort=True):
        other = cases[(cases["arm"] == baseline) & (cases["labelled"] == labelled)].rename(columns={"seed": "run"})
        shared = set(own["run"]) & set(other["run"])
        if arm == baseline or not shared:
            continue
        ours, theirs = (of[of["run"].isin(shared)] for of in (own, other))
        cells = [f"{100 * float(str(labelled)):g} %", str(arm), ", ".join(map(str, sorted(shared)))]
        cells += _differences(ours, theirs)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def more_labels(cases: pd.DataFrame) -> str:
    """A row for each arm and part of the labels but its largest: what the largest has over it, in the seeds that both
    have, both plain and both with ``auto``."""
    lines = ["| arm | labelled | seeds | Dice, none | Dice, auto | with seeds | NSD, none | NSD, auto |"]
    lines.append("|" + "---|" * 8)
    for arm, own in cases.rename(columns={"seed": "run"}).groupby("arm", sort=True):
        by_part = {float(str(labelled)): rows for labelled, rows in own.groupby("labelled")}
        most = max(by_part)
        for labelled in sorted(set(by_part) - {most}):
            shared = set(by_part[most]["run"]) & set(by_part[labelled]["run"])
            if shared:
                pair = (by_part[of][by_part[of]["run"].isin(shared)] for of in (most, labelled))
                cells = [str(arm), f"{100 * most:g} % minus {100 * labelled:g} %", ", ".join(map(str, sorted(shared)))]
                lines.append("| " + " | ".join(cells + _differences(*pair)) + " |")
    return "\n".join(lines)


def _differences(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    """Cells of the differences, both plain and both with ``auto``: Dice, with seeds, NSD."""
    found = {
        (name, metric): mean_over_parts(_parts(ours, name), _parts(theirs, name), metric)
        for name in ("none", "auto")
        for metric in ("dice", "nsd")
    }
    cells = [gain(found[name, "dice"]) for name in ("none", "auto")]
    cells.append(span(found["auto", "dice"]["interval_seeds"]))
    return cells + [gain(found[name, "nsd"]) for name in ("none", "auto")]


def _parts(cases: pd.DataFrame, augmentation: str) -> list[pd.DataFrame]:
    own = cases[cases["augmentation"] == augmentation]
    return [of for _, of in own.groupby("target", sort=True)]


def main() -> None:
    """Score what is not scored yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument(
        "--baseline", default="supervised", help="arm that the others are compared with on the test part"
    )
    given = parser.parse_args()
    set_threads(TrainerConfig())
    path = given.out / "cases.csv.gz"
    cases = read_cases(path)
    for run in given.runs:
        config = open_config(run)
        about = {"labelled": config.labelled, "target": config.data.split.target or "", "seed": config.seed}
        for part in ("validation",) if given.part == "validation" else ("validation", "test"):
            if not holds(cases, arm=arm_of(run), part=part, **about):
                cases = pd.concat([cases, score(run, part)], ignore_index=True)
                write_cases(cases, path)
    print("Validation parts\n")
    print(table(cases[cases["part"] == "validation"], "scales"))
    if (cases["part"] == "test").any():
        test = with_auto(cases)
        print("\nTest parts\n")
        print(table(test, "auto"))
        print(f"\nAgainst {given.baseline}\n")
        print(against(test, given.baseline))
        print("\nMore labels\n")
        print(more_labels(test))
        chosen = test[test["augmentation"] == "auto"].drop_duplicates(_RUN)["chosen"].value_counts()
        print("\nauto chose " + ", ".join(f"{name} {count} times" for name, count in chosen.items()))


if __name__ == "__main__":
    main()
