"""The three-plane viewer: a Streamlit component whose script, style and markup lie beside this module.

The scripts are one ES module, written in several files and joined here in the order of `SCRIPTS`; a component's script
is loaded from a blob and can't import its neighbours. The component is told addresses, never voxels, and loads only
what it does not hold yet, so that a rerun of the page costs it nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from lungseg.config import Settings
from lungseg.records import Lesion, Mask
from lungseg.scans.overlay import DOUBTFUL_RGB, MASK_RGB, REFERENCE_RGB
from lungseg.segmentation.postprocessing import DOUBTFUL_MARK, UINT8_ONE
from lungseg.services.checkpoints import name_of
from lungseg.services.rethreshold import ThresholdState
from lungseg.services.viewing import CaseView
from lungseg.ui.formatting import ago, duration, exact, run_seconds
from lungseg.ui.navigation import checkpoint_address
from lungseg.ui.threshold import select_threshold
from lungseg.web.routes import bundle_address, mask_address, scan_address

COMPONENT = "viewer_planes"
WITHOUT_WEBGL = "viewer_without_webgl"
FOLDER = Path(__file__).parent
WORKER_SCRIPTS = ("scan.js", "worker.js")
SCRIPTS = (
    *("scan.js", "loader.js", "planes.js", "solid.js", "marks.js", "panels.js"),
    *("memory.js", "wheel.js", "hands.js", "viewer.js"),
)


DOUBTFUL_NOTE = "Too improbable, or cut by an end of the scan: not in the counts and volumes, nor in the mask."


def _text(*names: str) -> str:
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def _script() -> str:
    return f"const WORKER_SOURCE = {json.dumps(_text(*WORKER_SCRIPTS))};\n{_text(*SCRIPTS)}"


_component = st.components.v2.component(
    "lungseg_viewer", html=_text("viewer.html"), css=_text("viewer.css"), js=_script()
)


def can_draw() -> bool:
    """Tell whether this browser can draw the planes, as far as is known: it says so itself where it has no WebGL2."""
    return not st.session_state.get(WITHOUT_WEBGL, False)


def viewer(settings: Settings, scene: CaseView, note: str) -> None:
    """Draw the viewer of a case.

    Args:
        settings: of the installation.
        scene: the case.
        note: what stands where the model's lesions will be, as long as there is no mask of it.
    """
    _component(
        key=COMPONENT,
        data=scene_data(settings, scene, note),
        height="content",
        on_webgl2_change=_note_missing,
        on_threshold_change=_note_threshold,
    )


def _note_missing() -> None:
    st.session_state[WITHOUT_WEBGL] = True


def _note_threshold() -> None:
    asked = st.session_state[COMPONENT]["threshold"]
    select_threshold(asked["maskId"], asked["level"])


def scene_data(settings: Settings, scene: CaseView, note: str) -> dict[str, Any]:
    """Turn a scene into what the component's script reads."""
    grid, orientation = scene.grid, scene.orientation
    return {
        "caseId": scene.case.id,
        "bundleUrl": bundle_address(settings),
        "scan": {"url": scan_address(settings, scene.case), "sha": scene.case.scan_sha256},
        "grid": {
            "shape": grid.shape,
            "spacingMm": grid.spacing_mm,
            "affine": grid.affine.tolist(),
            "axes": orientation.axes,
            "flips": orientation.flips,
        },
        "masks": {
            "model": _mask_data(settings, scene.model, scene.statement, scene.probability_meaning),
            "doubtful": _doubtful_data(settings, scene),
            "reference": _mask_data(settings, scene.reference, "No lesion in this mask", ""),
        },
        "caution": scene.caution,
        "findings": [{"severity": each.severity, "text": each.text, "remedy": each.remedy} for each in scene.remarks],
        "operation": _operation_data(scene.operation) if scene.operation else None,
        "provenance": _provenance(settings, scene),
        "colours": {"model": _shares(MASK_RGB), "doubtful": _shares(DOUBTFUL_RGB), "reference": _shares(REFERENCE_RGB)},
        "note": note,
    }


