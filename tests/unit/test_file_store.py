"""The file store of one machine: keys, whole files, nothing outside its folder."""

import pytest

from lungseg.errors import StorageError
from lungseg.files import keys
from lungseg.files.store import LocalFileStore, taken_back


@pytest.fixture
def store(tmp_path):
    return LocalFileStore(tmp_path / "home")


def write(store, key, content=b"content"):
    with store.write(key) as stream:
        stream.write(content)


def test_file_is_there_only_when_it_is_whole(store):
    with pytest.raises(RuntimeError), store.write("masks/a.nii.gz") as stream:
        stream.write(b"half")
        assert not store.exists("masks/a.nii.gz")
        raise RuntimeError
    assert store.list("masks") == ()
    write(store, "masks/a.nii.gz")
    with store.open("masks/a.nii.gz") as stream:
        assert stream.read() == b"content"


def test_file_that_was_there_stays_where_the_next_is_not_whole(store):
    write(store, "masks/a.nii.gz", b"old")
    with pytest.raises(RuntimeError), store.write("masks/a.nii.gz") as stream:
        stream.write(b"new")
        raise RuntimeError
    assert store.local("masks/a.nii.gz").read_bytes() == b"old"


def test_file_is_put_and_renamed(store, tmp_path):
    given = tmp_path / "home" / "incoming.nii"
    given.parent.mkdir()
    given.write_bytes(b"scan")
    store.put(given, "incoming/a.nii")
    assert not given.exists()
    store.rename("incoming/a.nii", "scans/a.nii")
    assert (store.list("incoming"), store.list("scans")) == ((), ("scans/a.nii",))


def test_file_that_is_not_there(store):
    with pytest.raises(StorageError, match=r"scans/a\.nii can't be read"):
        store.open("scans/a.nii")
    with pytest.raises(StorageError, match="can't be written"):
        store.rename("scans/a.nii", "scans/b.nii")
    store.delete("scans/a.nii")
    assert not store.exists("scans/a.nii")
    assert store.list("scans") == ()


def test_one_that_can_not_be_removed_keeps_no_other(store):
    store.local("scans/folder").mkdir(parents=True)
    write(store, "scans/file")
    with pytest.raises(StorageError, match="can't be removed"):
        store.delete("scans/folder", "scans/file")
    assert not store.exists("scans/file")


@pytest.mark.parametrize("key", ["/etc/passwd", "../beside", "scans/../../beside", ""])
def test_key_leads_nowhere_else(store, key):
    with pytest.raises(ValueError, match="not a key"):
        store.local(key)


def test_what_a_failed_block_wrote_is_taken_back(store):
    with pytest.raises(RuntimeError), taken_back(store, "scans/a.nii"):
        write(store, "scans/a.nii")
        raise RuntimeError
    assert store.list("scans") == ()


def test_keys_begin_with_the_id():
    made = (keys.scan("7", ".nii"), keys.mask("7"), keys.derived("7", 128, with_doubtful=True), keys.thumbnail("7"))
    assert {keys.id_of(key) for key in made} == {"7"}
    assert len(set(made)) == len(made)
