"""Settings of the PACS: the DICOMweb server, the listener, and where results may be sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lungseg.errors import SetupError
from lungseg.setting import HIGHEST_PORT, setting

DESTINATION = re.compile(
    r"(?P<name>[\w .-]{1,40})=((?P<aet>[\x21-\x3f\x41-\x5b\x5d-\x7e]{1,16})@(?P<host>[A-Za-z0-9._-]+):(?P<port>\d{1,5})|(?P<url>https?://[^\s,]+))"
)
"""A PACS that results are sent to: `archive=ORTHANC@10.0.0.5:4242` (C-STORE) or `archive=https://.../dicom-web`."""
AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")
"""An application entity's title; blanks and backslashes are left out."""


@dataclass(frozen=True, slots=True)
class PacsSettings:
    """How this installation talks to a PACS. By default it does not: nobody is asked, and nobody may send.

    A `dicomweb_login` holds `user:password`, a `dicomweb_token` the token alone; both go to the host of `dicomweb_url`
    and to no other.
    """

    dicomweb_url: str = setting(
        "LUNGSEG_DICOMWEB_URL",
        "address of the DICOMweb server that the page PACS searches: `http://127.0.0.1:8042/dicom-web`",
        "Give its whole address, with http:// or https://.",
        default="",
    )
    dicomweb_login: Path | None = setting(
        "LUNGSEG_DICOMWEB_LOGIN", "file that holds `user:password` for it", default=None
    )
    dicomweb_token: Path | None = setting(
        "LUNGSEG_DICOMWEB_TOKEN", "file that holds a bearer token for it", default=None
    )
    ca_file: Path | None = setting(
        "LUNGSEG_PACS_CA",
        "certificates (PEM) that a DICOMweb server is checked by; the public ones where it is not set",
        default=None,
    )
    timeout_s: int = setting(
        "LUNGSEG_PACS_TIMEOUT", "seconds in which a PACS has to answer", "Set it to a number of seconds.", default=30
    )
    destinations: tuple[str, ...] = setting(
        "LUNGSEG_PACS_DESTINATIONS",
        "where results may be sent, separated by commas: `archive=AET@host:port` or `archive=https://host/dicom-web`",
        default=(),
    )
    send_back_to: str = setting(
        "LUNGSEG_PACS_SEND_BACK",
        "name of the destination to which results of studies are sent that the listener received",
        default="",
    )
    aet: str = setting("LUNGSEG_PACS_AET", "AE title of LungSeg, as listener and as sender", default="LUNGSEG")
    listen_host: str = setting("LUNGSEG_LISTEN_HOST", "address that `lungseg listen` listens on", default="127.0.0.1")
    listen_port: int = setting(
        "LUNGSEG_LISTEN_PORT", "its port", f"Set it to a number from 1 to {HIGHEST_PORT}.", default=11112
    )
    listen_from: tuple[str, ...] = setting(
        "LUNGSEG_LISTEN_FROM",
        "AE titles that may send to it, separated by commas; without one it does not start",
        default=(),
    )
    quiet_s: int = setting(
        "LUNGSEG_LISTEN_QUIET",
        "seconds without a new slice after which a study is complete",
        "Set it to a number of seconds.",
        default=60,
    )

    def __post_init__(self) -> None:
        """Raise SetupError where an address, a title, a number or a port can't be used."""
        if not 1 <= self.listen_port <= HIGHEST_PORT:
            raise SetupError(
                f"LUNGSEG_LISTEN_PORT is {self.listen_port}.", f"Set it to a number from 1 to {HIGHEST_PORT}."
            )
        for variable, number in (("LUNGSEG_PACS_TIMEOUT", self.timeout_s), ("LUNGSEG_LISTEN_QUIET", self.quiet_s)):
            if number < 1:
                raise SetupError(f"{variable} is {number}.", "Set it to a number of seconds.")
        if self.dicomweb_url:
            _check_address("LUNGSEG_DICOMWEB_URL", self.dicomweb_url)
        for variable, titles in (("LUNGSEG_PACS_AET", (self.aet,)), ("LUNGSEG_LISTEN_FROM", self.listen_from)):
            if wrong := [title for title in titles if not AE_TITLE.fullmatch(title)]:
                raise SetupError(f"{variable} has {wrong[0]!r}.", "An AE title has 1 to 16 characters, no blanks.")
        self._check_destinations()

    def _check_destinations(self) -> None:
        names = [_name_of(text) for text in self.destinations]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SetupError(
                f"LUNGSEG_PACS_DESTINATIONS names {twice[0]!r} twice.", "Give each destination a name of its own."
            )
        if self.send_back_to and self.send_back_to not in names:
            raise SetupError(
                f"LUNGSEG_PACS_SEND_BACK is {self.send_back_to!r}.",
                "Name one of the destinations in LUNGSEG_PACS_DESTINATIONS.",
            )


def _name_of(text: str) -> str:
    match = DESTINATION.fullmatch(text)
    if match is None or int(match["port"] or 1) not in range(1, HIGHEST_PORT + 1):
        raise SetupError(
            f"LUNGSEG_PACS_DESTINATIONS has {text.partition('=')[0]!r}, and nowhere to send it.",
            "Write each as name=AET@host:port, or as name=https://host/dicom-web.",
        )
    if match["url"]:
        _check_address("LUNGSEG_PACS_DESTINATIONS", match["url"])
    return match["name"]


def _check_address(variable: str, address: str) -> None:
    """Raise SetupError where an address is none, or holds a password, which the error does not repeat."""
    if "@" in address.partition("//")[2].partition("/")[0]:
        raise SetupError(
            f"{variable} has a user or a password in an address.",
            "Leave it out there, and name the file that holds user:password in LUNGSEG_DICOMWEB_LOGIN.",
        )
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.query or parts.fragment:
        raise SetupError(f"{variable} has {address!r}.", "Give the whole address, with http:// or https://.")
