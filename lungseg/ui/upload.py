"""Upload of scans: the drop zone and, for each file, its outcome."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import streamlit as st
from markupsafe import Markup

from lungseg.errors import LungSegError, SetupError, StorageError, TwinError, UploadBusyError, UploadCrashedError
from lungseg.services import cases, intake, resumable
from lungseg.ui.drop_zone import drop_area
from lungseg.ui.faults import log_fault
from lungseg.ui.html import bold, draw, joined, tag
from lungseg.ui.navigation import viewer_page
from lungseg.ui.resources import installation, settings

log = logging.getLogger(__name__)

FORGOTTEN_S = 120.0
"""An upload that has been whole for so long was sent by a page that was closed before it could say so."""
KEPT = "The upload is kept: reload the page in a few minutes to try again, nothing has to be sent once more."
MOST_NAMES = 3
"""Files that the line about those taken in names."""


@dataclass(frozen=True, slots=True)
class UploadOutcome:
    """The outcome of one file.

    Attributes:
        name: of the file.
        error: why it was refused or could not be queued; None where it became a case.
        place: of the file in its drop, 0 for the first.
    """

    name: str
    error: LungSegError | None = None
    place: int = 0

    @property
    def twin_id(self) -> str | None:
        """Id of the case that is the same scan; None where it was not refused for that."""
        return self.error.case_id if isinstance(self.error, TwinError) else None


def drop_zone() -> None:
    """Draw the drop zone; what arrives becomes cases or intakes; a bad file never stops the others.

    An upload is noted before it is taken in, so that no rerun of the page takes it in twice, whatever ended the run
    before; another session or a later page finds it gone. What a page left behind that was closed too early is taken in
    by the next one.
    """
    handled: set[str] = st.session_state.setdefault("upload_handled", set())
    arrivals = drop_area(settings(), handled)
    left = resumable.forgotten_groups(settings(), FORGOTTEN_S)
    handled.intersection_update((*arrivals.groups, *left))  # the others are gone
    waiting = [group for group in dict.fromkeys((*arrivals.groups, *left)) if group not in handled]
    if waiting:
        if st.session_state.get("upload_drop") != arrivals.drop:
            st.session_state["upload_drop"] = arrivals.drop
            st.session_state["upload_outcomes"] = []
        with st.container(key="upload_progress"):
            _take_in_all(waiting, handled, st.session_state.setdefault("upload_outcomes", []))
        st.rerun()
    _show_outcomes(st.session_state.get("upload_outcomes", []))


def _take_in_all(groups: list[str], handled: set[str], outcomes: list[UploadOutcome]) -> None:
    """Take uploads in, one after the other; each outcome is noted at once, since any rerun may end this one."""
    bar = st.progress(0.0)
    for number, group in enumerate(groups):
        bar.progress(number / len(groups), f"Taking in {number + 1} of {len(groups)}")
        handled.add(group)
        outcome = _take_in(group)
        if outcome is not None:
            outcomes.append(outcome)


def _take_in(group: str) -> UploadOutcome | None:
    """Make a case or an intake of the uploads of a group.

    Returns:
        What to say of it; None for an intake, which has a line of its own, or where another session takes it in.
    """
    name, place = "The upload", 0
    try:
        with resumable.taking_in(settings(), group) as uploads:
            first = uploads[0].announcement
            name, place = first.name, first.place
            if first.is_scan and not intake.is_for_intake(uploads[0].path):
                with uploads[0].path.open("rb") as stream:
                    cases.submit(installation(), name, stream, place=place)
            else:
                files = [(upload.announcement.name, upload.path) for upload in uploads]
                intake.begin(installation(), files, place=place, intake_id=uploads[0].id)
                return None
    except UploadBusyError:
        return None
    except (SetupError, StorageError) as error:
        return UploadOutcome(name, type(error)(error.found, f"{error.remedy} {KEPT}"), place)
    except LungSegError as error:
        return UploadOutcome(name, error, place)
    except Exception as error:  # noqa: BLE001 - a fault of ours; it is logged, and the other files go on
        return UploadOutcome(name, _crashed(error), place)
    return UploadOutcome(name, place=place)


def _crashed(error: Exception) -> UploadCrashedError:
    reference = log_fault(log, "upload %s could not be taken in", error)
    return UploadCrashedError(
        f"The file could not be taken in: LungSeg has met a fault of its own (reference {reference}).",
        "Upload it once more. If that fails too, tell whoever runs the server the reference, which stands in the log "
        "of the server.",
    )


def _show_outcomes(outcomes: list[UploadOutcome]) -> None:
    if not outcomes:
        return
    with st.container(key="upload_outcomes"):
        with st.container(horizontal=True, vertical_alignment="center"):
            draw(tag("p", _taken_in(outcomes), css="lungseg-taken", role="status"))
            clear: dict[str, list[UploadOutcome]] = {"upload_outcomes": []}
            st.button("Clear", key="upload_clear", on_click=st.session_state.update, args=(clear,), type="tertiary")
        items = []
        for outcome in outcomes:
            if (error := outcome.error) and not outcome.twin_id:
                texts = (bold(outcome.name), error.found, tag("span", error.remedy), tag("code", error.code))
                items.append(tag("li", joined(texts, " "), css="failed"))
        if items:
            draw(tag("ul", *items, css="lungseg-outcomes"))
        _ask_about([(number, outcome) for number, outcome in enumerate(outcomes) if outcome.twin_id])


def _taken_in(outcomes: list[UploadOutcome]) -> Markup:
    """Say which files became cases, and how many did not; the list of cases shows their progress."""
    names = [outcome.name for outcome in outcomes if outcome.error is None]
    rest = len(outcomes) - len(names)
    listed = joined((bold(name) for name in names[:MOST_NAMES]), ", ")
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    not_taken = f"{rest} not taken in." if rest else ""
    return joined([listed, f"{more} taken in. " if names else "", not_taken])


def _ask_about(twins: list[tuple[int, UploadOutcome]]) -> None:
    """Ask what to do with files that are cases already; none is taken in before the answer, and none is lost."""
    names = {summary.case.id: summary.case.name for summary in cases.list_cases(installation())} if twins else {}
    for number, outcome in twins:
        name = names.get(outcome.twin_id or "")
        with st.container(key=f"upload_twin_{number}", horizontal=True, vertical_alignment="center"):
            gone = (" was the same scan as a case that has been deleted since: upload it again.",)
            same = (" is the same scan as ", bold(name), ".") if name else gone
            draw(tag("p", bold(outcome.name), *same, css="lungseg-twin"))
            if name:
                query = {"case": outcome.twin_id or ""}
                st.page_link(viewer_page(), label="Open that case", query_params=query, width=130)
                st.button("Take in again", key=f"upload_again_{number}", on_click=_take_in_again, args=([number],))
    if len(twins) > 1:
        numbers = [number for number, _ in twins]
        st.button("Take in all of these again", key="upload_again_all", on_click=_take_in_again, args=(numbers,))


def _take_in_again(numbers: list[int]) -> None:
    """Make second cases of the bytes that are stored already."""
    outcomes: list[UploadOutcome] = st.session_state["upload_outcomes"]
    for number in numbers:
        outcome = outcomes[number]
        try:
            cases.submit_again(installation(), outcome.twin_id or "", outcome.name, place=outcome.place)
        except LungSegError as error:
            outcomes[number] = UploadOutcome(outcome.name, error, outcome.place)
        else:
            outcomes[number] = UploadOutcome(outcome.name)
