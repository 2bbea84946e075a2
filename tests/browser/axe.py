"""axe-core (MPL-2.0), which looks for what keeps people out: fetched by npm into `build/`, pinned, never committed.

`make test-needs` calls this module, so that the tests themselves need no network.
"""

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lungseg.config import CHECKOUT

PACKAGE, VERSION = "axe-core", "4.14.1"
MEMBER = "package/axe.min.js"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of `MEMBER`: another file under the same version is refused."""
SCRIPT = CHECKOUT / "build" / f"axe-{VERSION}.js"
GRAVE = ("serious", "critical")
LOOK = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ['violations'] });
  return violations.map(({ id, impact, help, nodes }) => ({
    id, impact, help,
    nodes: nodes.map(({ target, html, any }) => [target.join(' '), html.slice(0, 160), any[0]?.message ?? '']),
  }));
}"""


def install() -> Path:
    """Fetch the script, unless it is there.

    Raises:
        OSError: there is no npm, or it can't reach its registry, or serves another file than expected.
    """
    if not SCRIPT.is_file():
        with TemporaryDirectory() as folder:
            found = _fetch(Path(folder))
        if hashlib.sha256(found).hexdigest() != SHA256:
            raise OSError(f"npm serves another {PACKAGE}@{VERSION} than the tests were made with")
        SCRIPT.parent.mkdir(exist_ok=True)
        SCRIPT.write_bytes(found)
    return SCRIPT


def _fetch(folder: Path) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("there is no npm")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    archive = folder / f"{PACKAGE}-{VERSION}.tgz"
    if ended.returncode or not archive.is_file():
        raise OSError(f"npm could not fetch {PACKAGE}@{VERSION}: {ended.stderr.strip()[-200:]}")
    with tarfile.open(archive) as package:
        member = package.extractfile(MEMBER)
        return member.read() if member else b""


def serious_findings(page) -> list[str]:
    """Say what of a page as it stands now is a serious or critical fault for who has no mouse or sees badly.

    Args:
        page: of Playwright. The script is run past the page's policy, as DevTools do, and asks for nothing.
    """
    try:
        source = install().read_text(encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"axe-core is not at hand: {error}")
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(f"() => {{ {source}\n }}")
    found = page.evaluate(LOOK)
    return [
        f"{each['impact']} {each['id']}: {each['help']}: {' | '.join(node)}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


if __name__ == "__main__":
    try:
        install()
    except OSError as error:
        print(f"{error}: accessibility is not tested.")  # noqa: T201 - for who runs make
