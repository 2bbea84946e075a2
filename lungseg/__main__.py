"""`python -m lungseg`: the same as the `lungseg` command, also where the package is not installed."""

from __future__ import annotations

from lungseg.cli import main

if __name__ == "__main__":
    main()