def _mask_data(settings: Settings, mask: Mask | None, statement: str, probability: str) -> dict[str, Any] | None:
    if mask is None:
        return None
    return {
        "url": mask_address(settings, mask),
        "sha": mask.sha256,
        "volumeMl": mask.volume_ml,
        "sliceVoxels": mask.slice_voxels,
        "statement": statement,
        "probabilityMeaning": probability,
        "lesions": [_lesion_data(lesion) for lesion in mask.lesions],
    }


def _doubtful_data(settings: Settings, scene: CaseView) -> dict[str, Any] | None:
    """Return what there is of doubtful lesions; they are listed, though not drawn, where their mask can't be had."""
    if scene.model is None or not scene.model.doubtful:
        return None
    marked = scene.marked
    return {
        "url": mask_address(settings, marked) if marked else None,
        "sha": marked.sha256 if marked else None,
        "mark": DOUBTFUL_MARK,
        "volumeMl": sum(lesion.volume_ml for lesion in scene.model.doubtful),
        "sliceVoxels": marked.slice_voxels if marked else [],
        "statement": DOUBTFUL_NOTE if marked else f"{DOUBTFUL_NOTE} Their outlines are not there any more.",
        "probabilityMeaning": scene.probability_meaning,
        "lesions": [_lesion_data(lesion) for lesion in scene.model.doubtful],
    }


def _operation_data(operation: ThresholdState) -> dict[str, Any]:
    return {
        "maskId": operation.mask_id,
        "at": operation.at,
        "default": [choice.level for choice in operation.choices].index(operation.default),
        "choices": [
            {"level": choice.level, "threshold": f"{choice.threshold:.2f}", "expected": choice.expected}
            for choice in operation.choices
        ],
        "reason": operation.reason,
    }


def _lesion_data(lesion: Lesion) -> dict[str, Any]:
    return {
        "number": lesion.number,
        "volumeMl": lesion.volume_ml,
        "probability": lesion.probability,
        "centreMm": lesion.centre_mm,
        "centreIndex": lesion.centre_index,
        "extentMm": lesion.extent_mm,
        "slices": lesion.slices,
    }


def _provenance(settings: Settings, scene: CaseView) -> list[tuple[str, str, str, str]]:
    """List how the model's mask came about: label, value, its whole where it is shortened, address of more about it."""
    run, mask, operation = scene.made_by, scene.model, scene.operation
    if run is None or mask is None or operation is None:
        return []
    sha256, seconds = run.checkpoint_sha256 or "", run.result.get("seconds") or run_seconds(run)
    carded = name_of(settings, sha256) if sha256 else None
    rows = [
        ("Fingerprint", sha256[:12], f"SHA-256 of its weights: {sha256}"),
        ("Threshold", _threshold(operation), ""),
        ("Code", run.code_version, run.code_version),
        ("Device", run.device or "", run.device or ""),
        ("Took", duration(seconds) if seconds is not None else "", ""),
        ("Made", ago(mask.created_at), exact(mask.created_at)),
        ("Result", f"no. {mask.version} of this case", f"SHA-256 of the mask: {mask.sha256}"),
    ]
    card = ("Checkpoint", run.checkpoint or "", run.checkpoint or "", checkpoint_address(carded) if carded else "")
    return [card, *((label, value, whole or value, "") for label, value, whole in rows if value)]


def _threshold(operation: ThresholdState) -> str:
    shown, default = (f"{level / UINT8_ONE:.2f}" for level in (operation.level, operation.default))
    return shown if operation.level == operation.default else f"{shown}; the checkpoint's is {default}"


def _shares(colour: tuple[int, int, int]) -> list[float]:
    return [channel / 255 for channel in colour]
