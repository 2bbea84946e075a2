"""A CT scan in memory: Hounsfield units (I, J, K) toward Right, Anterior, Superior (RAS+), and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import GridMismatchError
from lungseg.scans.geometry import Grid, check_on_grid


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A CT scan: Hounsfield units (I, J, K) int16 on an RAS+ grid."""

    hu: NDArray[np.int16]
    grid: Grid

    def __post_init__(self) -> None:
        """Raise GridMismatchError if the array does not have the shape of the grid, or the grid is not RAS+."""
        check_on_grid(self.hu, self.grid)
        if self.grid.orientation.codes != "RAS":
            raise GridMismatchError(
                f"The grid is oriented {self.grid.orientation.codes}.", "Turn it to RAS with Grid.to_ras first."
            )
