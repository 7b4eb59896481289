"""`rackserve bundle build | sign | verify | import | split | diff | inspect | prune | key`."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rackserve import bundle
from rackserve._paths import project_root
from rackserve.cli import EXIT_OK
from rackserve.cli._build_progress import BuildProgress
from rackserve.cli._options import add_json
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, handler: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        add_json(sub, "the result")
        sub.set_defaults(handler=handler)
        return sub

    key = verb("key", _key, "make a signing key on this machine, and print its public half")
    key.add_argument("name", help="of the signer, as trust.yml names it")
    build = verb("build", _build, "gather it, on a machine that reaches the registries, and sign it")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a folder that does not exist")
    build.add_argument("--bundle-version", type=int, metavar="N", help="instead of the version in bundle.yml")
    build.add_argument(
        "--allow-dirty", action="store_true", help="carry this project as committed, whatever has changed"
    )
    build.add_argument(
        "--no-audit", metavar="REASON", help="do not ask for known vulnerabilities; the reason is recorded"
    )
    sign = verb("sign", _sign, "sign it again, with another key")
    verify = verb("verify", _verify, "see who signed it, and compare every byte with the manifest")
    importer = verb("import", _import, "verify it and make it the one that this controller installs from")
    importer.add_argument("--allow-downgrade", metavar="REASON", help="take an older version; the reason is recorded")
    split = verb("split", _split, "cut it into parts for media; each part verifies")
    split.add_argument("--size", type=_size, required=True, metavar="BYTES", help="of a part, such as 650M or 4G")
    split.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a folder that does not exist")
    inspect = verb("inspect", _inspect, "list what it holds")
    diff = verb("diff", _diff, "write only what the far side lacks")
    diff.add_argument("old", type=Path, metavar="OLD", help="the bundle that the far side has, or its manifest.json")
    diff.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a folder that does not exist")
    prune = verb("prune", _prune, "remove old bundles from this controller; the one in use stays")
    prune.add_argument("--keep", type=int, default=2, metavar="N", help="besides the one in use (default: 2)")
    for sub in (sign, verify, importer, split, inspect, diff):
        sub.add_argument("bundle", type=Path, metavar="NEW" if sub is diff else "DIR")
    for sub in (build, verify, importer):
        sub.add_argument("-i", "--inventory", type=Path, default=project_root() / "inventory", metavar="DIR")
    for sub in (build, sign):
        sub.add_argument(
            "--sign-with", type=Path, metavar="KEY", help="a private key; else the one named as the bundle"
        )


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kMG]?)B?", text)
    if not found:
        raise InputError(f"--size is {text!r}; give bytes, such as 650M or 4G")
    return int(found[1]) * _UNITS[found[2]]


def _facts(manifest: bundle.Manifest, path: Path) -> dict[str, Any]:
    return {
        "ok": True,
        "path": str(path),
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "expires": manifest.expires,
        "files": len(manifest.files),
        "bytes": manifest.size,
        "runtimes": [runtime.id for runtime in manifest.runtimes],
        "models": [f"{model.repo}@{model.revision}" for model in manifest.models],
        "debian": [repository.release for repository in manifest.repositories],
        "controller": manifest.controller.commit if manifest.controller else None,
        "drivers": [f"{driver.version} ({driver.flavour}, Debian {driver.release})" for driver in manifest.drivers],
    }


def _report(args: argparse.Namespace, facts: dict[str, Any], line: str) -> int:
    print(json.dumps(facts) if args.json else line)
    return EXIT_OK


def _named(manifest: bundle.Manifest) -> str:
    return f"{manifest.name} version {manifest.version} ({manifest.id})"


def _key(args: argparse.Namespace) -> int:
    public = bundle.make_key(args.name)
    text = public.read_text(encoding="utf-8").strip()
    facts = {"ok": True, "private": str(bundle.key_path(args.name)), "public": str(public), "key": text}
    return _report(args, facts, f"- name: {args.name}\n  key: {text}")


def _build(args: argparse.Namespace) -> int:
    key = args.sign_with or bundle.key_path(bundle.read_recipe(args.inventory).name)
    manifest = bundle.build(
        args.inventory,
        args.output,
        BuildProgress(),
        key=key,
        version=args.bundle_version,
        allow_dirty=args.allow_dirty,
        no_audit=args.no_audit,
    )
    return _report(args, _facts(manifest, args.output), _summary(manifest, args.output))


def _summary(manifest: bundle.Manifest, path: Path) -> str:
    return f"bundle {_named(manifest)}: {len(manifest.files)} files, {manifest.size / 1e6:.0f} MB, at {path}"


def _sign(args: argparse.Namespace) -> int:
    manifest = bundle.read_manifest(args.bundle)
    bundle.sign(args.bundle, args.sign_with or bundle.key_path(manifest.name))
    return _report(args, _facts(manifest, args.bundle), f"signed: {_summary(manifest, args.bundle)}")


@contextmanager
def _progress(path: Path, what: str) -> Iterator[Callable[[bundle.Entry], None]]:
    """Show bytes and time left while the files of a bundle go by."""
    total = bundle.carried_bytes(path)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda entry: progress.advance(task, entry.size)


def _trust(args: argparse.Namespace) -> bundle.Trust:
    return bundle.read_trust(args.inventory / bundle.TRUST)


def _verify(args: argparse.Namespace) -> int:
    with _progress(args.bundle, "verify") as on_file:
        verified = bundle.verify(args.bundle, _trust(args), on_file)
    return _report(args, _verified_facts(verified, args.bundle), _verified_summary(verified, args.bundle))


def _import(args: argparse.Namespace) -> int:
    with _progress(args.bundle, "import") as on_file:
        home, verified = bundle.import_bundle(args.bundle, _trust(args), on_file, args.allow_downgrade)
    facts = {**_verified_facts(verified, home), "downgrade_reason": args.allow_downgrade}
    return _report(args, facts, _verified_summary(verified, home))


def _verified_facts(verified: bundle.Verified, path: Path) -> dict[str, Any]:
    audit = verified.attested.get("audit", {})
    verdict = {key: audit.get(key) for key in ("ok", "reason", "made_at")}
    return {**_facts(verified.manifest, path), "signer": verified.signer, "audit": verdict}


def _verified_summary(verified: bundle.Verified, path: Path) -> str:
    audit = verified.attested.get("audit", {})
    reason, made_at = (
        _shown(audit.get(key, absent)) for key, absent in (("reason", "there is none"), ("made_at", "never"))
    )
    verdict = f"{reason} ({made_at})"
    return f"{_summary(verified.manifest, path)}, signed by {verified.signer}\naudit: {verdict}"


def _shown(value: object) -> str:
    """Return a value of an attestation as a terminal may show it."""
    return value if isinstance(value, str) and value.isprintable() else bundle.excerpt(value)


def _split(args: argparse.Namespace) -> int:
    with _progress(args.bundle, "split") as on_file:
        parts = bundle.split(args.bundle, args.size, args.output, on_file)
    facts = {"ok": True, "path": str(args.output), "parts": [part._asdict() for part in parts]}
    return _report(args, facts, f"{len(parts)} parts of at most {args.size / 1e6:.0f} MB at {args.output}")


def _diff(args: argparse.Namespace) -> int:
    found = bundle.diff(args.old, args.bundle, args.output)
    facts = {**_facts(found.manifest, args.output), "transport_files": found.files, "carried_bytes": found.size}
    share = 100 * found.size / found.full
    sizes = f"{found.size / 1e6:.1f} of {found.full / 1e6:.0f} MB ({share:.1f} %)"
    return _report(args, facts, f"{_named(found.manifest)}: {found.files} files, {sizes}, at {args.output}")


def _prune(args: argparse.Namespace) -> int:
    if args.keep < 0:
        raise InputError(f"--keep is {args.keep}; give 0 or more")
    removed, freed = bundle.prune(args.keep)
    facts = {"ok": True, "removed": removed, "freed_bytes": freed}
    return _report(args, facts, f"removed {', '.join(removed) or 'nothing'}; {freed / 1e6:.0f} MB freed")


def _inspect(args: argparse.Namespace) -> int:
    manifest = bundle.read_manifest(args.bundle)
    folders: dict[str, int] = {}
    for entry in manifest.files:
        top = "/".join(entry.path.split("/")[:2])
        folders[top] = folders.get(top, 0) + entry.size
    facts = {**_facts(manifest, args.bundle), "folders": folders}
    rows = [f"{size / 1e6:10.1f} MB  {folder}" for folder, size in sorted(folders.items())]
    return _report(args, facts, "\n".join([_summary(manifest, args.bundle), *rows]))
