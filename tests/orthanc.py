"""A real Orthanc with its DICOMweb plug-in, on loopback, in a folder of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import FileDataset, dcmread

from tests.web import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STARTS_IN_S = 60.0
LOGIN = ("lungseg", "secret")


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    http_port: int
    dicom_port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        """The address of its DICOMweb plug-in."""
        return f"{self.url}/dicom-web"

    def get(self, path: str) -> Any:
        """Return the answer of its own interface."""
        response = _session().get(f"{self.url}{path}", timeout=30)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, data: bytes | str) -> Any:
        """Send to its own interface and return its answer."""
        response = _session().post(f"{self.url}{path}", data=data, timeout=60)
        response.raise_for_status()
        return response.json()

    def dataset(self, identifier: str) -> FileDataset:
        """Return one of its instances, by its own identifier."""
        response = _session().get(f"{self.url}/instances/{identifier}/file", timeout=60)
        response.raise_for_status()
        return dcmread(BytesIO(response.content))

    def take(self, files: list[Path]) -> None:
        """Put files in."""
        for path in files:
            self.post("/instances", path.read_bytes())

    def instances(self, modality: str) -> list[str]:
        """Return the SOP instance UIDs that it has of a modality."""
        query = json.dumps({"Level": "Instance", "Expand": True, "Query": {"Modality": modality}})
        return [item["MainDicomTags"]["SOPInstanceUID"] for item in self.post("/tools/find", query)]


@contextmanager
def running_orthanc(folder: Path, modalities: dict[str, list[Any]] | None = None, **options: Any) -> Iterator[Orthanc]:
    """Start Orthanc for a block; skips the test where the machine has none. `modalities` are those that it knows."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.is_file():
        pytest.skip("there is no Orthanc with its DICOMweb plug-in")
    folder.mkdir(parents=True)
    http_port, dicom_port = free_port(), free_port()
    configuration = {
        "Name": "tests", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port, "DicomPort": dicom_port, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True, "RegisteredUsers": {LOGIN[0]: LOGIN[1]}, "Plugins": [str(PLUGIN)],
        "DicomAlwaysAllowStore": False, "DicomAlwaysAllowEcho": False, "DicomCheckCalledAet": True,
        "DicomModalities": modalities or {}, "SyncStorageArea": False, "StableAge": 1,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **options,
    }  # fmt: skip
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as output:
        process = subprocess.Popen([program, str(path)], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        orthanc = Orthanc(http_port, dicom_port, process)
        _await(orthanc, folder / "orthanc.log")
        yield orthanc
    finally:
        process.kill()
        process.wait()


def _await(orthanc: Orthanc, log: Path) -> None:
    deadline = time.monotonic() + STARTS_IN_S
    while time.monotonic() < deadline and orthanc.process.poll() is None:
        try:
            orthanc.get("/system")
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.auth = LOGIN
    return session
