"""The process that does the inputs: it says which one it begins, and what came of it, one line of JSON each."""

import json
import logging
import os
import resource
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

MOST_BYTES = 2 * 1024**3
"""Memory that an input may take beyond what the process has when all is loaded."""


def child(seed, first, last, kinds=()):
    """Do the inputs first <= n < last of a seed, of all kinds or of some."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever libraries print is no line of ours
    warnings.simplefilter("ignore")
    logging.disable()
    import torch

    from tests.fuzz.readers import Workshop

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="lungseg-fuzz-") as folder:
        workshop = Workshop(Path(folder))
        targets = [target for target in workshop.targets() if not kinds or target.name in kinds]
        for target in targets:
            for raw in target.seeds:
                target.path.write_bytes(raw)
                target.read(target.path)  # a good one has to be accepted, or nothing is shown by what follows
        _bound_memory()
        loaded_mb = _status_mb("VmRSS")
        drawn = [number for number, target in enumerate(targets) for _ in range(target.share)]
        for number in range(first, last):
            target = targets[drawn[number % len(drawn)]]
            lines.write(json.dumps({"number": number, "kind": target.name}) + "\n")
            found = _done(target, seed, number)
            found["megabytes"] = max(0.0, found["megabytes"] - loaded_mb)
            lines.write(json.dumps(found) + "\n")
        workshop.close()


def _done(target, seed, number):
    from lungseg.errors import LungSegError
    from tests.fuzz.target import WrongVoxelsError

    rng = np.random.default_rng([seed, number])
    raw = target.seeds[rng.integers(len(target.seeds))]
    target.path.write_bytes(target.damage(raw, rng, target.seeds))
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is measured anew
    started = time.perf_counter()
    outcome, text = "accepted", ""
    try:
        target.read(target.path)
    except LungSegError as error:
        outcome = error.code
    except WrongVoxelsError as error:
        outcome, text = "wrong voxels", str(error)
    except Exception:  # noqa: BLE001 - this is what is looked for
        outcome, text = "traceback", traceback.format_exc()
    seconds = time.perf_counter() - started
    found = {"outcome": outcome, "text": text, "seconds": seconds, "megabytes": _status_mb("VmHWM")}
    target.path.write_bytes(target.seeds[0])
    return {"number": number, "kind": target.name, **found}


def _bound_memory():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _status_mb(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024
