"""The command line: ``semidg VERB ...``. Each verb imports what it needs when it is called."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import select
import sys
import warnings
from collections.abc import Sequence

from semidg import __version__
from semidg.errors import ConfigError, SemidgError

#: Verb -> (module of semidg.cli, what it does).
VERBS = {
    "demo": ("demo", "phantom scanners in, one held out: train, compare, and look at it (about 5 minutes)"),
    "phantom": ("data", "write synthetic ultrasound from four scanners, with masks"),
    "index": ("data", "check a data set and list its images, near-duplicates in one group"),
    "audit": ("audit", "find what is wrong with a data set, show it, choose what to leave out"),
    "split": ("data", "divide a data set into labelled, unlabelled, validation and test lists"),
    "train": ("train", "train a preset or a configuration file into a run folder; --resume continues"),
    "compare": ("compare", "methods and settings side by side: a resumable grid of runs, and its tables"),
    "evaluate": ("evaluate", "score a run on its test part, or on another data set"),
    "report": ("report", "one page of a run, or of several compared: results, errors, confidence, pictures"),
    "adapt": ("adapt", "fit a model to the images of another hospital, without masks, in seconds"),
    "predict": ("predict", "masks, confidence maps and overlays for image files and folders"),
}

USAGE = f"""semidg {__version__}: medical image segmentation from few labels, for scanners it never saw

usage: semidg VERB [OPTIONS]       semidg VERB --help explains a verb

{chr(10).join(f"  {verb:<9} {text}" for verb, (_, text) in VERBS.items())}

first steps:
  semidg demo --out demo
  semidg train busi-lite --data.root Dataset_BUSI_with_GT --labelled 0.25 --out runs/first
  semidg report runs/first
  semidg predict runs/first IMAGE_OR_FOLDER --out predictions
"""


def wait_briefly() -> None:
    """Threads that wait for each other spin 20,000 times and then sleep, unless the environment says otherwise. By
    default they spin 300,000 times, also where the other one waits for its core, on which something else runs: a step
    then takes many times as long (benchmarks/waiting.py). Read by GNU's OpenMP when PyTorch is loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, 2 for an error of the user's, 128 + signal where a signal stopped it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # closed by who started it
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():  # another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # of SIGPIPE
    except SemidgError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("semidg: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        message = f"{error.filename or 'output'}: {error.strerror}; choose another folder, or free some space"
    else:
        return code
    for line in message.splitlines():
        print(f"semidg: error: {line}", file=sys.stderr)
    return 2


def _reader_is_gone() -> bool:
    """Whether ``| head`` has read enough of what is printed."""
    looking = select.poll()
    looking.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in looking.poll(0))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"semidg {__version__}")
        return 0
    wait_briefly()
    warnings.filterwarnings("ignore", module="pydicom")  # of values that are not needed, a line each
    verb, *rest = arguments
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
        raise ConfigError(f"unknown verb {verb!r}; {hint}")
    module = importlib.import_module(f"semidg.cli.{VERBS[verb][0]}")
    code: int = getattr(module, verb)(rest)
    return code
