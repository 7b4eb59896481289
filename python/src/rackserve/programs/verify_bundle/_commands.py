"""The command line of the verifier."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import os
import sys
import tempfile
from typing import Any

from ._digests import Digests
from ._files import file_problem, files_at, folder_problems, read_bounded, reject
from ._manifest import MANIFEST, BundleRejected, Entry, check_expiry, load_json, manifest_id, parse_manifest
from ._parts import extract, open_parts, part_problems, read_parts
from ._rollback import RollbackProtection
from ._signature import (
    ATTESTED,
    Attestation,
    attestations,
    read_signature,
    signed_files,
    verify_attestations,
    verify_signature,
)
from ._unpack import unpack

_USAGE = """\
Verify a bundle of rackserve: its signature, its expiry, its attestations and every byte of it; or unpack it too.

BUNDLE is a bundle's folder, or the folder of its parts. A signers file is one of ssh-keygen's ALLOWED SIGNERS:
    NAME namespaces="rackserve-bundle,rackserve-attestation" ssh-ed25519 AAAA...
Where there is no ssh-keygen yet, --manifest-sha256 HEX, from another channel than the bundle, replaces it; attestations
are then neither verified nor unpacked.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=_USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("check", "unpack"):
        sub = verbs.add_parser(verb, description=_USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, or a folder with its parts")
        if verb == "unpack":
            sub.add_argument("dest", metavar="DEST", help="a folder that does not exist")
        else:
            sub.add_argument("--parts", metavar="FILE", help="JSON list of the paths that a host has; without it, all")
            sub.add_argument("--digests", metavar="FILE", help="digests of the files that were read in this run")
            sub.add_argument("--digests-sha256", metavar="HEX", help="sha256 of that file, to know it as this run's")
        trust = sub.add_mutually_exclusive_group(required=True)
        trust.add_argument("--signers", metavar="FILE", help="allowed signers, as ssh-keygen reads them")
        trust.add_argument("--manifest-sha256", metavar="HEX", help="the manifest's sha256, from another channel")
        sub.add_argument("--revoked", metavar="FILE", help="revoked public keys, or a KRL")
        sub.add_argument(
            "--rollback-protection", metavar="DIR", help="refuse a version older than the newest that DIR records"
        )
        sub.add_argument("--allow-downgrade", metavar="REASON", help="accept an older version; the reason is recorded")
    return parser.parse_args()


def _verify_manifest(args: argparse.Namespace, data: bytes, signature: bytes) -> tuple[dict[str, Any], str]:
    """Return the verified manifest and its signer."""
    signer = "its sha256"
    if args.signers:
        signer = verify_signature(data, signature, args.signers, args.revoked)
    elif hashlib.sha256(data).hexdigest() != args.manifest_sha256.lower():
        raise BundleRejected(f"the manifest's sha256 is {hashlib.sha256(data).hexdigest()}, not the one given")
    manifest = parse_manifest(data)
    check_expiry(manifest, dt.datetime.now(dt.timezone.utc).date())
    if args.rollback_protection:
        RollbackProtection(args.rollback_protection).check(manifest, manifest_id(data), args.allow_downgrade)
    return manifest, signer


def _run(args: argparse.Namespace) -> str:
    bundle = args.bundle
    if args.verb == "unpack" and os.path.lexists(args.dest):
        raise BundleRejected(f"{args.dest} exists; name a new folder")
    with contextlib.ExitStack() as stack:
        parts = read_parts(bundle)
        if parts is not None:
            reject(part_problems(bundle, parts))
            near = os.path.dirname(os.path.abspath(args.dest)) if args.verb == "unpack" else None
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=near))
            stream = stack.enter_context(open_parts(bundle, parts))
            extract(stream, folder, lambda data, signature: _verify_manifest(args, data, signature)[0])
            bundle = folder
        data, signature = read_bounded(bundle, MANIFEST), _signature(args, bundle)
        manifest, signer = _verify_manifest(args, data, signature)
        attested = _attested(args, bundle, data)
        signed = signed_files(data, signature, attested)
        ignored = attestations(bundle) - set(signed)
        if args.verb == "unpack":
            if not os.path.isdir(os.path.join(bundle, "blobs")):
                raise BundleRejected(f"{bundle} is unpacked already")
            wanted = manifest["files"]
            unpack(bundle, wanted, args.dest, signed, ignored, own=parts is not None)
        else:
            wanted = _check(args, bundle, manifest["files"], {*signed, *ignored})
        if args.rollback_protection and RollbackProtection(args.rollback_protection).record(
            manifest, manifest_id(data), signer, args.allow_downgrade
        ):
            print("recorded")
    size = sum(entry.size for entry in wanted)
    rest = "; its attestations were not verified, which needs --signers" if ignored else ""
    name = f"{manifest['name']} version {manifest['version']} ({manifest_id(data)})"
    return f"{name}, {len(wanted)} files, {size} bytes{rest}"


def _signature(args: argparse.Namespace, bundle: str) -> bytes:
    if args.manifest_sha256 and not os.path.lexists(os.path.join(bundle, f"{MANIFEST}.sig")):
        return b""
    return read_signature(bundle, MANIFEST)


def _attested(args: argparse.Namespace, bundle: str, manifest: bytes) -> dict[str, Attestation]:
    if not args.signers:
        return {}

    def verify(data: bytes, signature: bytes, name: str) -> str:
        return verify_signature(data, signature, args.signers, args.revoked, namespace=ATTESTED, name=name)

    return verify_attestations(bundle, manifest, verify)


def _check(args: argparse.Namespace, bundle: str, entries: list[Entry], known: set[str]) -> list[Entry]:
    wanted = files_at(bundle, entries)
    if args.parts:
        folder, name = os.path.split(args.parts)
        listed = load_json(read_bounded(folder, name), name)
        if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
            raise BundleRejected(f"{args.parts} is not a list of paths; provision the host again")
        paths = set(listed)
        wanted = [entry for entry in entries if entry.path in paths]
        known = {*known, os.path.relpath(args.parts, bundle)}
    digests = Digests.load(args.digests, args.digests_sha256) if args.digests else Digests()
    reject(folder_problems(bundle, wanted, known, problem_of=lambda root, entry: file_problem(root, entry, digests.of)))
    return wanted


def main() -> int:
    """Run the command line."""
    args = _arguments()
    try:
        print(f"ok: {_run(args)}")
    except (BundleRejected, OSError) as rejected:
        print(f"refused: {args.bundle}: {rejected}", file=sys.stderr)
        return 1
    return 0
