"""How often the check of orientation is right, can't decide or is wrong; and the making of the atlas it uses.

`python -m tests.benchmarks.orientation` prints the table of docs/quality.md, each scan judged by an atlas of the other
patients; with `--build FILE` it makes the atlas that is shipped, of all chests but the demo scan, which is there to
test on.
"""

import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lungseg.scans.anatomy.atlas import VIEWS, build, cells_of
from lungseg.scans.anatomy.body import Body
from lungseg.scans.anatomy.check import Says, check_orientation
from lungseg.scans.anatomy.sides import side_differences, spine
from tests import chests
from tests.narrowing import existing


def cells_by_name():
    """Sample all views of all chests, and what their sides differ in."""
    found: dict[str, Any] = {}
    for name in (*chests.CHESTS, chests.DEMO, *chests.PARTS):
        volume = chests.thinned(chests.read(name))
        cells = []
        if name in chests.PARTS:
            if chests.PARTS[name]:
                cells.append((chests.PARTS[name], cells_of(existing(Body.of(volume)))))
            found[name] = (cells, None)
            continue
        for view, part in chests.views_of(volume):
            body = Body.of(part)
            if body is None:
                continue
            shares, known = cells_of(body)
            cells.append((view, (shares, known)))
            if view not in ("whole", "one lung"):
                cells.append((view, (shares[::-1], known[::-1])))
        body = existing(Body.of(volume))
        found[name] = (cells, side_differences(body, spine(body))[:2])
    return found


def atlas_of(found, without):
    """Make an atlas of all patients but one."""
    patient = without[:20]
    views: dict[str, list[Any]] = {view: [] for view in VIEWS}
    sides = []
    for name, (cells, side) in found.items():
        if name[:20] == patient:
            continue
        for view, each in cells:
            views[view].append(each)
        if side is not None:
            sides.append(side)
    return build(views, sides)


TILTS = (10, 20, 30, 45)
PADDINGS = (-2048, -1024, 0, -3024, 32767)
SLABS = (3, 5, 9, 15, 20, 30)


def right(volume, rng):
    """Header right, whole chests."""
    yield "as it is", lambda: volume
    for number, degrees in enumerate(TILTS):
        for axis in range(3):
            padding = PADDINGS[(number + axis) % len(PADDINGS)]
            yield f"tilted by {degrees} degrees, padded", partial(chests.tilted, volume, degrees, axis, padding)
    for padding in PADDINGS:
        yield "padded all round", partial(chests.framed, volume, padding)
        yield "padded outside a circle", partial(chests.in_a_circle, volume, padding)
    yield "noise of 60 HU", partial(chests.noisy, volume, 60, rng)
    yield "soft tissue 150 HU brighter", partial(chests.enhanced, volume)
    yield "table in front", partial(chests.on_its_front, volume)
    for side in (0, 1):
        yield "one lung opaque", partial(chests.opaque, volume, side)
        for share in (0.4, 0.6):
            yield "fluid in one lung", partial(chests.with_fluid, volume, side, share)
    for radius_mm in (30, 30, 45, 45):
        yield "mass of 110 or 380 ml", partial(chests.with_mass, volume, radius_mm, rng)


def parts(volume, rng):
    """Header right, parts of chests."""
    box = chests.lungs_box(volume)
    (low, high), (i, j, _), every = box[2], volume.grid.shape, slice(None)
    for share in (0.6, 0.65, 0.7) * 2:
        at = [int(rng.integers(0, n - int(n * share) + 1)) for n in (i, j)]
        view = [slice(first, first + int(n * share)) for first, n in zip(at, (i, j), strict=True)]
        yield "crop of 60 to 70 % of the field of view", partial(chests.cut, volume, *view, every)
    for share in (0.6, 0.8) * 2:
        part = partial(chests.crop_of_lungs, volume, box, share, rng)
        yield "crop of 60 or 80 % of the lungs' width and depth", part
    for count in SLABS * 3:
        first = int(rng.integers(low, max(low, high - count) + 1))
        yield f"slab of {count} slices", partial(chests.cut, volume, every, every, slice(first, first + count))
    for share in (0.3, 0.5, 0.7):
        end = int((high - low) * share)
        yield "lower 30 to 70 % of the lungs", partial(chests.cut, volume, every, every, slice(0, low + end))
        yield "upper 30 to 70 % of the lungs", partial(chests.cut, volume, every, every, slice(high - end, None))


def wrong(volume, _rng):
    """Header wrong, whole chests."""
    names = ("left-right", "front-back", "head-feet")
    for axes, flips in chests.WRONG:
        swapped = " and ".join(name for name, flip in zip(names, flips, strict=True) if flip)
        kind = f"{swapped} swapped" if axes == (0, 1, 2) else "axes mixed up"
        yield kind, partial(chests.turned, volume, (axes, flips))


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Tally:
    """Verdicts of each direction by kind of scan, and the scans with a contradiction and without."""

    def __init__(self):
        self.counts: defaultdict[str, Any] = defaultdict(lambda: np.zeros((4, 3), int))
        self.contradicted, self.silent = defaultdict(list), defaultdict(list)

    def add(self, name, kind, check):
        """Count the check of a scan."""
        says = [verdict.says for verdict in check.by_code.values()]
        for row, each in enumerate(says):
            self.counts[kind][row, list(Says).index(each)] += 1
        (self.contradicted if Says.CONTRADICTS in says else self.silent)[kind].append(name)

    def show(self, unexpected):
        """Print the share of scans for which each direction is undecided, and how many are contradicted."""
        say("| scans | number | contradicted | undecided: axes | front-back | head-feet | left-right |")
        say("|---|---|---|---|---|---|---|")
        for kind, table in self.counts.items():
            number = table[0].sum()
            undecided = " | ".join(f"{100 * row[2] / number:.0f} %" for row in table)
            say(f"| {kind} | {number} | {len(self.contradicted[kind])} | {undecided} |")
        for kind in [kind for kind, scans in unexpected.items() if scans]:
            say(f"not as it should be: {kind}: {', '.join(unexpected[kind])}")


def main(
    build_to: Annotated[Path | None, typer.Option("--build", help="Only make the atlas that is shipped.")] = None,
    share: Annotated[float, typer.Option(help="Share of all forms to measure, drawn by chance.")] = 1.0,
):
    """Measure, or build."""
    found = cells_by_name()
    if build_to:
        np.savez_compressed(build_to, **atlas_of(found, chests.DEMO).packed())
        return
    kinds = {right: Tally(), parts: Tally(), wrong: Tally()}
    for name in (*chests.CHESTS, chests.DEMO, *chests.PARTS):
        atlas, rng = atlas_of(found, name), np.random.default_rng(list(name.encode()))
        scan = chests.thinned(chests.read(name))
        for make, tally in kinds.items():
            if make is not parts and name in chests.PARTS:
                continue
            for kind, part in make(scan, rng):
                if rng.random() < share:
                    tally.add(name, kind, check_orientation(part(), atlas))
        say(f"\nUp to {name}")
        for make, tally in kinds.items():
            say(f"\n{make.__doc__}\n")
            tally.show(tally.silent if make is wrong else tally.contradicted)


if __name__ == "__main__":
    typer.run(main)
