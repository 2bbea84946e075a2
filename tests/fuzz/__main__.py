"""`python -m tests.fuzz`: damaged files through every reader; a table of what came of them, exit code 1 on any failure.

`--seed N --only M` does input M of seed N alone, and shows where it failed.
"""

import argparse
import sys

from tests.fuzz.child import MOST_BYTES, child
from tests.fuzz.watch import HANGS_S, Tally, watch

SHORT = 400
LONG = 10_000


def main() -> int:
    """Run the inputs in a process of their own, and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=LONG)
    parser.add_argument("--short", action="store_true", help=f"{SHORT} inputs")
    parser.add_argument("--only", type=int, help="one input alone")
    parser.add_argument("--kind", action="append", default=[], help="of files; all without one, may be given again")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    last = SHORT if given.short else given.count
    if given.child is not None:
        child(given.seed, given.child, last, given.kind)
        return 0
    first, last = (0, last) if given.only is None else (given.only, given.only + 1)
    tally = Tally()
    for result in watch(given.seed, first, last, given.kind):
        tally.add(result)
        if result.is_failure:
            sys.stdout.write(f"{result.told(given.seed, given.kind)}\n")
            sys.stdout.flush()
    sys.stdout.write(f"Each input: at most {HANGS_S:.0f} s, and {MOST_BYTES / 1024**2:.0f} MB beyond what is loaded.\n")
    sys.stdout.write(f"{tally.table()}\n")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
