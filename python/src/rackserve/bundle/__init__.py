"""Bundles: everything a site's hosts need, in one folder that is signed, with a manifest of every byte."""

from __future__ import annotations

from rackserve.bundle._accept import Verified, carried_bytes, import_bundle, prune, read_intact, read_signed, verify
from rackserve.bundle._build import build
from rackserve.bundle._locks import pins
from rackserve.bundle._manifest import Manifest, Model, Repository, Runtime, parse_manifest, read_manifest, sha256_of
from rackserve.bundle._media import Difference, diff, split
from rackserve.bundle._progress import Progress
from rackserve.bundle._recipe import read_recipe
from rackserve.bundle._sign import fingerprint_of, key_path, make_key, sign
from rackserve.bundle._trust import TRUST, Trust, read_trust
from rackserve.programs.verify_bundle import Entry, excerpt

__all__ = [
    "TRUST",
    "Difference",
    "Entry",
    "Manifest",
    "Model",
    "Progress",
    "Repository",
    "Runtime",
    "Trust",
    "Verified",
    "build",
    "carried_bytes",
    "diff",
    "excerpt",
    "fingerprint_of",
    "import_bundle",
    "key_path",
    "make_key",
    "parse_manifest",
    "pins",
    "prune",
    "read_intact",
    "read_manifest",
    "read_recipe",
    "read_signed",
    "read_trust",
    "sha256_of",
    "sign",
    "split",
    "verify",
]
