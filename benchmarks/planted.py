"""Does the score of a mask find the wrong ones? Planted errors, and the area under the ROC curve of finding them.

    python -m benchmarks.planted folds --out OUT [--seeds 0 1] [--folds 3] [--images 60] [--method supervised]
    python -m benchmarks.planted run RUN --out OUT [--part unlabelled] [--seeds 0 1 2 3 4] [--root DATA]

folds: a phantom a seed, errors planted in its masks, networks trained on what that leaves, as a user would have it;
called again, it goes on. run: errors planted in masks of a finished run that were no labels in its training.
``plant_errors`` says what is planted; --candidates compares other scores with ours. OUT/planted.json has the table.

The AUROC is taken within a seed, planted masks against all untouched ones, and averaged over the seeds. Its 95 %
interval resamples groups of near-duplicate images. Dice: median, of the planted and the untouched mask.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.plant_errors import KINDS, plant
from benchmarks.planted_scores import candidates
from semidg.config import ExperimentConfig
from semidg.config_file import load_config, parse_config
from semidg.data.images import resize_mask
from semidg.data.index import build_index, read_index
from semidg.data.phantom import write_phantom
from semidg.data.reading import record_mask
from semidg.experiment.label_quality import HeldOut, held_out_of_folds, held_out_of_run, mask_quality
from semidg.experiment.run import environment, open_config
from semidg.experiment.scoring import overlap_dice
from semidg.files import write_text

CPU = torch.device("cpu")
DRAWS = 2000


class Case(NamedTuple):
    """A mask as it is now: its error, its Dice with the untouched one, its group, and what is expected of it."""

    seed: int
    kind: str
    dice: float
    group: str
    item: HeldOut


def main() -> None:
    """Print the table of a mode and write it as JSON."""
    options = _options()
    cases = list(from_folds(options) if options.mode == "folds" else from_run(options))
    scores = {"ours": np.array([mask_quality(case.item.probabilities, case.item.mask) for case in cases])}
    if options.candidates:
        for seed in options.seeds:  # some look at all masks of a data set at once
            rows = [k for k, case in enumerate(cases) if case.seed == seed]
            for name, values in candidates([cases[k].item for k in rows]).items():
                scores.setdefault(name, np.zeros(len(cases)))[rows] = values
    result = {name: measure(cases, values) for name, values in scores.items()}
    print(f"\n{len(cases)} masks over {len(options.seeds)} seed(s), {sum(bool(c.kind) for c in cases)} planted\n")
    print(table(result))
    about = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    about["commit"] = environment(ExperimentConfig(), CPU, "")["commit"]
    write_text(options.out / "planted.json", json.dumps(about | {"n": len(cases), "result": result}, indent=1) + "\n")


def from_folds(options: argparse.Namespace) -> Iterable[Case]:
    """Trainings over folds on a phantom a seed, with errors planted in its masks."""
    for seed in options.seeds:
        place = options.out / f"seed-{seed}"
        planted = phantom_with_errors(place, options.images, options.share, seed)
        values: dict[str, Any] = load_config("phantom").model_dump(mode="json")
        values |= {"seed": seed, "method": {"name": options.method}}
        values["trainer"] |= {"threads": 1, "accelerator": "cpu", "max_steps": options.steps}
        values["data"]["cache"] = str(options.out / "cache")
        config, index = parse_config(values, "phantom"), build_index(place / "data")
        for item in held_out_of_folds(config, index, options.folds, place / "runs", CPU, report):
            kind, dice = planted[item.record.id]
            yield Case(seed, kind, dice, f"{seed} {item.record.group}", item)  # another seed is another phantom


def phantom_with_errors(place: Path, images: int, share: float, seed: int) -> dict[str, tuple[str, float]]:
    """PLACE/data with planted errors, made unless it is there, and (kind, Dice) of each id."""
    noted = place / "errors.json"
    if not noted.is_file():
        write_phantom(place / "data", images, seed=seed)
        index = build_index(place / "data")
        clean = [record_mask(index.root, record) for record in index.records]
        masks, kinds = plant(clean, share, seed)
        for record, mask, kind in zip(index.records, masks, kinds, strict=True):
            if kind:
                Image.fromarray(mask * np.uint8(255)).save(index.root / record.masks[0])
        dice = [overlap_dice(mask, old, 2) for mask, old in zip(masks, clean, strict=True)]
        found = {record.id: pair for record, *pair in zip(index.records, kinds, dice, strict=True)}
        write_text(noted, json.dumps(found, indent=0))
    return {name: (kind, dice) for name, (kind, dice) in json.loads(noted.read_text("utf-8")).items()}


def from_run(options: argparse.Namespace) -> Iterable[Case]:
    """Errors planted, anew with each seed, in the masks of a part of a finished run."""
    config = open_config(options.run)
    root = options.root or config.data.root
    assert root is not None
    index = read_index(options.run / "index.csv", root)
    items = [
        item
        for item in held_out_of_run(options.run, index, CPU, report)
        if item.source.startswith(f"{options.part} part")
    ]
    clean = [record_mask(index.root, item.record) for item in items]
    size = config.data.size
    for seed in options.seeds:
        masks, kinds = plant(clean, options.share, seed)
        for item, mask, old, kind in zip(items, masks, clean, kinds, strict=True):
            now = item._replace(mask=resize_mask(mask, size))
            yield Case(seed, kind, overlap_dice(mask, old, 2), item.record.group, now)


def measure(cases: list[Case], scores: npt.NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    """AUROC, its interval, number planted and their median Dice, of all errors and of each kind."""
    result = {}
    names = sorted({case.group for case in cases})
    numbers = {name: k for k, name in enumerate(names)}
    group = np.array([numbers[case.group] for case in cases])
    seed, kind = np.array([case.seed for case in cases]), np.array([case.kind for case in cases])
    dice = np.array([case.dice for case in cases])
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    weights = np.concatenate([np.ones((1, len(names)), np.int64), weights]).astype(np.float64)  # the first: as it is
    for name in ("all", *KINDS):
        hit = kind != "" if name == "all" else kind == name
        if not hit.any():
            continue
        drawn = []
        for one in np.unique(seed[hit]):
            bad, good = np.flatnonzero(hit & (seed == one)), np.flatnonzero((kind == "") & (seed == one))
            drawn.append(weighted_auroc(scores[bad], scores[good], weights[:, group[bad]], weights[:, group[good]]))
        values = np.ma.masked_invalid(drawn).mean(axis=0).filled(np.nan)
        low, high = np.nanquantile(values[1:], [0.025, 0.975])
        result[name] = {
            "auroc": float(values[0]),
            "interval": [float(low), float(high)],
            "planted": int(hit.sum()),
            "dice": float(np.median(dice[hit])),
        }
    return result


def weighted_auroc(
    bad: npt.NDArray[np.float64],
    good: npt.NDArray[np.float64],
    bad_weights: npt.NDArray[np.float64],
    good_weights: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Probability that a bad mask, (n,), scores below a good one, (m,), ties half; weights (draws, n), (draws, m).

    nan for a draw without bad or without good ones.
    """
    below = (bad[:, None] < good) + 0.5 * (bad[:, None] == good)
    total = bad_weights.sum(1) * good_weights.sum(1)
    found = ((bad_weights @ below) * good_weights).sum(1)
    return np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0)


