"""Who can reach the server: nobody beyond this machine, unless the administrator said so knowingly."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time

from lungseg.config import Settings
from lungseg.errors import SetupError

RELEASE_S, POLL_S = 5.0, 0.25
"""How long a port that is taken is waited for: the server of a killed `lungseg serve` ends within this time."""


def check_host(host: str | None, settings: Settings) -> None:
    """Refuse an address that other machines reach, as long as nobody has to log in; None or "" is every interface.

    Raises:
        SetupError: the address is reachable from elsewhere and that was not accepted.
    """
    if is_loopback(host) or settings.allow_unauthenticated:
        return
    raise SetupError(
        f"The server would listen on {host or 'every interface'}, and anyone who reaches it could see every scan: "
        "there is no login.",
        "Bind it to 127.0.0.1 (LUNGSEG_HOST). Where something in front of it decides who gets in (a container that is "
        "published on 127.0.0.1 alone, a proxy with a login), set LUNGSEG_ALLOW_UNAUTHENTICATED=1.",
    )


def is_loopback(host: str | None) -> bool:
    """Tell whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "0.0.0.0").is_loopback  # noqa: S104 - what an empty address means
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Refuse a port that another program holds; a server that was killed a moment ago is given time to let it go.

    Raises:
        SetupError: the port is taken, or the address is not one of this machine.
    """
    deadline = time.monotonic() + RELEASE_S
    while True:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise SetupError(
                    f"The server can't listen on {host}:{port} ({error.strerror}).",
                    "Stop the program that holds the port, or choose another one with LUNGSEG_PORT or --port.",
                ) from error
            time.sleep(POLL_S)
        else:
            return
