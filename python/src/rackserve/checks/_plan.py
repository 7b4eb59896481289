"""Plans the checks of each host. Pure: inventory data in, checks for the module `host_checks` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve._schema import plain
from rackserve.checks._types import MAX_TOKENS, PROMPT
from rackserve.errors import InputError
from rackserve.vllm import parse_instances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.vllm import Instance

    Plan = list[dict[str, Any]]

VLLM: Final = "vllm_hosts"
EDGE: Final = "edge_hosts"
MONITORING: Final = "monitoring_hosts"

_STAMP: Final = ".rackserve-complete"
_VLLM_METRICS: Final = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:generation_tokens_total")


@dataclass(frozen=True)
class Inputs:
    """Inputs of the roles on one host, defaults included: `__verify_inputs` of the role `verify`.

    Ports are those of the whole site.
    """

    runtime: Mapping[str, str]
    bundle_path: str
    trust_file: str
    vllm_root: str
    probe_dir: str
    rotation_state: str
    listen_address: str
    cpu_kvcache_gib: int
    https_port: int
    server_name: str
    ca_file: str
    client_key_file: str
    client_certificate_file: str
    limit_rate: int
    limit_burst: int
    node_exporter_port: int
    nginx_exporter_port: int
    prometheus_url: str
    services: Mapping[str, Sequence[str]]
    exporters: Mapping[str, Sequence[str]]
    expect: str
    no_default_route: bool


@dataclass(frozen=True)
class Site:
    """A site seen from one of its hosts: that host's inputs, and the inventory of the others."""

    host: str
    inputs: Inputs
    hostvars: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Sequence[str]]

    def members(self, group: str) -> Sequence[str]:
        """Return the hosts of a group; none where the inventory has no such group."""
        return self.groups.get(group, ())

    def is_in(self, group: str) -> bool:
        """Return whether this host is in a group."""
        return self.host in self.members(group)


def host_checks(site: Site) -> Plan:
    """Return the checks of one host for `rackserve verify`."""
    inputs = site.inputs
    checks: Plan = []
    if site.is_in(VLLM):
        checks += _vllm_checks(site)
    if site.is_in(EDGE):
        checks += _units(inputs.services[EDGE])
    if site.members(MONITORING):
        checks += [check for group, units in inputs.exporters.items() if site.is_in(group) for check in _units(units)]
    if site.is_in(MONITORING):
        checks += [*_units(inputs.services[MONITORING]), _targets_check(site)]
    if inputs.no_default_route:
        checks.append({"name": "no default route", "kind": "no_default_route"})
    return checks


def status_checks(site: Site) -> Plan:
    """Return the checks of one host for `rackserve status`: one row per instance, and an edge's rotation."""
    inputs = site.inputs
    rotation: Plan = (
        [{"name": "rotation", "kind": "rotation", "state": inputs.rotation_state}] if site.is_in(EDGE) else []
    )
    if not site.is_in(VLLM):
        return rotation
    return [
        {
            "name": f"status {instance.name}",
            "kind": "status",
            "instance": instance.name,
            "url": _url(site, instance),
            "gpus": [str(gpu) for gpu in instance.gpus],
            **_runtime(inputs),
            "record": f"{inputs.probe_dir}/{instance.name}.json",
        }
        for instance in _instances(site.hostvars[site.host])
    ] + rotation


def host_facts(site: Site) -> dict[str, Any]:
    """Return the facts of a host that the controller needs."""
    own, inputs = site.hostvars[site.host], site.inputs
    facts: dict[str, Any] = {
        "address": _address(site, site.host),
        "edge": None,
        "instances": [],
        "bundle": inputs.bundle_path,
        "trust": inputs.trust_file,
    }
    if site.is_in(VLLM):
        facts["instances"] = [
            {
                "name": instance.name,
                "url": _url(site, instance),
                "served_names": [*instance.served_names, *(adapter.name for adapter in instance.lora)],
            }
            for instance in _instances(own)
        ]
        facts["serves"] = {
            "instances": _raw_instances(own),
            "runtime": plain(inputs.runtime),
            "cpu_kvcache_gib": inputs.cpu_kvcache_gib,
        }
    if site.is_in(EDGE):
        facts["edge"] = {
            "port": inputs.https_port,
            "server_name": inputs.server_name,
            "ca_file": inputs.ca_file,
            "key_file": inputs.client_key_file,
            "certificate_file": inputs.client_certificate_file,
            "model": _first_model(site),
            "expect": inputs.expect,
            "rate": inputs.limit_rate,
            "burst": inputs.limit_burst,
        }
    return facts


