from lungseg.errors import LungSegError
from lungseg.records.findings import ScanFinding
from lungseg.records.geometry import ScanGeometry
from lungseg.records.masks import Lesion
from lungseg.records.run_results import Segmentation
from lungseg.scans.formats import open_scan, read_mask, read_volume, write_mask
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.postprocessing import LesionMask, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter

__version__: str

__all__ = [
    "Grid",
    "Lesion",
    "LesionMask",
    "LungSegError",
    "ProbabilityMap",
    "ScanFinding",
    "ScanGeometry",
    "Segmentation",
    "Segmenter",
    "Volume",
    "__version__",
    "open_scan",
    "read_mask",
    "read_volume",
    "segment_scan",
    "write_mask",
]
