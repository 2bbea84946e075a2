"""The middle and the right side of the page Data set: figures, and a table of the cases."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import streamlit as st

from lungseg.dataset.statistics import CaseStatistics, Statistics, to_csv
from lungseg.decoding import to_plain
from lungseg.figures.dataset import bars, hu_histogram, lung_map, spacings
from lungseg.records.data_sets import RegisteredDataSet
from lungseg.records.run_states import RunState
from lungseg.services import datasets
from lungseg.services.datasets import Overview
from lungseg.ui.html import bold, div, draw, draw_quiet, tag
from lungseg.ui.resources import settings
from lungseg.ui.widgets import draw_chart, facts, small_heading, with_note
from lungseg.web.routes import picture_address
from lungseg.wording import counted

MOST_OVERVIEWS = 8
ROW_PX, HEAD_PX, TABLE_PX = 52, 38, 770


def overview_of(data_set: RegisteredDataSet | None) -> Overview | None:
    """Return the overview of a data set, the former one while it is prepared again; None where there is none yet."""
    if data_set is None or data_set.run is None:
        return None
    before: tuple[str, Overview | None] = st.session_state.get("dataset_overview", ("", None))
    if not data_set.run.state.is_final:
        return before[1] if before[0] == data_set.id else None
    overview = _overview(data_set.id, data_set.run.id, data_set.run.state)
    st.session_state["dataset_overview"] = (data_set.id, overview)
    return overview


@st.cache_resource(max_entries=MOST_OVERVIEWS, show_spinner=False)
def _overview(data_set_id: str, run_id: str, state: RunState) -> Overview | None:  # noqa: ARG001 - parts of the key
    return datasets.data_set_overview(settings(), data_set_id)


def no_figures_yet(data_set: RegisteredDataSet | None) -> None:
    """Say what to do first, or that the worker prepares the data set."""
    if data_set is None:
        st.info(
            "There is no data set yet. Enter the folder of one at the left: its scans are read once, then their "
            "figures, findings and slices for training are here. The same from the command line: "
            "`lungseg prepare FOLDER -o STORE`, `lungseg stats FOLDER`, `lungseg lint FOLDER`.",
            icon=":material/folder_open:",
        )
    elif data_set.run and not data_set.run.state.is_final:
        draw_quiet("The figures appear here when all scans have been read.")
    else:
        st.info("This data set is not prepared. Choose “Prepare again” at the left.", icon=":material/refresh:")


def figures(statistics: Statistics) -> None:
    """Draw the figures of a data set."""
    with st.container(key="dataset_figures"):
        _counts(statistics)
        small_heading("Hounsfield units")
        draw_chart(hu_histogram(statistics.hu), "dataset_hu")
        small_heading("Location of tumours", tag("span", "in the bounding box of the lungs, all cases"))
        draw_chart(lung_map(statistics.lung_map), "dataset_places")
        charts = (
            ("Tumour per case", bars(statistics.tumour_ml, "ml"), "dataset_volumes"),
            ("Slices with tumour", bars(statistics.tumour_extent, "slices"), "dataset_extents"),
            ("Spacing", spacings(statistics.rows), "dataset_spacing"),
        )
        for cell, (title, figure, key) in zip(st.columns(3, gap="small"), charts, strict=True):
            with cell:
                small_heading(title)
                draw_chart(figure, key)


def data_set_table(data_set: RegisteredDataSet, overview: Overview) -> None:
    """Draw a row for each case, with its picture and its findings."""
    rows = overview.statistics.rows
    with st.container(key="dataset_cases", horizontal=True, vertical_alignment="center", gap="small"):
        small_heading(f"Cases · {len(rows)}")
        _download("CSV", to_csv(rows), "text/csv", f"{data_set.id[:8]}-cases.csv")
        report = json.dumps(to_plain(overview.statistics), allow_nan=False)
        _download("JSON", report, "application/json", f"{data_set.id[:8]}-statistics.json")
    st.dataframe(
        _columns(data_set.id, overview),
        key="dataset_table",
        hide_index=True,
        height=min(TABLE_PX, HEAD_PX + len(rows) * ROW_PX),
        row_height=ROW_PX,
        column_config=_column_looks(),
        placeholder="",
    )


def _counts(statistics: Statistics) -> None:
    ratio = statistics.imbalance_ratio
    share = statistics.tumour_slices / statistics.slices if statistics.slices else 0.0
    others = [(statistics.unlabelled, "without mask"), (statistics.left_out, "left out")]
    beside = ", ".join(f"{count} {word}" for count, word in others if count)
    facts(
        [
            ("Cases with mask", with_note(str(statistics.cases), beside)),
            ("Patients", str(statistics.patients)),
            ("Slices", f"{statistics.slices:,}"),
            ("With tumour", with_note(f"{statistics.tumour_slices:,}", f"{100 * share:.1f} %")),
        ]
    )
    if ratio is not None:
        draw_quiet(
            "There are ", bold(f"{ratio:.2f}"), " slices without tumour for each slice with tumour. Training draws the "
            f"latter {ratio:.2f} times as often as the others, so that half of its slices hold tumour.",
        )  # fmt: skip
    title = f"{statistics.tumour_slices} of {statistics.slices} slices hold tumour"
    draw(div("lungseg-share", tag("i", style=f"width:{100 * share:.2f}%"), title=title))


def _download(label: str, content: str, mime: str, name: str) -> None:
    st.download_button(
        label, content, file_name=name, mime=mime, on_click="ignore", key=f"dataset_{label.lower()}", type="tertiary"
    )


def _columns(data_set_id: str, overview: Overview) -> dict[str, list[Any]]:
    """Return the columns of the table."""
    rows = overview.statistics.rows
    findings = _finding_counts(overview)
    return {
        "": [_picture(data_set_id, row, overview) for row in rows],
        "Case": [row.case for row in rows],
        "Tumour": [row.tumour_ml for row in rows],
        "Slices": [_slices(row) for row in rows],
        "Lesions": [row.lesions for row in rows],
        "Findings": [findings.get(row.case, "") for row in rows],
        "Patient": [row.patient for row in rows],
        "Spacing": [
            f"{row.pixel_mm:.2f} · {row.slice_mm:.2f}" if row.pixel_mm and row.slice_mm else "" for row in rows
        ],
        "Largest": [row.largest_extent_mm for row in rows],
        "Lungs": [row.lungs_ml for row in rows],
        "Axes": [row.orientation for row in rows],
    }


def _column_looks() -> dict[str, Any]:
    look = st.column_config
    return {
        "": look.ImageColumn(width=56),
        "Case": look.TextColumn(width=92),
        "Tumour": look.NumberColumn("ml", format="%.2f", width=58, help="Tumour volume."),
        "Slices": look.TextColumn(width=68, help="Slices with tumour / all slices."),
        "Lesions": look.NumberColumn("Lesions", width=62),
        "Findings": look.TextColumn(width=110),
        "Patient": look.TextColumn(width=92),
        "Spacing": look.TextColumn("Pixel · slice (mm)", width=112),
        "Largest": look.NumberColumn(
            "Largest (mm)", format="%.0f", width=96, help="Longest side of the largest lesion."
        ),
        "Lungs": look.NumberColumn("Lungs (ml)", format="%.0f", width=84),
        "Axes": look.TextColumn(width=56),
    }


def _picture(data_set_id: str, row: CaseStatistics, overview: Overview) -> str | None:
    picture = overview.pictures.get(row.case)
    return picture_address(settings(), data_set_id, row.case, picture) if picture else None


def _slices(row: CaseStatistics) -> str:
    if row.slices is None:
        return "–"
    return f"{row.tumour_slices} / {row.slices}" if row.tumour_slices is not None else f"– / {row.slices}"


def _finding_counts(overview: Overview) -> dict[str, str]:
    """Count the errors and warnings of each case, as text."""
    counts = Counter((finding.case, finding.severity.lower()) for finding in overview.findings if finding.case)
    texts: dict[str, list[str]] = {}
    for (case, severity), count in sorted(counts.items()):
        texts.setdefault(case, []).append(counted(count, severity))
    return {case: ", ".join(parts) for case, parts in texts.items()}
