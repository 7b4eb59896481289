"""Inventories as rackserve sees them; ansible-inventory itself reads the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve._paths import project_root
from rackserve.cli._init import write_site
from rackserve.errors import InputError
from rackserve.run import FleetHost, load_fleet, parse_inventory, resolve_inventory

LISTED = {
    "_meta": {"hostvars": {"gpu1": {"ansible_host": "10.0.0.11"}, "edge1": {"ansible_host": "{{ x }}"}}},
    "all": {"children": ["ungrouped", "vllm_hosts", "edge_hosts"]},
    "vllm_hosts": {"children": ["rack1"]},
    "rack1": {"hosts": ["gpu1"]},
    "edge_hosts": {"hosts": ["edge1"]},
    "ungrouped": {"hosts": ["spare"]},
}


def test_groups_of_groups_and_templates() -> None:
    fleet = parse_inventory(Path("/site"), LISTED)
    assert fleet.hosts == (
        FleetHost("gpu1", ("vllm_hosts",), "10.0.0.11"),
        FleetHost("edge1", ("edge_hosts",), None),
        FleetHost("spare", (), None),
    )
    assert fleet.address_of("gpu1") == "10.0.0.11"
    assert fleet.address_of("nobody") is None


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rackserve init"):
        resolve_inventory(str(tmp_path / "none"))


def test_the_example_of_a_data_centre_is_read() -> None:
    fleet = load_fleet(project_root() / "docs" / "examples" / "datacenter")
    assert fleet.names == ("gpu1", "gpu2", "gpu3", "gpu4", "edge1")


def test_the_example_of_a_lab_with_a_gpu_is_read() -> None:
    fleet = load_fleet(project_root() / "docs" / "examples" / "gpu-lab")
    assert {host.name: host.groups for host in fleet.hosts} == {
        "gpu1": ("vllm_hosts",),
        "edge1": ("edge_hosts", "monitoring_hosts"),
    }


def test_what_init_writes_is_read(tmp_path: Path) -> None:
    write_site(tmp_path / "site")
    fleet = load_fleet(tmp_path / "site")
    assert {host.name: host.groups for host in fleet.hosts} == {
        "gpu1": ("vllm_hosts",),
        "gpu2": ("vllm_hosts",),
        "edge1": ("edge_hosts", "monitoring_hosts"),
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("all: {hosts: {lone: }}\n", "has no host in the groups vllm_hosts"),
        ("vllm_hosts: [", "cannot read the inventory"),
    ],
)
def test_a_bad_inventory_is_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "hosts.yml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=word):
        load_fleet(tmp_path)
