"""The file routes: signed, cached, in parts where a part is asked for, and never a path of the asker's."""

import gzip
import hashlib
import io
import json
import os

import pytest

from lungseg.db import open_database
from lungseg.files import keys
from lungseg.scans.formats import write_mask
from lungseg.services import cases, viewer_bundle
from lungseg.services.installation import Installation
from lungseg.web.routes import (
    BUNDLE,
    FILES,
    bundle_address,
    mask_address,
    mask_download_address,
    routes,
    scan_address,
    thumbnail_address,
)
from lungseg.web.signing import Kind, grant, secret_of, sign
from tests.narrowing import existing
from tests.phantoms import write_chest
from tests.scan_files import geometry_of
from tests.seeds import add_case
from tests.web import ask


@pytest.fixture
def case(settings, chest_scan):
    database = open_database(settings.database_url)
    made = add_case(settings, database, chest_scan, "one.nii.gz")
    yield made
    database.close()


@pytest.fixture
def mask(settings, case, tmp_path):
    database = open_database(settings.database_url)
    lesion = write_chest(tmp_path / "again.nii.gz", "LPS")
    write_mask(lesion, tmp_path / "mask.nii.gz", geometry_of(settings.home / case.scan_path))
    made = cases.add_reference(Installation(settings, database), case.id, tmp_path / "mask.nii.gz")
    yield made
    database.close()


def test_scan_is_sent_as_it_lies_on_disk(settings, case):
    answer = ask(routes(settings), scan_address(settings, case))
    assert answer.status == 200
    assert answer.body == (settings.home / case.scan_path).read_bytes()
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["etag"] == f'"{case.scan_sha256}"'
    assert answer.headers["cache-control"].startswith("private, max-age=")


def test_plain_scan_is_not_compressed_on_the_way(settings, tmp_path):
    database = open_database(settings.database_url)
    write_chest(tmp_path / "chest.nii", "RAS")
    case = add_case(settings, database, tmp_path / "chest.nii", "plain.nii")
    answer = ask(routes(settings), scan_address(settings, case), accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "identity"
    assert answer.body == (tmp_path / "chest.nii").read_bytes()
    database.close()


def test_known_content_is_not_sent_again(settings, case):
    answer = ask(routes(settings), scan_address(settings, case), if_none_match=f'"{case.scan_sha256}"')
    assert (answer.status, answer.body) == (304, b"")
    other = ask(routes(settings), scan_address(settings, case), if_none_match='"0000"')
    assert other.status == 200


def test_part(settings, case):
    answer = ask(routes(settings), scan_address(settings, case), range="bytes=10-19")
    assert answer.status == 206
    assert answer.body == (settings.home / case.scan_path).read_bytes()[10:20]
    assert answer.headers["content-range"].startswith("bytes 10-19/")


def test_inflated_for_browsers_that_stop_at_the_first_member(settings, case):
    answer = ask(routes(settings), f"{scan_address(settings, case)}?inflated=1")
    assert answer.body == gzip.decompress((settings.home / case.scan_path).read_bytes())
    assert answer.headers["content-encoding"] == "identity"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda content: gzip.compress(content) + b"garbage"])
def test_inflated_up_to_the_last_voxel(settings, tmp_path, pack):
    database = open_database(settings.database_url)
    write_chest(tmp_path / "chest.nii", "RAS")
    content = (tmp_path / "chest.nii").read_bytes()
    case = cases.ingest(Installation(settings, database), "long.nii", io.BytesIO(pack(content + bytes(3_000_000))))
    database.close()
    answer = ask(routes(settings), f"{scan_address(settings, case)}?inflated=1")
    assert answer.status == 200
    assert answer.body == content


def test_inflated_ends_where_the_file_is_damaged(settings, tmp_path):
    database = open_database(settings.database_url)
    write_chest(tmp_path / "chest.nii", "RAS")
    packed = gzip.compress((tmp_path / "chest.nii").read_bytes())
    case = cases.ingest(Installation(settings, database), "cut.nii.gz", io.BytesIO(packed[:-2000]))
    database.close()
    answer = ask(routes(settings), f"{scan_address(settings, case)}?inflated=1")
    assert answer.status == 200
    assert len(answer.body) < (tmp_path / "chest.nii").stat().st_size