def _vllm_checks(site: Site) -> Plan:
    instances = _instances(site.hostvars[site.host])
    if not instances:
        detail = (
            f"{site.host} is in the group {VLLM} but has no vllm_instances; give it one, or take it out of the group"
        )
        return [{"name": "instances", "kind": "unplanned", "detail": detail}]
    checks: Plan = [{"name": "runtime", "kind": "runtime", **_runtime(site.inputs)}]
    for instance in instances:
        url = _url(site, instance)
        served = [str(name) for name in instance.served_names]
        ask = {
            "url": url,
            "model": served[0],
            "prompt": PROMPT,
            "expect": site.inputs.expect,
            "max_tokens": MAX_TOKENS,
        }
        name = instance.name
        checks += [
            {"name": f"unit vllm@{name}", "kind": "unit", "instance": name},
            {"name": f"models {name}", "kind": "models", "url": url, "served": served},
            *_answer_checks(instance, ask),
            {"name": f"metrics {name}", "kind": "metrics", "url": f"{url}/metrics", "names": list(_VLLM_METRICS)},
        ]
    return checks


def _answer_checks(instance: Instance, ask: dict[str, Any]) -> Plan:
    if instance.task != "generate":
        return [{"name": f"{instance.task} {instance.name}", "kind": instance.task, **ask}]
    return [{"name": f"{kind} {instance.name}", "kind": kind, **ask} for kind in ("chat", "stream")]


def _runtime(inputs: Inputs) -> dict[str, str]:
    return {"current": f"{inputs.vllm_root}/current", "stamp": _STAMP}


def _targets_check(site: Site) -> dict[str, Any]:
    inputs = site.inputs
    expected = [
        _scraped_at(site, other, instance.port, str(site.hostvars[other].get("vllm_listen_address") or ""))
        for other in site.members(VLLM)
        for instance in _instances(site.hostvars[other])
    ]
    everyone = sorted({name for group in (VLLM, EDGE, MONITORING) for name in site.members(group)})
    expected += [_scraped_at(site, other, inputs.node_exporter_port) for other in everyone]
    expected += [_scraped_at(site, other, inputs.nginx_exporter_port) for other in site.members(EDGE)]
    return {"name": "prometheus targets", "kind": "targets", "url": inputs.prometheus_url, "expected": expected}


def _scraped_at(site: Site, host: str, port: int, listens_on: str = "") -> list[str]:
    """Return the addresses by which Prometheus may scrape a port; its own host is also reached by loopback."""
    names = [*filter(None, [listens_on]), _address(site, host), host]
    if host == site.host:
        names += ["127.0.0.1", "localhost"]
    return [f"{name}:{port}" for name in dict.fromkeys(names)]


def _units(names: Sequence[str]) -> Plan:
    return [{"name": f"unit {name}", "kind": "unit", "unit": str(name)} for name in names]


def _url(site: Site, instance: Instance) -> str:
    return f"http://{site.inputs.listen_address}:{instance.port}"


def _address(site: Site, host: str) -> str:
    return str(site.hostvars[host].get("ansible_host") or host)


def _raw_instances(own: Mapping[str, Any]) -> list[dict[str, Any]]:
    raw = plain(own.get("vllm_instances") or [])
    if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
        raise InputError(f"vllm_instances must be a list of instances, found {raw!r}; see docs/reference/instances.md")
    return raw


def _instances(own: Mapping[str, Any]) -> tuple[Instance, ...]:
    return tuple(parse_instances(_raw_instances(own)))


def _first_model(site: Site) -> str:
    for host in site.members(VLLM):
        for instance in _instances(site.hostvars[host]):
            if instance.task == "generate":
                return str(instance.served_names[0])
    return ""
