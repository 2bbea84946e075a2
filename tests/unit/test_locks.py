"""The locks hold what the ranges ask for, each with its hashes, and nothing of the machine that made them."""

import re

import pytest
from packaging.requirements import Requirement

from lungseg.config import CHECKOUT

LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-dev.lock")
PIN = re.compile(r"([a-z0-9-]+)==([^ ;]+)(?: ; [^\\]+)? \\")
HASH = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")
REMARK = re.compile(r" *#.*")
ADDRESS = re.compile(r"://|\.(com|org|net|io)\b|(?<![\w.])/\w+/")


def lines(name):
    return (CHECKOUT / name).read_text(encoding="utf-8").splitlines()


def pins(name):
    return {pin[1]: pin[2] for pin in map(PIN.fullmatch, lines(name)) if pin}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_has_hashes(name):
    told = [line for line in lines(name) if not REMARK.fullmatch(line)]
    assert told
    assert [line for line in told if not PIN.fullmatch(line) and not HASH.fullmatch(line)] == []
    for number, line in enumerate(told):
        if PIN.fullmatch(line):
            assert HASH.fullmatch(told[number + 1])


@pytest.mark.parametrize("name", LOCKS)
def test_no_address_of_an_index_or_folder(name):
    assert [line for line in lines(name) if ADDRESS.search(line)] == []


@pytest.mark.parametrize(
    ("ranges", "locks"),
    [
        ("requirements.txt", ["requirements.lock"]),
        ("requirements-dev.txt", ["requirements.lock", "requirements-dev.lock"]),
    ],
)
def test_locks_are_within_the_ranges(ranges, locks):
    locked = {name: version for lock in locks for name, version in pins(lock).items()}
    requirements = [Requirement(line) for line in lines(ranges) if line and not REMARK.fullmatch(line)]
    assert requirements
    for requirement in requirements:
        assert locked[requirement.name.lower()] in requirement.specifier, f"{requirement}: run `make lock`"


def test_no_package_is_locked_twice():
    names = [name for lock in LOCKS for name in pins(lock)]
    assert sorted(set(names)) == sorted(names)