def test_inflated_is_for_scans_and_masks(settings, case):
    path = settings.home / keys.thumbnail(case.id)
    path.parent.mkdir()
    path.write_bytes(b"a picture")
    answer = ask(routes(settings), f"{thumbnail_address(settings, case)}?inflated=1")
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "scan.not_nifti")


def test_mask_and_its_download(settings, mask):
    body = (settings.home / mask.path).read_bytes()
    assert ask(routes(settings), mask_address(settings, mask)).body == body
    download = ask(routes(settings), mask_download_address(settings, mask))
    assert download.body == body
    assert download.headers["content-disposition"] == 'attachment; filename="one_reference_v1.nii.gz"'
    assert "content-encoding" not in download.headers


def test_name_of_a_download_stands_in_no_address(settings, case, mask):
    database = open_database(settings.database_url)
    cases.rename_case(Installation(settings, database), case.id, 'Müller "x"; y=.nii.gz')
    database.close()
    address = mask_download_address(settings, mask)
    assert "ller" not in address
    named = ask(routes(settings), address).headers["content-disposition"]
    assert named == "attachment; filename*=utf-8''M%C3%BCller_x_y%3D_reference_v1.nii.gz"


def test_link_to_what_is_gone_leads_to_a_page_of_ours(settings, case, mask):
    database = open_database(settings.database_url)
    cases.delete_case(Installation(settings, database), case.id)
    database.close()
    address = mask_download_address(settings, mask)
    seen = ask(routes(settings), address, accept="text/html,application/xhtml+xml")
    assert (seen.status, seen.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"It was deleted with its case" in seen.body
    assert b'href="/"' in seen.body
    assert json.loads(ask(routes(settings), address).body)["code"] == "record.not_found"


def test_thumbnail_address_changes_with_the_picture(settings, case):
    assert thumbnail_address(settings, case) is None
    path = settings.home / keys.thumbnail(case.id)
    path.parent.mkdir()
    path.write_bytes(b"one")
    address = existing(thumbnail_address(settings, case))
    assert ask(routes(settings), address).body == b"one"
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert thumbnail_address(settings, case) != address
    assert ask(routes(settings), address).status == 404


@pytest.mark.parametrize("token", ["x", "..%2F..%2Flungseg.sqlite", "scans", "secret.key"])
def test_unsigned(settings, case, token):
    answer = ask(routes(settings), f"{FILES}/{token}")
    assert answer.status == 403
    assert json.loads(answer.body)["code"] == "access.refused"


def test_signed_for_a_case_that_is_gone(settings, case):
    address = scan_address(settings, case)
    database = open_database(settings.database_url)
    cases.delete_case(Installation(settings, database), case.id)
    database.close()
    answer = ask(routes(settings), address)
    assert answer.status == 404
    assert json.loads(answer.body)["code"] == "record.not_found"


def test_signed_for_other_content(settings, case):
    token = sign(secret_of(settings), grant(Kind.SCAN, case.id, "0" * 64))
    assert ask(routes(settings), f"{FILES}/{token}").status == 404


def test_bundle(settings, monkeypatch):
    assert ask(routes(settings), bundle_address(settings)).status == 404
    path = viewer_bundle.status(settings).path
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(viewer_bundle, "SHA256", hashlib.sha256(b"export {};").hexdigest())
    path.write_bytes(gzip.compress(b"export {};"))
    answer = ask(routes(settings), bundle_address(settings))
    assert gzip.decompress(answer.body) == b"export {};"
    assert (answer.headers["content-encoding"], answer.headers["content-type"]) == (
        "gzip",
        "text/javascript; charset=utf-8",
    )
    assert ask(routes(settings), f"{BUNDLE}/niivue-0.1.0.js.gz").status == 404
    assert ask(routes(settings), bundle_address(settings), if_none_match=answer.headers["etag"]).status == 304


def test_altered_bundle_is_not_sent_whatever_the_browser_holds(settings):
    path = viewer_bundle.status(settings).path
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"steal();"))
    for known in ("", f'"{viewer_bundle.SHA256}"', "*"):
        answer = ask(routes(settings), bundle_address(settings), if_none_match=known)
        assert answer.status == 404
        assert b"steal" not in answer.body
        assert "it replaces the file" in json.loads(answer.body)["remedy"]
