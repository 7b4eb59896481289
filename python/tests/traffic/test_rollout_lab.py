"""What the scenarios of rollouts are made of: revisions, recipes, packages, inventories."""

from __future__ import annotations

import json
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rackserve.bundle._recipe import Recipe, read_recipe
from testing import rollout_bundles, rollout_site
from testing.altered_weights import damaged, folder_source, make_revision, nudged, tensors
from testing.lab import ROOT
from testing.rollout_bundles import newer, recipe
from testing.rollout_fleet import Look, Watch
from testing.rollout_site import Site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "original"
    folder.mkdir()
    head = {
        "__metadata__": {"format": "pt"},
        "one": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "two": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    text = json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(range(8)))
    (folder / "config.json").write_text("{}")
    return folder


def numbers(data: bytes) -> list[float]:
    """Read bfloat16 numbers."""
    return [struct.unpack("<f", b"\0\0" + data[at : at + 2])[0] for at in range(0, len(data), 2)]


def test_nudged_numbers_are_others_of_the_same_worth() -> None:
    before = struct.pack("<4H", 0x3F80, 0xBF00, 0x4049, 0x0000)
    after = numbers(nudged(before))
    assert after != numbers(before)
    assert after == pytest.approx(numbers(before), rel=0.01, abs=1e-30)


def test_damaged_numbers_have_the_other_sign() -> None:
    before = struct.pack("<2H", 0x3F80, 0xBF00)
    assert numbers(damaged(before)) == [-1.0, 0.5]


def test_a_revision_differs_in_one_tensor_and_is_named_by_what_it_is(snapshot: Path, tmp_path: Path) -> None:
    made = make_revision(snapshot, tmp_path / "made", "one", damaged)
    old, new = ((folder / "model.safetensors").read_bytes() for folder in (snapshot, made))
    (one, _) = tensors(made / "model.safetensors")
    assert [at for at, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]] == [
        one.start + 1,
        one.start + 3,
    ]
    assert len(made.name) == 40
    assert make_revision(snapshot, tmp_path / "made", "one", damaged) == made
    assert folder_source(made)["files"].keys() == {"config.json", "model.safetensors"}


def test_a_tensor_of_another_type_is_refused(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two is of F32, not BF16"):
        make_revision(snapshot, tmp_path / "made", "two", damaged)


def test_the_recipe_has_both_releases_and_all_revisions(snapshot: Path, tmp_path: Path) -> None:
    made = make_revision(snapshot, tmp_path / "made", "one", nudged)
    base = yaml.safe_load((ROOT / "inventory/bundle.yml").read_text(encoding="utf-8"))
    further = [{"repo": rollout_bundles.REPO, "revision": made.name, "source": folder_source(made)}]
    (tmp_path / "bundle.yml").write_text(yaml.safe_dump(recipe(base, 2, further, [])))
    read: Recipe = read_recipe(tmp_path)
    assert [runtime.vllm for runtime in read.runtimes] == ["0.31.0", "0.32.0"]
    assert [model.repo for model in read.models].count(rollout_bundles.REPO) == 2
    assert (read.name, read.version, read.controller) == ("rollout-lab", 2, False)


@pytest.mark.needs("dpkg-deb")
@pytest.mark.parametrize("version", ["1.22.1-9+deb12u11", "2.0.16-1"])
def test_a_newer_package_is_newer_and_below_what_others_exclude(tmp_path: Path, version: str) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True, mode=0o755)
    tree.chmod(0o755)
    control = f"Package: a\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example.com>\nDescription: t\n"
    (tree / "DEBIAN/control").write_text(control)
    deb = tmp_path / f"a_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, deb], check=True, capture_output=True)
    made = newer(deb, tmp_path / "debs")
    found = subprocess.check_output(["dpkg-deb", "--field", made, "Version"], text=True).strip()
    for relation, other in (("gt", version), ("lt", f"{version}.1~")):
        subprocess.run(["dpkg", "--compare-versions", found, relation, other], check=True)
    assert made.name > deb.name, "of two versions in an index the last one is taken"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(rollout_site, "revisions", lambda: {"nudged": "1" * 40})
    return Site(tmp_path / "inventory")


def variables(site: Site, host: str) -> Any:
    argv = ["ansible-inventory", "-i", str(site.folder), "--host", host]
    return json.loads(subprocess.check_output(argv, cwd=ROOT, text=True))


def test_a_site_has_one_instance_a_host_and_what_is_changed(site: Site) -> None:
    site.change({"max_num_seqs": 6, "extra_args": {"seed": 1}}, vllm="0.31.0", revision="nudged")
    for host in ("gpu1", "gpu2"):
        found = variables(site, host)
        (instance,) = found["vllm_instances"]
        assert instance["max_num_seqs"] == 6
        assert instance["extra_args"] == {"enforce-eager": True, "seed": 1}
        assert instance["model"]["revision"] == "1" * 40
        assert found["stack_runtime"]["vllm"] == "0.31.0"


def test_what_is_not_set_anew_is_as_the_lab_has_it(site: Site) -> None:
    site.change({"max_num_seqs": 6}, vllm="0.31.0")
    site.change()
    found = variables(site, "gpu1")
    assert found["vllm_instances"][0]["max_num_seqs"] == 8
    assert found["stack_runtime"]["vllm"] == "0.32.0"


def test_clients_are_added_to_the_labs_own(site: Site) -> None:
    before = variables(site, "edge1")["nginx_clients"]
    site.clients("another")
    assert variables(site, "edge1")["nginx_clients"] == [
        *before,
        {"name": "another", "keys": [{"sha256": f"{1:064x}"}]},
    ]


def look(at: float, **states: tuple[float, float]) -> Look:
    drained = {f"{host}:smollm2": pair[0] for host, pair in states.items()}
    return Look(at, drained, {f"{host}:smollm2": pair[1] for host, pair in states.items()})


def test_a_watch_tells_which_hosts_left_the_rotation() -> None:
    watch = Watch(
        [
            look(1, gpu1=(0, 100), gpu2=(0, 100)),
            look(2, gpu1=(1, 0), gpu2=(0, 100)),
            look(3, gpu1=(0, 10), gpu2=(0, 100)),
            look(4, gpu1=(0, 100), gpu2=(0, 100)),
        ]
    )
    assert watch.touched() == {"gpu1"}
    assert [(event["at"], event["host"], event["state"]) for event in watch.events()] == [
        (2, "gpu1", "drains"),
        (3, "gpu1", "gates"),
        (4, "gpu1", "serves"),
    ]


def test_a_fleet_that_is_left_alone_was_never_out() -> None:
    assert Watch([look(1, gpu1=(0, 100), gpu2=(0, 100))] * 3).touched() == set()
