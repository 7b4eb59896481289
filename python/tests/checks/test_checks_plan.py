"""What is looked at on each host."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from rackserve.checks import Inputs, Site, host_checks, host_facts, status_checks
from rackserve.errors import InputError

INSTANCE = {
    "name": "chat",
    "model": {"repo": "org/model", "revision": "a" * 40, "served_names": ["small", "chat"]},
    "max_model_len": 128,
    "max_num_seqs": 4,
}
GROUPS = {"vllm_hosts": ["gpu1"], "edge_hosts": ["edge1"], "monitoring_hosts": ["edge1"]}


INPUTS = Inputs(
    runtime={"vllm": "1"},
    bundle_path="/b",
    trust_file="/t",
    vllm_root="/srv/vllm",
    probe_dir="/srv/probe",
    rotation_state="/srv/rotation.json",
    listen_address="10.0.0.11",
    cpu_kvcache_gib=2,
    https_port=8443,
    server_name="llm.lab",
    ca_file="/pki/ca.crt",
    client_key_file="/pki/client.key",
    client_certificate_file="",
    limit_rate=5,
    limit_burst=7,
    node_exporter_port=9101,
    nginx_exporter_port=9114,
    prometheus_url="http://127.0.0.1:9091",
    services={"edge_hosts": ["nginx.service"], "monitoring_hosts": ["prometheus.service"]},
    exporters={"all": ["node.service"], "edge_hosts": ["nginx-exporter.service"]},
    expect="Paris",
    no_default_route=True,
)


def site(host: str, *, instances: Any = (INSTANCE,), groups: dict[str, list[str]] = GROUPS, **inputs: Any) -> Site:
    hostvars = {
        "gpu1": {"ansible_host": "10.0.0.11", "vllm_instances": instances},
        "edge1": {"ansible_host": "10.0.0.21"},
    }
    return Site(host, dataclasses.replace(INPUTS, **inputs), hostvars, {"all": ["gpu1", "edge1"], **groups})


def kinds(checks: list[dict[str, Any]]) -> list[str]:
    return [check["kind"] for check in checks]


def test_a_vllm_host() -> None:
    checks = host_checks(site("gpu1"))
    assert kinds(checks) == ["runtime", "unit", "models", "chat", "stream", "metrics", "unit", "no_default_route"]
    by_kind = {check["kind"]: check for check in checks}
    assert by_kind["models"]["served"] == ["small", "chat"]
    assert by_kind["chat"]["model"] == "small"
    assert by_kind["chat"]["url"] == "http://10.0.0.11:8000"
    assert by_kind["chat"]["expect"] == "Paris"
    assert (checks[1]["name"], checks[1]["instance"]) == ("unit vllm@chat", "chat")


def test_an_instance_that_does_not_generate_is_asked_for_its_own_work() -> None:
    vectors = [{**INSTANCE, "task": "embed"}]
    assert kinds(host_checks(site("gpu1", instances=vectors)))[3:5] == ["embed", "metrics"]
    assert host_facts(site("edge1", instances=vectors))["edge"]["model"] == "", "nothing to ask through the edge"


def test_an_edge_that_monitors() -> None:
    checks = host_checks(site("edge1"))
    units = [check["unit"] for check in checks if check["kind"] == "unit"]
    assert units == ["nginx.service", "node.service", "nginx-exporter.service", "prometheus.service"]
    (targets,) = (check for check in checks if check["kind"] == "targets")
    assert targets["url"] == "http://127.0.0.1:9091"
    assert targets["expected"] == [
        ["10.0.0.11:8000", "gpu1:8000"],
        ["10.0.0.21:9101", "edge1:9101", "127.0.0.1:9101", "localhost:9101"],
        ["10.0.0.11:9101", "gpu1:9101"],
        ["10.0.0.21:9114", "edge1:9114", "127.0.0.1:9114", "localhost:9114"],
    ]


def test_without_monitoring_no_exporter_is_expected() -> None:
    checks = host_checks(site("gpu1", groups={"vllm_hosts": ["gpu1"]}))
    assert not any("node.service" in check["name"] for check in checks)


def test_what_a_site_may_change() -> None:
    own = site("gpu1", expect="", no_default_route=False, listen_address="10.9.9.9", vllm_root="/data/vllm")
    checks = host_checks(own)
    assert "no_default_route" not in kinds(checks)
    by_kind = {check["kind"]: check for check in checks}
    assert by_kind["chat"]["expect"] == ""
    assert by_kind["models"]["url"] == "http://10.9.9.9:8000"
    assert by_kind["runtime"]["current"] == "/data/vllm/current"


def test_an_instance_may_be_scraped_where_it_listens() -> None:
    own = site("edge1")
    own.hostvars["gpu1"]["vllm_listen_address"] = "10.9.9.9"  # type: ignore[index]
    expected = next(check["expected"] for check in host_checks(own) if check["kind"] == "targets")
    assert expected[0] == ["10.9.9.9:8000", "10.0.0.11:8000", "gpu1:8000"]


def test_a_vllm_host_without_instances_cannot_pass() -> None:
    checks = host_checks(site("gpu1", instances=[]))
    assert checks[0]["kind"] == "unplanned"
    assert "gpu1" in checks[0]["detail"]


def test_names_of_checks_are_unique_per_host() -> None:
    two = [INSTANCE, {**INSTANCE, "name": "code"}]
    names = [check["name"] for check in host_checks(site("gpu1", instances=two))]
    assert len(names) == len(set(names))


def test_bad_instances_are_named() -> None:
    with pytest.raises(InputError, match="must be a list"):
        host_checks(site("gpu1", instances={"name": "x"}))
    with pytest.raises(InputError, match="speed"):
        host_checks(site("gpu1", instances=[{**INSTANCE, "speed": 9}]))


def test_status() -> None:
    (row,) = status_checks(site("gpu1", instances=[{**INSTANCE, "gpus": [1]}]))
    assert (row["instance"], row["gpus"], row["url"]) == ("chat", ["1"], "http://10.0.0.11:8000")
    assert (row["current"], row["record"]) == ("/srv/vllm/current", "/srv/probe/chat.json")
    (rotation,) = status_checks(site("edge1"))
    assert (rotation["kind"], rotation["state"]) == ("rotation", "/srv/rotation.json")


def test_facts() -> None:
    assert host_facts(site("gpu1")) == {
        "address": "10.0.0.11",
        "edge": None,
        "instances": [{"name": "chat", "url": "http://10.0.0.11:8000", "served_names": ["small", "chat"]}],
        "serves": {"instances": [INSTANCE], "runtime": {"vllm": "1"}, "cpu_kvcache_gib": 2},
        "bundle": "/b",
        "trust": "/t",
    }
    assert "serves" not in host_facts(site("edge1"))
    assert host_facts(site("edge1"))["edge"] == {
        "port": 8443,
        "server_name": "llm.lab",
        "ca_file": "/pki/ca.crt",
        "key_file": "/pki/client.key",
        "certificate_file": "",
        "model": "small",
        "expect": "Paris",
        "rate": 5,
        "burst": 7,
    }


def test_the_role_gives_every_input() -> None:
    role = Path(__file__).parents[3] / "roles" / "verify" / "vars" / "main.yml"
    given = yaml.safe_load(role.read_text(encoding="utf-8"))["__verify_inputs"]
    assert list(given) == [field.name for field in dataclasses.fields(Inputs)]
