"""Writes the recipes of the bundles that the scenarios of rollouts install; .ci/rollout_bundles builds them.

    cd python && python -m testing.rollout_bundles FOLDER

All have vLLM 0.31.0 and 0.32.0 and three revisions of the chat model. `two` brings a newer libnuma1, and `three` a
newer nginx beside it: the same files under a higher version.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from testing.altered_weights import damaged, folder_source, make_revision, nudged
from testing.lab import ROOT, STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME: Final = STATE / "rollout-lab"
REPO: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
RELEASES: Final = ("0.31.0", "0.32.0")
# By name: the tensor that is changed, and how.
REVISIONS: Final = {
    "nudged": ("model.layers.29.mlp.down_proj.weight", nudged),
    "altered": ("model.layers.12.mlp.down_proj.weight", damaged),
}
NEWER: Final[dict[str, tuple[str, ...]]] = {"one": (), "two": ("libnuma1",), "three": ("libnuma1", "nginx")}


def revisions() -> dict[str, str]:
    """Return the revisions of the chat model in the bundles by their names; `first` is the lab's own."""
    found: dict[str, str] = json.loads((HOME / "revisions.json").read_text(encoding="utf-8"))
    return found


def bundle(name: str) -> Path:
    """Return where one of the bundles is imported."""
    return HOME / name


def newer(deb: Path, into: Path) -> Path:
    """Pack the files of a package again, under a version that is a little higher, and return the new package."""
    version = subprocess.check_output(["dpkg-deb", "--field", deb, "Version"], text=True).strip()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
        control = tree / "DEBIAN/control"
        text = control.read_text(encoding="utf-8")
        # A letter sorts before `.`, so that what depends on versions below VERSION.1 takes it.
        control.write_text(text.replace(f"\nVersion: {version}\n", f"\nVersion: {version}r1\n"), encoding="utf-8")
        into.mkdir(parents=True, exist_ok=True)
        target = into / deb.name.replace("_amd64.deb", "r1_amd64.deb")
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, target], check=True, capture_output=True)
    return target


def recipe(base: dict[str, Any], number: int, models: list[dict[str, Any]], debs: Sequence[Path]) -> dict[str, Any]:
    """Return the recipe of one bundle.

    Args:
        base: the lab's own.
        number: its version.
        models: further models.
        debs: packages that are supplied.
    """
    (target,) = base["targets"]
    (runtime,) = target["runtimes"]
    supplied = [{"deb": str(deb), "sha256": hashlib.sha256(deb.read_bytes()).hexdigest()} for deb in debs]
    runtimes = [{**runtime, "vllm": release} for release in RELEASES]
    own = {"name": "rollout-lab", "version": number, "controller": False, "models": [*base["models"], *models]}
    return {**base, **own, "targets": [{**target, "runtimes": runtimes, "supplied": supplied}]}


def write_sites(folder: Path, lab_bundle: Path) -> None:
    """Write an inventory of each bundle: its recipe and whom it trusts.

    Args:
        folder: gets `sites/NAME/`, the altered snapshots, the newer packages and `revisions.json`.
        lab_bundle: the lab's own bundle, imported.
    """
    base = yaml.safe_load((ROOT / "inventory/bundle.yml").read_text(encoding="utf-8"))
    (first,) = (model["revision"] for model in base["models"] if model["repo"] == REPO)
    original = lab_bundle / "models" / REPO.replace("/", "--") / first
    names, models = {"first": first}, []
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    for name, (tensor, change) in REVISIONS.items():
        made = make_revision(original, folder / "snapshots", tensor, change)
        names[name] = made.name
        models.append({"repo": REPO, "revision": made.name, "source": folder_source(made)})
    (folder / "revisions.json").write_text(json.dumps(names), encoding="utf-8")
    for number, (name, packages) in enumerate(NEWER.items(), start=1):
        debs = []
        for package in packages:
            (deb,) = (lab_bundle / "apt/debian-12").glob(f"{package}_*_amd64.deb")
            debs.append(newer(deb, folder / "debs"))
        site = folder / "sites" / name
        site.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe(base, number, models, debs), sort_keys=False)
        (site / "bundle.yml").write_text(text, encoding="utf-8")
        trust = (ROOT / "inventory/trust.yml").read_text(encoding="utf-8")
        (site / "trust.yml").write_text(trust, encoding="utf-8")


if __name__ == "__main__":
    write_sites(Path(sys.argv[1]), STATE / "bundles/current")
