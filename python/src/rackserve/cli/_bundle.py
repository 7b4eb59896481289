"""`rackserve bundle build | verify | import`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rackserve import bundle
from rackserve._paths import project_root
from rackserve.cli import EXIT_OK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bundle` and its verbs."""
    parser = commands.add_parser("bundle", help="carry everything that a site's hosts need")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    build = verbs.add_parser("build", help="gather it, on a machine that reaches the registries")
    build.add_argument("-i", "--inventory", type=Path, default=project_root() / "inventory", metavar="DIR")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a folder that does not exist")
    build.set_defaults(handler=_build)
    verify = verbs.add_parser("verify", help="compare every byte with the manifest")
    verify.set_defaults(handler=_verify)
    importer = verbs.add_parser("import", help="verify it and make it the one that this controller installs from")
    importer.set_defaults(handler=_import)
    for verb in (verify, importer):
        verb.add_argument("bundle", type=Path, metavar="DIR")
    for verb in (build, verify, importer):
        verb.add_argument("--json", action="store_true", help="print the result as JSON")


def _report(args: argparse.Namespace, manifest: bundle.Manifest, path: Path) -> int:
    result = {
        "ok": True,
        "path": str(path),
        "id": manifest.id,
        "files": len(manifest.files),
        "bytes": manifest.size,
        "runtimes": [runtime.id for runtime in manifest.runtimes],
        "models": [f"{model.repo}@{model.revision}" for model in manifest.models],
        "debian": [repository.release for repository in manifest.repositories],
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"bundle {manifest.id}: {len(manifest.files)} files, {manifest.size / 1e6:.0f} MB, at {path}")
    return EXIT_OK


def _build(args: argparse.Namespace) -> int:
    started = time.monotonic()

    def say(step: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {step}", file=sys.stderr, flush=True)

    return _report(args, bundle.build(args.inventory, args.output, say), args.output)


def _with_progress(path: Path, what: str, work: Callable[[Callable[[bundle.FileEntry], None]], object]) -> None:
    total = bundle.read_manifest(path).size
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        work(lambda entry: progress.advance(task, entry.size))


def _verify(args: argparse.Namespace) -> int:
    _with_progress(args.bundle, "verify", lambda on_file: bundle.verify(args.bundle, on_file))
    return _report(args, bundle.read_manifest(args.bundle), args.bundle)


def _import(args: argparse.Namespace) -> int:
    homes: list[Path] = []
    _with_progress(args.bundle, "import", lambda on_file: homes.append(bundle.import_bundle(args.bundle, on_file)))
    return _report(args, bundle.read_manifest(homes[0]), homes[0])
