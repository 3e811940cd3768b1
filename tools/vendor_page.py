"""Bring the page's third-party files into the package, from their npm packages: `python tools/vendor_page.py`.

Without arguments every package is fetched again at the version that VENDORED.json names; `bootstrap@5.3.10` moves one to
another version. Needs `npm` and its registry; the page itself needs neither. Each file is taken as published, never edited,
and VENDORED.json keeps its SHA-256, which tests/server/test_page_files.py compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parent.parent / "src" / "sapatchcore" / "server" / "page" / "vendor"
LIST = "VENDORED.json"

# Of each package: its file → the name here. Names have no folder "dist", which .gitignore leaves out.
FILES: dict[str, dict[str, str]] = {
    "lit-html": {
        "LICENSE": "LICENSE",
        "lit-html.js": "lit-html.js",
        "directive.js": "directive.js",
        "directive-helpers.js": "directive-helpers.js",
        "directives/class-map.js": "directives/class-map.js",
        "directives/live.js": "directives/live.js",
        "directives/repeat.js": "directives/repeat.js",
    },
    "bootstrap": {
        "LICENSE": "LICENSE",
        "dist/css/bootstrap.min.css": "bootstrap.min.css",
        "dist/js/bootstrap.bundle.min.js": "bootstrap.bundle.min.js",
    },
    "uplot": {
        "LICENSE": "LICENSE",
        "dist/uPlot.iife.min.js": "uPlot.iife.min.js",
        "dist/uPlot.min.css": "uPlot.min.css",
    },
    "swagger-ui-dist": {
        "LICENSE": "LICENSE",
        "NOTICE": "NOTICE",
        "swagger-ui-bundle.js": "swagger-ui-bundle.js",
        "swagger-ui-bundle.js.LICENSE.txt": "swagger-ui-bundle.js.LICENSE.txt",
        "swagger-ui.css": "swagger-ui.css",
    },
}
FIRST = {"lit-html": "3.3.3", "bootstrap": "5.3.9", "uplot": "1.6.32", "swagger-ui-dist": "5.35.0"}


def fetched(name: str, version: str, folder: Path) -> tuple[Path, str]:
    """The package's tarball in ``folder``, and npm's integrity value of it. Raises CalledProcessError where npm fails."""
    command = ["npm", "pack", f"{name}@{version}", "--json", "--pack-destination", str(folder)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    entry = next(iter(told.values())) if isinstance(told, dict) else told[0]  # npm 12 keys by name, older ones list
    return folder / entry["filename"], entry["integrity"]


def taken(tarball: Path, files: dict[str, str], target: Path) -> dict[str, str]:
    """Write the named files below ``target``; their SHA-256 by their names there. Raises KeyError where one is missing."""
    digests = {}
    with tarfile.open(tarball) as archive:
        licence = archive.extractfile("package/package.json")
        assert licence is not None
        for source, name in files.items():
            member = archive.extractfile(f"package/{source}")
            assert member is not None
            data = member.read()
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        digests["package.json:license"] = json.load(licence)["license"]
    return digests


def vendor(versions: dict[str, str], folder: Path) -> None:
    """All packages at ``versions`` into ``folder``, which is replaced once everything has been fetched."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / "vendor"
        packages = []
        for name, files in FILES.items():
            tarball, integrity = fetched(name, versions[name], Path(scratch))
            digests = taken(tarball, files, fresh / name)
            packages.append(
                {
                    "name": name,
                    "version": versions[name],
                    "source": f"npm:{name}@{versions[name]}",
                    "integrity": integrity,
                    "license": digests.pop("package.json:license"),
                    "files": {f"{name}/{file}": digest for file, digest in digests.items()},
                }
            )
        text = json.dumps({"made_by": "tools/vendor_page.py", "packages": packages}, indent=2)
        (fresh / LIST).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("packages", nargs="*", metavar="NAME@VERSION", help="packages to move to another version")
    asked = dict(text.rpartition("@")[::2] for text in reader.parse_args().packages)
    if unknown := sorted(set(asked) - set(FILES)):
        print(f"Unknown package {', '.join(unknown)}. Allowed: {', '.join(FILES)}.", file=sys.stderr)
        return 2
    versions = dict(FIRST)
    if (VENDOR / LIST).exists():
        known = json.loads((VENDOR / LIST).read_text(encoding="utf-8"))["packages"]
        versions |= {package["name"]: package["version"] for package in known if package["name"] in FILES}
    vendor(versions | asked, VENDOR)
    print(f"{VENDOR}: " + ", ".join(f"{name} {version}" for name, version in (versions | asked).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
