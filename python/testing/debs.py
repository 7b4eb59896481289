"""Tiny real packages, and real apt that sees nothing but them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path


def make_deb(folder: Path, name: str, version: str = "1.0", **fields: str) -> Path:
    """Build a package without files; `fields` are more of its control file, `_` for `-`."""
    control = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "t <t@example.com>", **fields}
    control["Description"] = "for a test"
    with tempfile.TemporaryDirectory() as tree:
        (Path(tree) / "DEBIAN").mkdir(mode=0o755)
        text = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in control.items())
        (Path(tree) / "DEBIAN/control").write_text(text)
        Path(tree).chmod(0o755)
        folder.mkdir(parents=True, exist_ok=True)
        deb = folder / f"{name}_{version.replace(':', '_')}_all.deb"
        build: list[str | Path] = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, deb]
        subprocess.run(build, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
    return deb
