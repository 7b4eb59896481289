"""What is looked at on each host."""

from __future__ import annotations

from typing import Any

import pytest

from rackserve.checks import host_checks, host_facts, status_checks
from rackserve.errors import InputError

INSTANCE = {
    "name": "chat",
    "model": {"repo": "org/model", "revision": "a" * 40, "served_names": ["small", "chat"]},
    "max_model_len": 128,
    "max_num_seqs": 4,
}
GROUPS = {"vllm_hosts": ["gpu1"], "edge_hosts": ["edge1"], "monitoring_hosts": ["edge1"]}


def hostvars(**gpu1: Any) -> dict[str, dict[str, Any]]:
    return {
        "gpu1": {"ansible_host": "10.0.0.11", "vllm_instances": [INSTANCE], **gpu1},
        "edge1": {"ansible_host": "10.0.0.21", "stack_pki_dir": "/pki", "stack_server_name": "llm.lab"},
    }


def kinds(checks: list[dict[str, Any]]) -> list[str]:
    return [check["kind"] for check in checks]


def test_a_vllm_host() -> None:
    checks = host_checks(hostvars(), "gpu1", GROUPS)
    assert kinds(checks) == ["runtime", "unit", "models", "chat", "stream", "metrics", "unit", "no_default_route"]
    by_kind = {check["kind"]: check for check in checks}
    assert by_kind["models"]["served"] == ["small", "chat"]
    assert by_kind["chat"]["model"] == "small"
    assert by_kind["chat"]["url"] == "http://10.0.0.11:8000"
    assert by_kind["chat"]["expect"] == "Paris"
    assert checks[1]["unit"] == "vllm@chat.service"


def test_an_instance_that_does_not_generate_is_asked_for_its_own_work() -> None:
    vectors = hostvars(vllm_instances=[{**INSTANCE, "task": "embed"}])
    assert kinds(host_checks(vectors, "gpu1", GROUPS))[3:5] == ["embed", "metrics"]
    assert host_facts(vectors, "edge1", GROUPS)["edge"]["model"] == "", "nothing to ask through the edge"


def test_an_edge_that_monitors() -> None:
    checks = host_checks(hostvars(), "edge1", GROUPS)
    units = [check["unit"] for check in checks if check["kind"] == "unit"]
    assert units == [
        "nginx.service",
        "prometheus-node-exporter.service",
        "prometheus-nginx-exporter.service",
        "prometheus.service",
        "prometheus-alertmanager.service",
    ]
    expected = next(check["expected"] for check in checks if check["kind"] == "targets")
    assert ["10.0.0.11:8000", "gpu1:8000"] in expected
    assert ["10.0.0.11:9100", "gpu1:9100"] in expected
    assert ["10.0.0.21:9113", "edge1:9113", "127.0.0.1:9113", "localhost:9113"] in expected
    assert len(expected) == 4


def test_without_monitoring_no_exporter_is_expected() -> None:
    checks = host_checks(hostvars(), "gpu1", {"vllm_hosts": ["gpu1"]})
    assert not any("exporter" in check["name"] for check in checks)


def test_what_a_site_may_change() -> None:
    own = hostvars(stack_verify_expect="", stack_verify_no_default_route=False, vllm_listen_address="10.9.9.9")
    checks = host_checks(own, "gpu1", GROUPS)
    assert "no_default_route" not in kinds(checks)
    assert next(check for check in checks if check["kind"] == "chat")["expect"] == ""
    assert next(check for check in checks if check["kind"] == "models")["url"] == "http://10.9.9.9:8000"


def test_a_vllm_host_without_instances_cannot_pass() -> None:
    checks = host_checks(hostvars(vllm_instances=[]), "gpu1", GROUPS)
    assert checks[0]["kind"] == "unplanned"
    assert "gpu1" in checks[0]["detail"]


def test_names_of_checks_are_unique_per_host() -> None:
    two = [INSTANCE, {**INSTANCE, "name": "code"}]
    names = [check["name"] for check in host_checks(hostvars(vllm_instances=two), "gpu1", GROUPS)]
    assert len(names) == len(set(names))


def test_bad_instances_are_named() -> None:
    with pytest.raises(InputError, match="must be a list"):
        host_checks(hostvars(vllm_instances={"name": "x"}), "gpu1", GROUPS)
    with pytest.raises(InputError, match="speed"):
        host_checks(hostvars(vllm_instances=[{**INSTANCE, "speed": 9}]), "gpu1", GROUPS)


def test_status() -> None:
    checks = status_checks(hostvars(vllm_instances=[{**INSTANCE, "gpus": [1]}]), "gpu1", GROUPS)
    assert [(check["instance"], check["gpus"], check["url"]) for check in checks] == [
        ("chat", ["1"], "http://10.0.0.11:8000")
    ]
    (rotation,) = status_checks(hostvars(), "edge1", GROUPS)
    assert rotation["kind"] == "rotation"


def test_facts() -> None:
    own = {
        "stack_bundle_path": "/b",
        "stack_trust_file": "/t",
        "stack_runtime": {"vllm": "1"},
        "vllm_cpu_kvcache_gib": 2,
    }
    assert host_facts(hostvars(**own), "gpu1", GROUPS) == {
        "address": "10.0.0.11",
        "edge": None,
        "instances": [{"name": "chat", "url": "http://10.0.0.11:8000", "served_names": ["small", "chat"]}],
        "serves": {"instances": [INSTANCE], "runtime": {"vllm": "1"}, "cpu_kvcache_gib": 2},
        "bundle": "/b",
        "trust": "/t",
    }
    assert "serves" not in host_facts(hostvars(), "edge1", GROUPS)
    assert host_facts(hostvars(), "edge1", GROUPS)["edge"] == {
        "port": 443,
        "server_name": "llm.lab",
        "ca_file": "/pki/ca.crt",
        "key_file": "",
        "certificate_file": "",
        "model": "small",
        "expect": "Paris",
        "rate": 20,
        "burst": 40,
    }
