"""Every way to tamper with a bundle is named, and a good one is accepted."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bundle._manifest import MANIFEST, problems, read_manifest
from rackserve.bundle._store import import_bundle, verify
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHEEL = "wheels/vllm-0.32.0-cpu-py311/a.whl"


def flip_a_byte(bundle: Path) -> None:
    data = bytearray((bundle / WHEEL).read_bytes())
    data[7] ^= 1
    (bundle / WHEEL).write_bytes(data)


def truncate(bundle: Path) -> None:
    (bundle / WHEEL).write_bytes(b"whe")


def link_out(bundle: Path) -> None:
    (bundle / WHEEL).unlink()
    (bundle / WHEEL).symlink_to("/etc/hostname")


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip_a_byte, "was altered"),
    "truncated": (truncate, "has 3 bytes"),
    "missing": (lambda b: (b / WHEEL).unlink(), "is missing"),
    "planted": (lambda b: (b / "wheels/evil.whl").write_bytes(b"x"), "not in its manifest"),
    "link": (link_out, "is a link"),
    "linked folder": (lambda b: (b / "extra").symlink_to("/etc"), "is a link"),
}


@pytest.mark.parametrize(("tamper", "reason"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampered_bundle_is_refused_by_name(good_bundle: Path, tamper: Callable[[Path], object], reason: str) -> None:
    tamper(good_bundle)
    with pytest.raises(BundleError, match=reason):
        verify(good_bundle)


def test_a_good_bundle_is_accepted(good_bundle: Path) -> None:
    assert problems(good_bundle, read_manifest(good_bundle)) == []


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other format": (lambda m: m.update(format=2), "has format 2"),
    "traversal": (lambda m: m["files"][0].update(path="../etc/passwd"), "unsafe path"),
    "absolute": (lambda m: m["files"][0].update(path="/etc/passwd"), "unsafe path"),
    "backslash": (lambda m: m["files"][0].update(path="a\\b"), "unsafe path"),
    "twice": (lambda m: m["files"].append(m["files"][0]), "twice"),
    "case collision": (
        lambda m: m["files"].append({**m["files"][0], "path": m["files"][0]["path"].upper()}),
        "twice",
    ),
    "no digest": (lambda m: m["files"][0].update(sha256=""), "no usable size and sha256"),
    "negative size": (lambda m: m["files"][0].update(size=-1), "no usable size and sha256"),
    "field gone": (lambda m: m.pop("models"), "lacks or misuses a field"),
}


@pytest.mark.parametrize(("edit", "reason"), EDITS.values(), ids=EDITS)
def test_an_edited_manifest_is_refused(
    good_bundle: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    raw = json.loads((good_bundle / MANIFEST).read_text())
    edit(raw)
    (good_bundle / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=reason):
        read_manifest(good_bundle)


def test_no_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="rackserve bundle import"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_not_json_is_refused(good_bundle: Path) -> None:
    (good_bundle / MANIFEST).write_bytes(b"\xff{")
    with pytest.raises(BundleError, match="not JSON"):
        read_manifest(good_bundle)


def test_the_same_contents_elsewhere_have_the_same_id(good_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(good_bundle, tmp_path / "copy")
    assert read_manifest(good_bundle).id == read_manifest(tmp_path / "copy").id


def test_import_places_the_bundle_and_switches_to_it(
    good_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    home = import_bundle(good_bundle)
    current = tmp_path / "state/rackserve/bundles/current"
    assert current.resolve() == home
    assert import_bundle(good_bundle) == home
    assert problems(current, read_manifest(current)) == []


def test_a_refused_import_keeps_the_bundle_in_use(
    good_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    home = import_bundle(good_bundle)
    other = tmp_path / "other"
    shutil.copytree(good_bundle, other)
    flip_a_byte(other)
    with pytest.raises(BundleError):
        import_bundle(other)
    current = tmp_path / "state/rackserve/bundles/current"
    assert current.resolve() == home
    assert sorted(p.name for p in current.parent.iterdir()) == sorted([home.name, "current"])


def test_under_takes_a_path_and_what_lies_below_it(good_bundle: Path) -> None:
    manifest = read_manifest(good_bundle)
    assert [e.path for e in manifest.under(("apt/debian-12",))] == ["apt/debian-12/Packages"]
    assert manifest.under(("apt/debian-1",)) == ()
