"""`python -m tests.chaos`: kill server, web process, worker and child at random under load, then count what is left.

Prints a table and leaves with exit code 1 if a case, a mask or a finished epoch was lost, or a run did not end.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import Storm


def main() -> int:
    """Run the storm and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lungseg-chaos-") as folder:
        report = Storm(Path(folder), seed=given.seed).rage(given.minutes * 60)
    for name, value in report.figures.items():
        sys.stdout.write(f"{name:<58} {value}\n")
    for loss in report.losses:
        sys.stdout.write(f"LOST: {loss}\n")
    if given.json:
        given.json.write_text(json.dumps({"figures": report.figures, "losses": report.losses}, indent=2) + "\n")
    return 1 if report.losses else 0


if __name__ == "__main__":
    sys.exit(main())
