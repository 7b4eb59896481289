"""Decides what is looked at on each host. Pure: inventory data in, typed checks for the module `host_checks` out.

Exposed to Ansible as the filters `rackserve_host_checks`, `rackserve_status_checks` and `rackserve_host_facts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve._schema import plain
from rackserve.checks._types import EXPECT, MAX_TOKENS, PROMPT
from rackserve.errors import InputError
from rackserve.vllm import parse_instances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.vllm import Instance

    HostVars = Mapping[str, Mapping[str, Any]]
    Groups = Mapping[str, Sequence[str]]
    Plan = list[dict[str, Any]]

VLLM: Final = "vllm_hosts"
EDGE: Final = "edge_hosts"
MONITORING: Final = "monitoring_hosts"

_CURRENT: Final = "/opt/vllm/current"
_STAMP: Final = ".rackserve-complete"
_MARKS: Final = "/var/lib/rackserve/edge/drained"
_NODE_PORT: Final = 9100
_NGINX_EXPORTER_PORT: Final = 9113
_PROMETHEUS: Final = "http://127.0.0.1:9090"
_VLLM_METRICS: Final = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:generation_tokens_total")


def host_checks(hostvars: HostVars, inventory_hostname: str, groups: Groups) -> Plan:
    """Return the checks of one host for `rackserve verify`."""
    host = inventory_hostname
    checks: Plan = []
    if host in groups.get(VLLM, ()):
        checks += _vllm_checks(hostvars, host)
    if host in groups.get(EDGE, ()):
        checks.append(_unit("nginx"))
    if groups.get(MONITORING):
        checks += _exporter_checks(host, groups)
    if host in groups.get(MONITORING, ()):
        checks += [_unit("prometheus"), _unit("prometheus-alertmanager"), _targets_check(hostvars, host, groups)]
    if hostvars[host].get("stack_verify_no_default_route", True):
        checks.append({"name": "no default route", "kind": "no_default_route"})
    return checks


def status_checks(hostvars: HostVars, inventory_hostname: str, groups: Groups) -> Plan:
    """Return the checks of one host for `rackserve status`: one row per instance, and what an edge has drained."""
    rotation: Plan = (
        [{"name": "rotation", "kind": "rotation", "marks": _MARKS}]
        if inventory_hostname in groups.get(EDGE, ())
        else []
    )
    if inventory_hostname not in groups.get(VLLM, ()):
        return rotation
    instances = _instances(hostvars[inventory_hostname])
    return [
        {
            "name": f"status {instance.name}",
            "kind": "status",
            "instance": instance.name,
            "unit": _unit_name(instance),
            "url": _url(hostvars, inventory_hostname, instance),
            "gpus": [str(gpu) for gpu in instance.gpus],
            "current": _CURRENT,
            "stamp": _STAMP,
            "record": f"/var/lib/rackserve/probe/{instance.name}.json",
        }
        for instance in instances
    ] + rotation


def host_facts(hostvars: HostVars, inventory_hostname: str, groups: Groups) -> dict[str, Any]:
    """Return what the controller must know of a host, with every template of the inventory resolved."""
    own = hostvars[inventory_hostname]
    facts: dict[str, Any] = {"address": _address(hostvars, inventory_hostname), "edge": None, "instances": []}
    if inventory_hostname in groups.get(VLLM, ()):
        facts["instances"] = [
            {
                "name": instance.name,
                "url": _url(hostvars, inventory_hostname, instance),
                "served_names": [*instance.served_names, *(adapter.name for adapter in instance.lora)],
            }
            for instance in _instances(own)
        ]
        facts["serves"] = {
            "instances": _raw_instances(own),
            "runtime": plain(own.get("stack_runtime") or {}),
            "cpu_kvcache_gib": int(own.get("vllm_cpu_kvcache_gib", 1)),
        }
    facts["bundle"] = str(own.get("stack_bundle_path") or "")
    facts["trust"] = str(own.get("stack_trust_file") or "")
    if inventory_hostname in groups.get(EDGE, ()):
        ca_file = own.get("stack_ca_file") or (f"{own['stack_pki_dir']}/ca.crt" if own.get("stack_pki_dir") else "")
        facts["edge"] = {
            "port": int(own.get("stack_https_port", 443)),
            "server_name": str(own.get("stack_server_name", inventory_hostname)),
            "ca_file": str(ca_file),
            "key_file": str(own.get("stack_client_key_file") or ""),
            "certificate_file": str(own.get("stack_client_certificate_file") or ""),
            "model": _first_model(hostvars, groups),
            "expect": _expect(own),
            "rate": int(own.get("nginx_limit_rate", 20)),
            "burst": int(own.get("nginx_limit_burst", 40)),
        }
    return facts


def _vllm_checks(hostvars: HostVars, host: str) -> Plan:
    instances = _instances(hostvars[host])
    if not instances:
        detail = f"{host} is in the group {VLLM} but has no vllm_instances; give it one, or take it out of the group"
        return [{"name": "instances", "kind": "unplanned", "detail": detail}]
    checks: Plan = [{"name": "runtime", "kind": "runtime", "current": _CURRENT, "stamp": _STAMP}]
    for instance in instances:
        url = _url(hostvars, host, instance)
        served = [str(name) for name in instance.served_names]
        ask = {
            "url": url,
            "model": served[0],
            "prompt": PROMPT,
            "expect": _expect(hostvars[host]),
            "max_tokens": MAX_TOKENS,
        }
        name = instance.name
        checks += [
            {"name": f"unit {_unit_name(instance)}", "kind": "unit", "unit": _unit_name(instance)},
            {"name": f"models {name}", "kind": "models", "url": url, "served": served},
            *_answer_checks(instance, ask),
            {"name": f"metrics {name}", "kind": "metrics", "url": f"{url}/metrics", "names": list(_VLLM_METRICS)},
        ]
    return checks


def _answer_checks(instance: Instance, ask: dict[str, Any]) -> Plan:
    if instance.task != "generate":
        return [{"name": f"{instance.task} {instance.name}", "kind": instance.task, **ask}]
    return [{"name": f"{kind} {instance.name}", "kind": kind, **ask} for kind in ("chat", "stream")]


def _exporter_checks(host: str, groups: Groups) -> Plan:
    checks = [_unit("prometheus-node-exporter")]
    if host in groups.get(EDGE, ()):
        checks.append(_unit("prometheus-nginx-exporter"))
    return checks


def _targets_check(hostvars: HostVars, host: str, groups: Groups) -> dict[str, Any]:
    expected = [
        _scraped_at(hostvars, host, other, instance.port)
        for other in groups.get(VLLM, ())
        for instance in _instances(hostvars[other])
    ]
    everyone = sorted({name for group in (VLLM, EDGE, MONITORING) for name in groups.get(group, ())})
    expected += [_scraped_at(hostvars, host, other, _NODE_PORT) for other in everyone]
    expected += [_scraped_at(hostvars, host, other, _NGINX_EXPORTER_PORT) for other in groups.get(EDGE, ())]
    return {"name": "prometheus targets", "kind": "targets", "url": _PROMETHEUS, "expected": expected}


def _scraped_at(hostvars: HostVars, scraper: str, host: str, port: int) -> list[str]:
    """Return the addresses by which Prometheus may scrape a port; its own host is also reached by loopback."""
    names = [_address(hostvars, host), host]
    if host == scraper:
        names += ["127.0.0.1", "localhost"]
    return [f"{name}:{port}" for name in dict.fromkeys(names)]


def _unit(name: str) -> dict[str, Any]:
    return {"name": f"unit {name}.service", "kind": "unit", "unit": f"{name}.service"}


def _unit_name(instance: Instance) -> str:
    return f"vllm@{instance.name}.service"


def _url(hostvars: HostVars, host: str, instance: Instance) -> str:
    listens_on = hostvars[host].get("vllm_listen_address") or _address(hostvars, host)
    return f"http://{listens_on}:{instance.port}"


def _address(hostvars: HostVars, host: str) -> str:
    return str(hostvars[host].get("ansible_host") or host)


def _expect(own: Mapping[str, Any]) -> str:
    return str(own.get("stack_verify_expect", EXPECT))


def _raw_instances(own: Mapping[str, Any]) -> list[dict[str, Any]]:
    raw = plain(own.get("vllm_instances") or [])
    if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
        raise InputError(f"vllm_instances must be a list of instances, found {raw!r}; see docs/reference/instances.md")
    return raw


def _instances(own: Mapping[str, Any]) -> tuple[Instance, ...]:
    return tuple(parse_instances(_raw_instances(own)))


def _first_model(hostvars: HostVars, groups: Groups) -> str:
    for host in groups.get(VLLM, ()):
        for instance in _instances(hostvars[host]):
            if instance.task == "generate":
                return str(instance.served_names[0])
    return ""
