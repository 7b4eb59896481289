"""The archive key, with real gpg."""

from __future__ import annotations

import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle._archive_key import (
    clear_sign,
    export_public_key,
    fingerprint_of,
    make_archive_key,
    own_archive_key,
)
from rackserve.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("gpg")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive_key(tmp_path_factory.mktemp("keys") / "archive", "a test's archive key")


def test_signing_takes_less_than_a_second_and_leaves_no_agent(key: Path, tmp_path: Path) -> None:
    seconds = []
    for attempt in range(3):  # other work on this machine delays one, and waiting for an agent delays all
        started = time.monotonic()
        clear_sign(key, "text\n")
        export_public_key(key, tmp_path / f"public{attempt}.gpg")
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1
    talk = ["gpg-connect-agent", f"--homedir={key}", "--no-autostart", "/bye"]
    assert b"no gpg-agent running" in subprocess.run(talk, check=True, capture_output=True).stderr


def test_a_key_is_private(key: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in key.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [key, *key.rglob("*")] if path.is_dir()} == {0o700}


def test_a_key_is_never_overwritten(key: Path) -> None:
    with pytest.raises(BundleError, match=r"exists; use the archive key in it"):
        make_archive_key(key, "another")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no archive key in .*nowhere: the folder is missing"):
        clear_sign(tmp_path / "nowhere", "text")


def test_a_folder_without_a_secret_key_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(BundleError, match="holds 0 secret keys"):
        fingerprint_of(tmp_path)


def test_this_controllers_own_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert fingerprint_of(own_archive_key()) == fingerprint_of(own_archive_key())
