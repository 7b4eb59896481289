"""Bundles: everything a site's hosts need, in one folder with a manifest of every byte."""

from __future__ import annotations

from rackserve.bundle._build import build
from rackserve.bundle._manifest import (
    FileEntry,
    Manifest,
    Model,
    Repository,
    Runtime,
    problems,
    read_manifest,
    sha256_of,
)
from rackserve.bundle._store import import_bundle, verify

__all__ = [
    "FileEntry",
    "Manifest",
    "Model",
    "Repository",
    "Runtime",
    "build",
    "import_bundle",
    "problems",
    "read_manifest",
    "sha256_of",
    "verify",
]
