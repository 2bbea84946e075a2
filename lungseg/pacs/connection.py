"""A connection to a DICOMweb server: its credentials, its certificate, and what its failures mean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import HTTPBasicAuth

from lungseg.errors import NotDicomwebError, PacsUnauthorisedError, PacsUnreachableError, SetupError
from lungseg.pacs_settings import PacsSettings

UNAUTHORISED = frozenset({401, 403})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of a server that may answer otherwise later."""
PIECE_BYTES = 64 * 1024
MOST_ANSWER_BYTES = 32 * 1024**2
"""Of an answer that is held as a whole; a page of 100 studies has about 100 KB."""
AGAIN = "Check that it runs and its log, then try again."


class _Session(requests.Session):
    """A session that bounds what it reads and for how long.

    Its addresses have wildcards as they are: Orthanc 1.10 does not know them percent-encoded.

    Args:
        longest_s: in which an answer has to arrive; the library's own limit is for each piece of it.
    """

    def __init__(self, longest_s: float) -> None:
        super().__init__()
        self._longest_s = longest_s

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Return the request with its wildcards."""
        prepared = super().prepare_request(request)
        prepared.url = prepared.url and prepared.url.replace("%2A", "*").replace("%3F", "?")
        return prepared

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Return the answer, which may drip in for ever only where it is read as a stream.

        Raises:
            requests.exceptions.TooManyRedirects: it leads elsewhere; what it holds besides is not read.
            requests.exceptions.ReadTimeout: it is not there as a whole in time.
            NotDicomwebError: it is longer than any answer.
        """
        response = super().send(request, **(options | {"stream": True, "allow_redirects": False}))
        if response.is_redirect:
            response.close()
            raise requests.exceptions.TooManyRedirects(request=request)
        return response if options.get("stream") else self._whole(response)

    def _whole(self, response: requests.Response) -> requests.Response:
        ends_at_s, content = time.monotonic() + self._longest_s, bytearray()
        with response:
            for piece in response.iter_content(PIECE_BYTES):
                content += piece
                if time.monotonic() > ends_at_s:
                    raise requests.exceptions.ReadTimeout(request=response.request)
                if len(content) > MOST_ANSWER_BYTES:
                    raise NotDicomwebError("The server's answer has no end.", "Check LUNGSEG_DICOMWEB_URL.")
        whole = requests.Response()
        whole.status_code, whole.reason, whole.headers = response.status_code, response.reason, response.headers
        whole.url, whole.request, whole.encoding = response.url, response.request, response.encoding
        whole.raw = BytesIO(content)
        return whole


@contextmanager
def opened_session(settings: PacsSettings, url: str) -> Iterator[requests.Session]:
    """Open a session with the server at `url`, without the proxies and passwords that the environment may name.

    Credentials of the settings go to the host of `PacsSettings.dicomweb_url` alone.

    Raises:
        SetupError: there is no address, or the file of credentials or certificates can't be read.
    """
    if not url:
        raise SetupError("No DICOMweb server is set.", "Set LUNGSEG_DICOMWEB_URL and start again; see docs/pacs.md.")
    with _Session(settings.timeout_s) as session:
        session.trust_env = False
        if settings.ca_file:
            _read(settings.ca_file)
            session.verify = str(settings.ca_file)
        if _origin(url) == _origin(settings.dicomweb_url):
            if settings.dicomweb_login:
                user, _, password = _read(settings.dicomweb_login).partition(":")
                session.auth = HTTPBasicAuth(user.encode(), password.encode())  # RFC 7617
            elif settings.dicomweb_token:
                session.headers["Authorization"] = f"Bearer {_read(settings.dicomweb_token)}"
        yield session


@contextmanager
def named_failures(settings: PacsSettings) -> Iterator[None]:
    """Turn what a request of the block meets into errors with a remedy; the text of none holds the address.

    Raises:
        PacsUnreachableError: nobody answers, in time or at all, or the server is busy.
        PacsUnauthorisedError: the server does not know these credentials.
        NotDicomwebError: something else answers.
    """
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise PacsUnreachableError(
            "The certificate of the PACS is not trusted.",
            "Name the file of its issuer's certificate in LUNGSEG_PACS_CA.",
        ) from error
    except requests.exceptions.Timeout as error:
        raise PacsUnreachableError(
            f"The PACS does not answer in {settings.timeout_s} s.", f"{AGAIN} LUNGSEG_PACS_TIMEOUT sets the time."
        ) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise PacsUnreachableError(
            "The PACS can't be reached, or broke off.", f"{AGAIN} Its address stands in LUNGSEG_DICOMWEB_URL."
        ) from error
    except requests.exceptions.TooManyRedirects as error:
        raise NotDicomwebError(
            "The server sends us on to another address.", "Set LUNGSEG_DICOMWEB_URL to the address that it sends to."
        ) from error
    except requests.exceptions.HTTPError as error:
        raise _refusal(error.response) from error
    except (requests.exceptions.RequestException, ValueError, RecursionError) as error:  # no JSON, or no address
        raise NotDicomwebError(
            "What answers at the address is no DICOMweb server.",
            "Set LUNGSEG_DICOMWEB_URL to the address below which /studies lies; of Orthanc it ends in /dicom-web.",
        ) from error


def _refusal(response: requests.Response | None) -> PacsUnauthorisedError | PacsUnreachableError | NotDicomwebError:
    status = 0 if response is None else response.status_code
    if status in UNAUTHORISED:
        return PacsUnauthorisedError(
            f"The PACS does not let us in (status {status}).",
            "Check LUNGSEG_DICOMWEB_LOGIN or LUNGSEG_DICOMWEB_TOKEN, and what the account may do.",
        )
    if status in BUSY:
        return PacsUnreachableError(f"The PACS answers with status {status}.", AGAIN)
    return NotDicomwebError(
        f"The server answers with status {status} where DICOMweb has an answer.",
        "Set LUNGSEG_DICOMWEB_URL to the address below which /studies lies; of Orthanc it ends in /dicom-web.",
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # a request will say so
        return "", url, None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            f"{path} can't be read ({getattr(error, 'strerror', None) or 'no text'}).",
            "Check the file that LUNGSEG_DICOMWEB_LOGIN, LUNGSEG_DICOMWEB_TOKEN or LUNGSEG_PACS_CA names.",
        ) from error