def table(result: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A line a score, and how many were planted, and how bad, below."""
    first = next(iter(result.values()))
    lines = ["| score | " + " | ".join(first) + " |", "|---" * (len(first) + 1) + "|"]
    for name, row in result.items():
        cells = ["{:.3f} ({:.3f} to {:.3f})".format(r["auroc"], *r["interval"]) for r in row.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| planted | " + " | ".join(str(r["planted"]) for r in first.values()) + " |")
    lines.append("| Dice | " + " | ".join(f"{r['dice']:.2f}" for r in first.values()) + " |")
    return "\n".join(lines)


def report(what: str, done: int, total: int) -> None:
    """A line at the end of each piece of work."""
    if done == total:
        print(f"{what}: {total}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for name, seeds, share in (("folds", [0, 1], 0.15), ("run", list(range(10)), 0.1)):
        mode = modes.add_parser(name)
        mode.add_argument("--out", type=Path, required=True)
        mode.add_argument("--seeds", type=int, nargs="+", default=seeds)
        mode.add_argument("--share", type=float, default=share, help="part of the masks with an error, 0.05 to 0.2")
        mode.add_argument("--candidates", action="store_true", help="other scores too")
        if name == "folds":
            mode.add_argument("--folds", type=int, default=3)
            mode.add_argument("--images", type=int, default=60, help="a scanner")
            mode.add_argument("--method", default="supervised")
            mode.add_argument("--steps", type=int, default=200)
        else:
            mode.add_argument("run", type=Path)
            mode.add_argument("--part", choices=["unlabelled", "validation", "test"], default="unlabelled")
            mode.add_argument("--root", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
