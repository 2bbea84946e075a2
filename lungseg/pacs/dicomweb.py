"""The DICOMweb client: QIDO-RS to search, WADO-RS to retrieve, STOW-RS to store.

Searching goes through dicomweb-client. Files go both ways as they are, byte for byte, and are never held as a whole
series: the library would read each by pydicom and write it anew.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import requests
from dicomweb_client import DICOMwebClient

from lungseg.config import Settings
from lungseg.errors import (
    NotDicomwebError,
    NotFoundError,
    PacsError,
    PacsRefusedError,
    PacsUnreachableError,
    TooLargeError,
)
from lungseg.files.atomic import disk_errors
from lungseg.pacs.connection import named_failures, opened_session
from lungseg.pacs.multipart import boundary_of, join_parts, split_parts
from lungseg.pacs.queries import MOST_STUDIES, PacsAnswer, PacsQuery, PacsSeries, PacsStudy, check_uid
from lungseg.pacs_settings import PacsSettings
from lungseg.scans.reader import Advance
from lungseg.wording import counted

PAGE, MOST_PAGES = 100, 200
"""Studies asked for at once; and how often, for all that is asked. A server may give fewer at once."""
FIELDS = ("StudyDescription", "ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
"""What a server may leave out unless it is asked for."""
CHUNK_BYTES = 1024**2
BATCH_BYTES = 50 * 1024**2
"""Of what is stored in one request."""
TRIES = 3
"""Storing the same instances again changes nothing, so that a batch can be sent as often as it needs."""
REFUSALS = frozenset({400, 409, 413, 415, 422})
"""Statuses of STOW answers: nothing was stored. With 409 the answer says of each instance why."""
Item: TypeAlias = dict[str, Any]
"""A data set in the DICOM JSON model: attributes by tag."""


def search(settings: Settings, query: PacsQuery) -> PacsAnswer:
    """Return studies with CT images, newest first, or the series of one study.

    Of more studies than are listed, those stay that the server names first: QIDO-RS has no order.

    Raises:
        SetupError: no server is set, or the file of its credentials can't be read.
        PacsError: nothing bounds the search, or the server does not answer as one should.
    """
    pacs = settings.pacs
    with opened_session(pacs, pacs.dicomweb_url) as session, named_failures(pacs):
        client = _client(session, pacs)
        if query.study_uid:
            return PacsAnswer(series=_series_in(client, query.study_uid))
        filters = _filters(query)
        studies: dict[str, PacsStudy] = {}
        for item in _pages(
            lambda offset: client.search_for_studies(limit=PAGE, offset=offset, fields=FIELDS, search_filters=filters)
        ):
            study = _study(item)
            if not study.modalities or "CT" in study.modalities:
                studies[study.study_uid] = study
            if len(studies) > MOST_STUDIES:
                break
    newest = sorted(studies.values(), key=lambda study: study.date, reverse=True)
    return PacsAnswer(studies=tuple(newest[:MOST_STUDIES]), is_complete=len(newest) <= MOST_STUDIES)


def retrieve_study(
    settings: Settings, study_uid: str, series_uid: str, folder: Path, *, on_progress: Advance | None = None
) -> tuple[Path, ...]:
    """Write the CT instances of a study, or all of one series of it, into a folder, byte for byte as the PACS has them.

    Args:
        settings: name the server.
        study_uid: of the study.
        series_uid: of the only series of it; empty for all that are CT.
        folder: is there, and empty; the files are called by their number.
        on_progress: takes instances that have arrived, and those that the PACS announces; what it raises ends it all.

    Raises:
        NotFoundError: the PACS has no such series.
        TooLargeError: they hold more bytes than an upload may.
        PacsError: the server does not answer as one should, or sends fewer instances than it announces.
        SetupError: as `search`.
        StorageError: the disk refuses.
    """
    pacs = settings.pacs
    paths: list[Path] = []
    with opened_session(pacs, pacs.dicomweb_url) as session:
        with named_failures(pacs):
            chosen = _chosen_series(_client(session, pacs), study_uid, series_uid)
        total = sum(series.instances or 0 for series in chosen)
        left = settings.limits.upload_bytes
        for series in chosen:
            before, last = len(paths), 0
            url = (
                f"{pacs.dicomweb_url.rstrip('/')}/studies/{check_uid(study_uid)}/series/{check_uid(series.series_uid)}"
            )
            for number, piece in _instances(session, pacs, url):
                if number != last:  # a part without content has no piece, and is no file
                    paths.append(folder / f"{len(paths) + 1:06}")
                last, left = number, left - len(piece)
                if left < 0 or len(paths) > settings.limits.files:
                    raise TooLargeError(
                        f"The study holds more {'bytes' if left < 0 else 'files'} than an upload may.",
                        "Retrieve its series singly.",
                    )
                with disk_errors("A file of the study"), paths[-1].open("ab") as stream:
                    stream.write(piece)
                if on_progress:
                    on_progress(len(paths), max(total, len(paths)))
            _check_complete(series, len(paths) - before)
    return tuple(paths)


def store(settings: Settings, url: str, files: Sequence[Path]) -> None:
    """Store DICOM files on a DICOMweb server, in batches; what is there already stays as it is.

    Raises:
        PacsRefusedError: the server refuses instances, and how many.
        PacsError: it does not answer as one should.
        SetupError: as `search`.
    """
    with opened_session(settings.pacs, url) as session:
        for batch in _batches(files):
            _store(session, settings.pacs, url, batch)


def _client(session: requests.Session, settings: PacsSettings) -> DICOMwebClient:
    client = DICOMwebClient(settings.dicomweb_url.rstrip("/"), session=session, timeout=settings.timeout_s)
    client.set_http_retry_params(retry=False)  # somebody waits
    return client


def _filters(query: PacsQuery) -> dict[str, str]:
    """Return the filters of QIDO-RS; a search that nothing bounds could return a whole archive.

    Only characters that stand in an address as they are: Orthanc 1.10 finds nothing where a value is percent-encoded,
    as a blank is. A wildcard stands for each other character of an ID, and for several of them in a name. Nor may the
    modality be a filter: with it, the same Orthanc gives an empty second page.
    """
    dates = "-".join(day.replace("-", "") for day in (query.date_from, query.date_to))
    filters = {
        "PatientID": re.sub(r"[^\w.~*?-]", "?", query.patient_id.strip(), flags=re.ASCII),
        "PatientName": _part(query.patient_name),
        "StudyDate": dates if dates.strip("-") else "",
        "StudyDescription": _part(query.description),
    }
    filters = {keyword: value for keyword, value in filters.items() if value.strip("*?")}
    if not filters:
        raise PacsError("The search has no bounds.", "Give a patient, a date or a description.")
    return filters


def _part(text: str) -> str:
    """Return what matches a value that holds these words in this order."""
    words = re.sub(r"[^\w.~-]+", "*", text, flags=re.ASCII).strip("*")
    return f"*{words}*" if words else ""


def _pages(ask: Callable[[int], list[Item]]) -> Iterator[Item]:
    """Yield all results page by page, whatever the server's own cap, until a page is empty or one that was there.

    A page that is shorter than asked for may be capped; one that begins as the page before comes from a server that
    passes the offset over, and would come for ever.
    """
    offset, first = 0, None
    for _ in range(MOST_PAGES):
        page: Any = ask(offset)
        if not isinstance(page, list):
            raise NotDicomwebError("The server answers with no list of data sets.", "Check LUNGSEG_DICOMWEB_URL.")
        if not page or page[0] == first:
            return
        yield from page
        offset, first = offset + len(page), page[0]
    raise NotDicomwebError("The server's answer has no end.", "Narrow the search down, or look into the PACS's log.")


def _series_in(client: DICOMwebClient, study_uid: str) -> tuple[PacsSeries, ...]:
    uid = check_uid(study_uid)
    items = _pages(lambda offset: client.search_for_series(uid, limit=PAGE, offset=offset))
    series = {item_series.series_uid: item_series for item_series in map(_series, items)}
    return tuple(series.values())


def _chosen_series(client: DICOMwebClient, study_uid: str, series_uid: str) -> list[PacsSeries]:
    """Return the series to retrieve; raises NotFoundError where there is none."""
    series = _series_in(client, study_uid)
    chosen = [item for item in series if (item.series_uid == series_uid if series_uid else item.modality in {"CT", ""})]
    if not chosen:
        raise NotFoundError(
            "The PACS has no such CT series.", "Search again: the study may have been moved or deleted."
        )
    return chosen


def _instances(session: requests.Session, settings: PacsSettings, url: str) -> Iterator[tuple[int, bytes]]:
    """Yield the files of a series in pieces, each with the number of its file."""
    # without the transfer syntax, Orthanc decompresses; the type is quoted as RFC 2387 has it
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    with (
        named_failures(settings),
        session.get(url, headers=headers, stream=True, timeout=settings.timeout_s) as response,
    ):
        response.raise_for_status()
        boundary = boundary_of(response.headers.get("Content-Type", ""))
        yield from split_parts(response.iter_content(CHUNK_BYTES), boundary)


def _check_complete(series: PacsSeries, arrived: int) -> None:
    if arrived < max(series.instances or 0, 1):
        raise PacsError(
            f"The PACS announces {series.instances} instances of a series and sends {arrived}.",
            "Retrieve it again; if that does not help, let the PACS send the study to `lungseg listen`.",
        )


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in files:
        length = path.stat().st_size
        if batch and size + length > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += length
    if batch:
        yield batch


def _store(session: requests.Session, settings: PacsSettings, url: str, batch: Sequence[Path]) -> None:
    """Store a batch, again where the server is busy or the line breaks."""
    boundary = secrets.token_hex(16)
    body = join_parts((path.read_bytes() for path in batch), boundary.encode())
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    address = f"{url.rstrip('/')}/studies"
    for attempt in range(1, TRIES + 1):
        try:
            with named_failures(settings):
                response = session.post(address, data=body, headers=headers, timeout=settings.timeout_s)
                if response.status_code not in REFUSALS:
                    response.raise_for_status()
                _check_stored(response, len(batch))
                return
        except PacsUnreachableError:
            if attempt == TRIES:
                raise


def _check_stored(response: requests.Response, sent: int) -> None:
    """Raise PacsRefusedError where instances failed, or are not named as stored; an empty list of failures is none.

    Raises NotDicomwebError where the answer is none of a store, such as the page of a login.
    """
    content_type = response.headers.get("Content-Type", "")
    is_json = "json" in content_type
    if response.content and not is_json and response.status_code not in REFUSALS:
        raise NotDicomwebError(
            f"The server sends {content_type.partition(';')[0] or 'something'} instead of what it has stored.",
            "Check the address of the destination; nothing counts as sent.",
        )
    answer: Any = response.json() if response.content and is_json else {}
    item: Any = answer[0] if isinstance(answer, list) and answer else answer
    failed = [failure for failure in _values(item, "00081198") if isinstance(failure, dict)]
    if failed or response.status_code in REFUSALS:
        reasons = sorted({_text(failure, "00081197") for failure in failed} - {""})
        why = f"reason {', '.join(reasons)}" if reasons else f"status {response.status_code}"
        raise PacsRefusedError(
            f"The PACS refuses {counted(len(failed), 'result') if failed else 'the results'} ({why}).",
            "Look into its log: it may not take objects of this kind, or into this study.",
        )
    stored = _values(item, "00081199")
    if len(stored) < sent:
        raise PacsRefusedError(
            f"The PACS names {len(stored)} of {counted(sent, 'result')} as stored.",
            "Look into its log, then send again.",
        )


def _study(item: Item) -> PacsStudy:
    return PacsStudy(
        study_uid=check_uid(_text(item, "0020000D")),
        patient_id=_text(item, "00100020"),
        patient_name=_text(item, "00100010"),
        date=_date(_text(item, "00080020")),
        description=_text(item, "00081030"),
        modalities=tuple(str(value) for value in _values(item, "00080061")),
        series=_number(item, "00201206"),
        instances=_number(item, "00201208"),
    )


def _series(item: Item) -> PacsSeries:
    return PacsSeries(
        series_uid=check_uid(_text(item, "0020000E")),
        modality=_text(item, "00080060"),
        number=_text(item, "00200011"),
        description=_text(item, "0008103E"),
        instances=_number(item, "00201209"),
    )


def _values(item: Any, tag: str) -> list[Any]:
    attribute = item.get(tag) if isinstance(item, dict) else None
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def _text(item: Item, tag: str) -> str:
    """Return the first value of an attribute; of a name, that in letters."""
    value = next(iter(_values(item, tag)), "")
    if isinstance(value, dict):
        value = value.get("Alphabetic", "")
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _number(item: Item, tag: str) -> int | None:
    text = _text(item, tag)
    return int(text) if text.isdecimal() else None


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if re.fullmatch(r"\d{8}", text) else text
