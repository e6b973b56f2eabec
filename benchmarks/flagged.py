"""Does it help to leave out the training masks that an audit flags? Lists of such splits, and the comparison of them.

    python -m benchmarks.flagged --root DATA --out OUT [--share 0.1] [--folds 3]
    semidg compare OUT/comparison.yaml --data.root DATA --out OUT/runs

The training part is that of the preset busi-lite, every mask a label; validation and test part are untouched. Flagged
are the images of the training part whose twins, in the training part as well, have another class or another mask, and
the lowest ``--share`` of its masks by label quality over folds of the training part. Beside the lists without them
stands one without as many images of each class drawn at random, and one in which they stay as unlabelled images.
Killed at any moment, the same call goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.planted import report
from semidg.config import ExperimentConfig
from semidg.config_file import load_config, parse_config
from semidg.data.index import Index, index_data
from semidg.data.lists import Split, count_parts, count_twins, write_split
from semidg.data.splits import make_split
from semidg.experiment.audit.audit import audit
from semidg.experiment.label_quality import Quality, score_by_folds
from semidg.files import atomic_path, write_text
from semidg.types import Record

#: What of the rules of an audit says that a mask contradicts another.
CONTRADICTIONS = ("twins of different classes", "twins with different masks")


def main() -> None:
    """Write the lists and the comparison file, and print what was flagged."""
    options = _options()
    config = configuration(options.root, options.steps)
    index = index_data(config.data, config.network.classes)
    split = make_split(index.records, config.data.split, 1.0, 0)
    told = contradicted(config, {record.id for record in split.labelled})
    training = Index(index.root, index.layout, split.labelled)
    scores = score_by_folds(config, training, options.folds, options.out / "folds", torch.device("cpu"), report)
    low = lowest(scores, options.share)
    flagged = sorted(told | low)
    chance = at_random(split.labelled, flagged, seed=0)
    write_scores(scores, told, low, options.out / "flagged.csv")
    for name, ids, kept in (("out", flagged, False), ("unlabelled", flagged, True), ("random", chance, False)):
        write_split(without(split, ids, kept), index.root, options.out / "lists" / name)
    write_text(options.out / "comparison.yaml", yaml.safe_dump(comparison(options.out / "lists"), sort_keys=False))
    print(f"{len(split.labelled)} training masks, {len(told)} contradicted, {len(low)} of low quality")
    print(f"flagged {len(flagged)}: {json.dumps(Counter(classes(split.labelled, flagged)))}")


def configuration(root: Path, steps: int) -> ExperimentConfig:
    """That of the trainings over folds; its split is that of the comparison."""
    values: dict[str, Any] = load_config("busi-lite").model_dump(mode="json")
    values["data"]["root"] = str(root)
    values["method"] = {"name": "supervised"}
    values["trainer"] |= {"precision": "bf16", "checkpoint_every": 500, "max_steps": steps, "threads": 1}
    values["prediction"] = {"augmentation": "none"}
    return parse_config(values, "busi-lite")


def comparison(lists: Path) -> dict[str, Any]:
    """The comparison file of these lists."""
    arms: dict[str, dict[str, Any]] = {"all labels": {"method.name": "supervised"}}
    for name, folder, method in (
        ("without the flagged", "out", "supervised"),
        ("without as many at random", "random", "supervised"),
        ("the flagged unlabelled, crosslight", "unlabelled", "crosslight"),
    ):
        arms[name] = {"method.name": method, "data.split.lists": str((lists / folder).resolve())}
    return {
        "name": "BUSI, without the flagged training masks",
        "base": "busi-lite",
        "overrides": {
            "trainer.precision": "bf16",
            "trainer.checkpoint_every": 500,
            "prediction.augmentation": "none",
        },
        "labelled": [1.0],
        "seeds": [0, 1],
        "baseline": "all labels",
        "arms": arms,
    }


def contradicted(config: ExperimentConfig, training: set[str]) -> set[str]:
    """Ids of training images with a training twin that contradicts them."""
    found = audit(config.data, config.network.classes).issues
    pairs = [(i.id, i.other) for i in found if i.kind in CONTRADICTIONS]
    return {name for pair in pairs if training.issuperset(pair) for name in pair}


def lowest(scores: Sequence[Quality], share: float) -> set[str]:
    """Ids of the ``share`` of the masks with the lowest score."""
    return {q.id for q in sorted(scores, key=lambda q: (q.score, q.id))[: round(share * len(scores))]}


def at_random(records: Sequence[Record], flagged: Iterable[str], seed: int) -> list[str]:
    """As many images of each class as are flagged, drawn at random from all."""
    rng = np.random.default_rng(seed)
    drawn: list[str] = []
    for name, count in sorted(Counter(classes(records, flagged)).items()):
        drawn += rng.choice(sorted(r.id for r in records if r.class_name == name), count, replace=False).tolist()
    return sorted(drawn)


def classes(records: Sequence[Record], ids: Iterable[str]) -> list[str]:
    """The class of each id."""
    names = {record.id: record.class_name for record in records}
    return [names[name] for name in ids]


def without(split: Split, ids: Iterable[str], unlabelled: bool) -> Split:
    """The split with the masks ``ids`` out of its labelled part; the images in no part, or unlabelled."""
    out = set(ids)
    gone = tuple(record for record in split.labelled if record.id in out)
    rest = replace(
        split,
        labelled=tuple(record for record in split.labelled if record.id not in out),
        unlabelled=gone if unlabelled else (),
    )
    meta = split.meta | {"counts": count_parts(rest), "twins_in_training": count_twins(rest)}
    if not unlabelled:
        meta["left_out"] = split.meta["left_out"] | {"flagged": sorted(out)}
    return replace(rest, meta=meta)


def write_scores(scores: Sequence[Quality], told: set[str], low: set[str], path: Path) -> None:
    """flagged.csv: the score of each training mask, the lowest first, and why it is flagged."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "score", "contradicted", "low"))
        for q in sorted(scores, key=lambda q: (q.score, q.id)):
            writer.writerow((q.id, f"{q.score:.6f}", int(q.id in told), int(q.id in low)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1, help="part of the masks taken as of low quality")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000, help="of a fold")
    return parser.parse_args()


if __name__ == "__main__":
    main()
