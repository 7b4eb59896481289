"""A run reads each byte of a host's bundle once, finds every altered one, and trusts no earlier run.

The action, its two modules, the host's verifier and hf_snapshot run here as a play runs them, on a folder in place of a
host; opened files are counted by their inode, whatever name they have.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from rackserve.ansible.action import bundle_transfer
from rackserve.ansible.modules import bundle_compare, bundle_unpack, hf_snapshot
from rackserve.bundle import Manifest
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import Digests, Entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

MODEL = "models/org--name/0123"
WEIGHTS = f"{MODEL}/model.safetensors"
FILES = {
    "apt/debian-12/a.deb": b"deb",
    f"{MODEL}/config.json": b"{}",
    WEIGHTS: b"weights",
    "wheels/a.whl": b"wheel",
}


class Ended(Exception):  # noqa: N818 - how a module ends
    pass


class Site:
    """A bundle on a controller, and a host."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundle, self.host, self.hub = folder / "bundle", folder / "host", folder / "hf"
        self.digests = folder / "run/digests.json"
        self.patch = monkeypatch
        for name, data in FILES.items():
            path = self.bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.entries = [Entry(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()]
        self.manifest = Manifest("lab", 1, None, (), (), (), (), None, tuple(sorted(self.entries))).to_bytes()
        (self.bundle / "manifest.json").write_bytes(self.manifest)
        (self.bundle / "manifest.json.sig").write_text("signature")
        monkeypatch.setattr(bundle_transfer, "_DIGESTS", str(self.digests))
        for module in (bundle_unpack, hf_snapshot):
            monkeypatch.setattr(module, "host_lock", nullcontext)
        self.reads = self._count()

    def _count(self) -> Counter[int]:
        reads: Counter[int] = Counter()
        real = builtins.open

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if mode == "rb" and not isinstance(file, int):
                reads[os.stat(file).st_ino] += 1  # noqa: PTH116 - modules give texts
            return real(file, mode, *args, **options)

        self.patch.setattr(builtins, "open", opened)
        return reads

    def module(self, module: ModuleType, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        ended: dict[str, Any] = {}

        def end(**result: Any) -> None:
            ended.update(result)
            raise Ended

        fake = Mock(params=args, check_mode=check, exit_json=end)
        fake.fail_json = lambda **result: end(failed=True, **result)
        self.patch.setattr(module, "AnsibleModule", lambda **_: fake)
        with pytest.raises(Ended):
            module.main()
        return ended

    def transfer(self, *, check: bool = False) -> dict[str, Any]:
        bundle = {"path": str(self.bundle), "text": self.manifest.decode()}
        asked = {"bundle": bundle, "dest": str(self.host), "parts": ["apt", "models", "wheels"]}
        action = bundle_transfer.ActionModule(
            Mock(args=asked, async_val=0, check_mode=check, diff=False), *(Mock() for _ in range(5))
        )
        action._connection._shell.tmpdir = str(self.host.parent)
        action._connection._shell.join_path = os.path.join
        modules = {"bundle_compare": bundle_compare, "bundle_unpack": bundle_unpack}
        action._execute_module = lambda name, module_args, task_vars: self.module(  # noqa: ARG005 - Ansible's names
            modules[name], module_args, check=check
        )
        action._transfer_file = shutil.copyfile
        return dict(action.run())

    def verify(self, digests: dict[str, str]) -> int:
        argv = ["check", str(self.host), "--manifest-sha256", hashlib.sha256(self.manifest).hexdigest()]
        argv += ["--parts", str(self.host / "host-parts.json")]
        argv += ["--digests", digests["path"], "--digests-sha256", digests["sha256"]]
        self.patch.setattr(sys, "argv", ["verify_bundle.pyz", *argv])
        return verify_bundle.main()

    def snapshot(self, digests: dict[str, str]) -> dict[str, Any]:
        model = [entry for entry in self.entries if entry.path.startswith(MODEL)]
        files = [{**entry._asdict(), "path": entry.path.removeprefix(f"{MODEL}/")} for entry in model]
        where = {"home": str(self.hub), "source": str(self.host / MODEL), "repo": "org/name", "revision": "0" * 40}
        return self.module(hf_snapshot, {**where, "files": files, "wanted": ["0" * 40], "digests": digests})

    def run(self) -> list[bool]:
        """Run it all as a play does; return what changed."""
        self.reads.clear()
        sent = self.transfer()
        assert self.verify(sent["digests"]) == 0
        return [sent["changed"], self.snapshot(sent["digests"])["changed"]]

    def read(self) -> dict[str, int]:
        """Return how often each file of the bundle was opened on the host, by any name."""
        return {name: self.reads[(self.host / name).stat().st_ino] for name in FILES}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def alter(path: Path) -> None:
    """Flip a byte, and leave size and time of modification as they were."""
    time.sleep(0.02)  # the kernel's clock of files has ticks
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_new_host_reads_what_it_was_sent_once(site: Site) -> None:
    assert site.run() == [True, True]
    assert site.read() == dict.fromkeys(FILES, 1)


def test_an_unchanged_host_reads_its_bundle_once(site: Site) -> None:
    site.run()
    assert site.run() == [False, False]
    assert site.read() == dict.fromkeys(FILES, 1)
    sent = site.transfer()
    own = ("host-parts.json", "manifest.json", "manifest.json.sig")
    assert sent["read_bytes"] == sum(map(len, FILES.values())) + sum((site.host / name).stat().st_size for name in own)
    assert site.snapshot(sent["digests"])["read_bytes"] == 0


def test_an_altered_file_is_sent_again_and_the_others_are_read_once(site: Site) -> None:
    site.run()
    alter(site.host / "wheels/a.whl")
    assert site.run() == [True, False]
    assert site.read() == dict.fromkeys(FILES, 1)
    assert (site.host / "wheels/a.whl").read_bytes() == FILES["wheels/a.whl"]


def test_altered_weights_are_replaced_in_the_bundle_and_in_the_cache(site: Site) -> None:
    site.run()
    alter(site.host / WEIGHTS)
    assert site.run() == [True, True]
    for found in (site.host / WEIGHTS, *site.hub.rglob("model.safetensors")):
        assert found.read_bytes() == FILES[WEIGHTS]
    assert site.run() == [False, False]


@pytest.mark.parametrize("change", [alter, lambda path: path.unlink()], ids=["altered", "removed"])
def test_the_verifier_finds_what_changed_after_the_transfer(
    site: Site, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None]
) -> None:
    sent = site.transfer()
    change(site.host / "wheels/a.whl")
    assert site.verify(sent["digests"]) == 1
    assert "wheels/a.whl" in capsys.readouterr().err


def test_a_blob_that_changed_after_the_verifier_is_found(site: Site) -> None:
    site.run()
    sent = site.transfer()
    blob = next(site.hub.rglob("model.safetensors")).resolve()
    assert blob.samefile(site.host / WEIGHTS)
    alter(blob)
    found = site.snapshot(sent["digests"])
    assert found["failed"]
    assert "model.safetensors was altered" in found["msg"], "the bundle's file is the same inode"


@pytest.mark.parametrize("digests", [{}, {"path": "", "sha256": "0" * 64}, None], ids=["none", "another", "older"])
def test_the_word_of_another_run_is_not_taken(site: Site, digests: dict[str, str] | None) -> None:
    older = site.transfer()["digests"]
    site.snapshot(older)
    site.transfer()
    site.reads.clear()
    found = site.snapshot({**digests, "path": str(site.digests)} if digests else older if digests is None else {})
    assert not found["changed"]
    assert site.read()[WEIGHTS] == 1


def test_check_mode_reads_once_and_changes_nothing(site: Site) -> None:
    missing = site.transfer(check=True)
    assert missing["changed"]
    assert not site.host.exists()
    site.run()
    (site.host / "planted.whl").write_bytes(b"")
    site.reads.clear()
    found = site.transfer(check=True)
    assert found["removed"] == ["planted.whl"]
    assert (site.host / "planted.whl").exists()
    site.snapshot(found["digests"])
    assert site.read() == dict.fromkeys(FILES, 1)


def test_a_host_that_is_interrupted_keeps_its_manifest_until_all_files_are_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run()
    before = (site.host / "manifest.json").read_bytes()
    site.manifest = site.manifest.replace(b'"version": 1', b'"version": 2')
    alter(site.host / "wheels/a.whl")
    monkeypatch.setattr(bundle_transfer, "batches", lambda entries: [[entry] for entry in entries])
    real = bundle_unpack.unpack

    def unpack(root: str, archive: str, files: list[dict[str, Any]], digests: Digests) -> None:
        if files[0]["path"] == "manifest.json":
            raise OSError("the connection was lost")
        real(root, archive, files, digests)

    monkeypatch.setattr(bundle_unpack, "unpack", unpack)
    found = site.transfer()
    assert "the connection was lost" in found["msg"]
    assert (site.host / "manifest.json").read_bytes() == before
    assert (site.host / "wheels/a.whl").read_bytes() == FILES["wheels/a.whl"]
