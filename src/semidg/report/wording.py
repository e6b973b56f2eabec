"""The words of a report: sentences made from the numbers, and silent about what the numbers do not support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from semidg.evaluation.protocols import PROTOCOLS
from semidg.report.runs import Method, Run

#: Groups below which a part is not called weak or strong: an interval of so few groups is too narrow.
ENOUGH_GROUPS = 10

Block = Mapping[str, Any]


def percent(value: float | None) -> str:
    """A fraction as per cent with one decimal."""
    return "–" if value is None else f"{100 * value:.1f} %"


def span(interval: Sequence[float] | None, factor: float = 100, decimals: int = 1) -> str:
    """``low to high``, or nothing where there is none."""
    if interval is None:
        return ""
    low, high = (f"{factor * value:.{decimals}f}" for value in interval)
    return f"{low} to {high}"


def with_interval(value: float | None, interval: Sequence[float] | None, level: float = 0.95) -> str:
    """A fraction in % and, in brackets, its interval."""
    if value is None:
        return "not known"
    return percent(value) + (f" ({100 * level:g} % interval {span(interval)})" if interval else "")


def trained(method: Method) -> str:
    """What was trained, on what, and what it was scored on."""
    run = method.lead
    seeds = ", ".join(str(each.config.seed) for each in method.runs)
    summary, counts = run.summary, run.split.get("counts", {})
    images = " and ".join(
        f"{counts[part]['images']} {part}" for part in ("labelled", "unlabelled") if counts.get(part, {}).get("images")
    )
    text = (
        f"{run.config.method.name} learnt from {images} images" if images else f"{run.config.method.name} was trained"
    )
    if run.config.method.name == "supervised" and counts.get("unlabelled", {}).get("images"):
        text = f"supervised learnt from {counts['labelled']['images']} labelled images"
    overall = run.overall
    where = (
        f"{Path(summary['root']).name}, another data set"
        if run.elsewhere
        else f"the {summary.get('data', 'test part')}"
    )
    scored = f"{run.scored} of {where}"
    if overall["n_groups"] != overall["n"]:
        scored += f", {overall['n_groups']} independent groups"
    text += f" (seed{'s' * (len(method.runs) > 1)} {seeds}) and was scored on {scored}."
    if summary.get("target") and not run.elsewhere:
        text += f" They are all of the domain {summary['target']}, which training never saw."
    return text


def accuracy(run: Run) -> str:
    """How well, with the interval and what it covers."""
    dice, level = run.overall["dice"], run.summary["result"].get("level", 0.95)
    return (
        f"The mean Dice is {with_interval(dice['mean'], dice['interval'], level)}; half of the images lie above "
        f"{percent(dice['median'])}. "
        + (
            "The interval covers the draw of the test images; it does not cover another training or another hospital."
            if dice["interval"]
            else "There is no interval, because the images are not independent of each other."
        )
        + by_class(run)
    )


def by_class(run: Run) -> str:
    """Mean Dice of each structure, where there are several; nothing else."""
    blocks = [(name, run.overall.get(f"dice_{number}")) for number, name in enumerate(run.config.network.names)]
    shown = [f"{name} {percent(block['mean'])}" for name, block in blocks if block]
    return f" It is the mean over the classes: {', '.join(shown)}." if shown else ""


def lesions(run: Run) -> str:
    """How many lesions were missed and how many were found that are none."""
    block = run.overall.get("lesions")
    if block is None:
        return f"How many lesions were missed was not counted; semidg evaluate {run.path} counts them."
    of = "lesion" if len(run.config.network.names) == 2 else "region"
    if not block["true"]:
        return f"No image has a {of}; false regions marked: {block['false']}."
    found = block["sensitivity"]
    text = (
        f"Of {block['true']} {of}s {block['missed'] or 'none'} {'was' if block['missed'] <= 1 else 'were'} missed: "
        f"{of} sensitivity "
        f"{with_interval(found['value'], found['interval'])}. "
    )
    if not block["false"]:
        return text + "No region was marked where there is none."
    regions = "region was" if block["false"] == 1 else "regions were"
    return (
        text
        + f"{block['false']} {regions} marked where there is none, {block['false_per_image']['value']:.2f} an image."
    )


def weakness(run: Run, *, only_found: bool = False) -> str:
    """Where the run is weakest by domain, class and size, as far as the intervals show it.

    ``only_found``: nothing is said of what they do not show.
    """
    result = run.summary["result"]
    found, open_questions = [], []
    for key, what in strata(result).items():
        blocks = {n: b for n, b in result[key].items() if b["n_groups"] >= ENOUGH_GROUPS and b["dice"]["interval"]}
        if len(blocks) < len([name for name in result[key] if name]) or len(blocks) < 2:
            few = [n for n, b in result[key].items() if b["n_groups"] < ENOUGH_GROUPS]
            if few and len(result[key]) > 1:
                open_questions.append(f"{what} ({', '.join(few)}: fewer than {ENOUGH_GROUPS} groups)")
        if len(blocks) < 2:
            continue
        worst, best = (pick(blocks, key=lambda n: blocks[n]["dice"]["mean"]) for pick in (min, max))
        low, high = blocks[worst]["dice"], blocks[best]["dice"]
        if low["interval"][1] < high["interval"][0]:
            found.append(
                f"{_named(what, worst)} (Dice {percent(low['mean'])}, {span(low['interval'])}, against "
                f"{percent(high['mean'])}, {span(high['interval'])}, on {_named(what, best)})"
            )
        else:
            open_questions.append(f"{what} (the intervals of {worst} and {best} overlap)")
    text = f"It is weaker on {'; on '.join(found)}." if found else ""
    if only_found:
        return text
    if open_questions:
        text += f" The test set does not show a weak side by {'; by '.join(open_questions)}."
    return text.strip() or "All test images are of one kind, so nothing can be said of weak sides."


def strata(result: Mapping[str, Any]) -> dict[str, str]:
    """The divisions of the test images that say something: key in the summary -> what it divides by."""
    kinds = {}
    if any(name for name in result.get("by_domain", {})):
        kinds["by_domain"] = "domain"
    classes = set(result.get("by_class", {})) - {""}
    if classes and classes != set(result.get("by_domain", {})):  # in BUSI the domain is the class
        kinds["by_class"] = "class"
    if result.get("by_size"):
        kinds["by_size"] = "size"
    return kinds


def trust(run: Run) -> str:
    """How far the confidence can be trusted, and what referral would bring."""
    confidence = run.summary.get("confidence")
    if not confidence:
        return (
            f"Whether its confidence can be trusted was not measured; semidg evaluate {run.path} does it for methods "
            "that have one."
        )
    text = ""
    if ece := (confidence.get("pixels") or {}).get("ece"):
        text = f"Its stated confidence of a pixel is off by {with_interval(ece['value'], ece['interval'])} on average"
        if border := (confidence.get("pixels") or {}).get("boundary_ece"):
            text += f", along the borders, where it matters, by {with_interval(border['value'], border['interval'])}"
        text += ", on the same images it was calibrated on. " if confidence.get("in_sample") else ". "
    if expected := confidence.get("expected_dice"):
        spearman, bias = expected["spearman"], expected["bias"]
        text += f"The Dice it expects of its own masks {_follows(spearman)} the real one"
        if spearman.get("value") is not None:
            interval = span(spearman["interval"], 1, 2)
            text += f" (rank correlation {spearman['value']:.2f}{f', {interval}' if interval else ''})"
        text += f"{_promise(bias)}. "
    return (text + referral(run)).strip()


def referral(run: Run) -> str:
    """What handing the least certain fifth (or the nearest share there is) to a person would bring."""
    row = referral_row(run)
    if row is None:
        return ""
    mean = run.overall["dice"]["mean"]
    interval = span(row.get("interval_kept"))
    return (
        f"Send the least certain {100 * row['referred']:.0f} % to a person, and the mean Dice of the rest is "
        f"{percent(row['dice_kept'])}{f' ({interval})' if interval else ''} in place of {percent(mean)}."
    )


def referral_row(run: Run) -> dict[str, Any] | None:
    """The row of the referral table nearest to a fifth; None where there is no table."""
    rows = [row for row in (run.summary.get("confidence") or {}).get("referral") or [] if row["referred"] > 0]
    return min(rows, key=lambda row: abs(row["referred"] - 0.2), default=None)


def protocol(run: Run) -> str:
    """The protocol in words."""
    name = run.summary.get("protocol") or "unknown"
    known = PROTOCOLS.get(name)
    return f"Protocol {name}: {known.about}." if known else f"Protocol {name}."


def difference(row: Mapping[Any, Any], baseline: str) -> str:
    """One comparison of ``semidg.evaluation.comparison.compare`` in a sentence; ``row`` is of the metric dice."""
    points = 100 * row["difference"]
    if pd.isna(row["difference_low"]):
        return f"{row['name']} minus {baseline}: {points:+.1f} Dice points; there is no interval."
    low, high = 100 * row["difference_low"], 100 * row["difference_high"]
    text = f"{row['name']} minus {baseline}: {points:+.1f} Dice points (95 % interval {low:+.1f} to {high:+.1f}"
    text += f"; p = {_p(row['p_holm'])} after Holm's adjustment). "
    if low > 0 or high < 0:
        text += f"On these images it is {'ahead' if low > 0 else 'behind'}."
    else:
        text += "The images do not tell them apart"
        detectable = row["detectable_difference"]
        if detectable > 0:  # not where it is NaN
            text += f"; a difference of {100 * detectable:.1f} points would have shown with 80 % probability"
        text += "."
    if pd.isna(row["seeds_low"]):
        return text + " How much of it is the choice of the seed is not known: train both with two seeds or more."
    seeds = f"{100 * row['seeds_low']:+.1f} to {100 * row['seeds_high']:+.1f}"
    return text + f" With the choice of the seeds ({row['runs']} runs) the interval is {seeds}."


def headline(methods: Sequence[Method], rows: pd.DataFrame | None) -> str:
    """The summary in one paragraph: accuracy, lesions and confidence of one run, or the differences of several."""
    if len(methods) == 1 and len(methods[0].runs) == 1:
        run = methods[0].lead
        return " ".join([trained(methods[0]), accuracy(run), lesions(run), referral(run)]).strip()
    texts = [f"{method.name}: {pooled(method)}." for method in methods]
    if rows is not None:
        own = rows[(rows["metric"] == "dice") & rows["difference"].notna()]
        texts += [difference(row, methods[0].name) for row in own.to_dict("records")]
    return " ".join(texts)


def pooled(method: Method) -> str:
    """Mean Dice of a method over its runs."""
    means = [run.overall["dice"]["mean"] for run in method.runs]
    if len(means) == 1:
        return f"mean Dice {with_interval(means[0], method.lead.overall['dice']['interval'])}"
    each = ", ".join(f"{100 * value:.1f}" for value in means)
    return f"mean Dice {percent(sum(means) / len(means))} over {len(means)} seeds ({each})"


def _named(what: str, name: str) -> str:
    return f"{name or 'unnamed'} lesions" if what == "size" and name != "none" else f"{what} {name or 'unnamed'}"


def _follows(spearman: Mapping[str, Any]) -> str:
    """How well an order is kept, judged by the lower end of its interval."""
    interval = spearman.get("interval")
    if spearman.get("value") is None or not interval:
        return "stands beside"
    if interval[0] <= 0:
        return "does not reliably follow"
    return "follows" if interval[0] >= 0.5 else "follows loosely"


def _promise(bias: Mapping[str, Any]) -> str:
    """Whether it promises too much or too little, if the interval says so; ``bias`` is expected minus real."""
    value, interval = bias.get("value"), bias.get("interval")
    if value is None or not interval or interval[0] <= 0 <= interval[1]:
        return ""
    return f" and promises {abs(100 * value):.1f} points too {'much' if value > 0 else 'little'}"


def _p(value: float) -> str:
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
