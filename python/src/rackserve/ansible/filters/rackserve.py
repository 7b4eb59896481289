"""Registers the package's functions as filters: plain data in and out, errors as Ansible's."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ansible.errors import AnsibleFilterError

from rackserve import bundle, edge, gpu, history, monitoring, pki, preflight, rollout, run, vllm
from rackserve._paths import program_file
from rackserve._schema import plain
from rackserve.errors import RackserveError

if TYPE_CHECKING:
    from collections.abc import Callable


def _of_manifest(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass a function the parsed manifest in place of its text."""
    return lambda text, *args, **kwargs: function(bundle.parse_manifest(text.encode()), *args, **kwargs)


def _of_gpus(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass a function the typed facts of the module rackserve_gpu_facts."""
    return lambda facts, *args, **kwargs: function(gpu.GpuFacts.of(facts), *args, **kwargs)


def _lock_refusals(hostvars: Any, hosts: list[str]) -> str:  # noqa: ANN401 - Ansible's
    """Return what keeps a run from its hosts: of the tasks of roles/stack/tasks/lock.yml, by the hosts of the play."""
    found: dict[str, dict[str, Any]] = {}
    for host in hosts:
        own, edges = (plain(hostvars[host].get(name) or {}) for name in ("__stack_lock", "__stack_edge_locks"))
        if own.get("failed") and not own.get("unreachable"):
            found[host] = {"text": str(own.get("msg", "the lock could not be taken"))}
        for one in (own, *edges.get("results", [])):
            if one.get("text") or one.get("refused"):
                found[str(one["host"])] = one
    return history.refusals(found)


# By the name of the filter without its prefix.
FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "adapter_folders": vllm.adapter_folders,
    "alert_routes": monitoring.alertmanager_config,
    "alert_secrets": monitoring.receiver_secrets,
    "backends": edge.backends_of,
    "client_trust_problems": edge.trust_problems,
    "driver_change": _of_gpus(preflight.driver_change),
    "driver_hosts": rollout.driver_hosts,
    "driver_labels": rollout.driver_labels,
    "driver_plan": _of_manifest(preflight.host_driver),
    "driver_problems": _of_gpus(preflight.validate_driver),
    "driver_reboot": _of_gpus(preflight.reboot_reasons),
    "edge_plan": edge.plan_of,
    "gate_case_problems": lambda cases, site, fleet: vllm.gate_case_problems(cases, Path(site), fleet),
    "failure": run.failure_message,
    "gates_after": rollout.gates_after,
    "gates_before": rollout.gates_before,
    "generations_before": rollout.generations_before,
    "gpus_of_peers": preflight.gpus_of_peers,
    "named_backends": edge.named_backends,
    "new_places": edge.new_places,
    "pair_problem": pki.pair_problem,
    "lock_refusals": _lock_refusals,
    "parts": _of_manifest(preflight.host_parts),
    "ports": lambda raw: [instance.port for instance in vllm.parse_instances(raw)],
    "previous_plan": rollout.previous_plan,
    "program": program_file,
    "reason": vllm.reason_of,
    "refusal": _of_manifest(preflight.validate_host),
    "remote_write": monitoring.remote_write_entries,
    "remote_write_files": monitoring.remote_write_files,
    "retire_problems": rollout.retire_problems,
    "retired_record": lambda host, inventory, removed, **found: rollout.retired_record(
        host, Path(inventory), removed, **found
    ),
    "retirement": rollout.retirement,
    "rollout_hosts": rollout.observed_hosts,
    "rule_files": lambda paths, inventory: monitoring.rule_files(paths, Path(inventory)),
    "runtime": _of_manifest(preflight.find_runtime),
    "scrape_plan": lambda fleet, jobs, target_dir, secret_dir, inventory: monitoring.scrape_plan(
        fleet, jobs, target_dir=target_dir, secret_dir=secret_dir, inventory=Path(inventory)
    ),
    "sha256": lambda path: bundle.sha256_of(Path(path)) if Path(path).is_file() else "missing",
    "shared_address": edge.shared_address,
    "snapshots": _of_manifest(preflight.find_snapshots),
    "targets": monitoring.targets_of,
    "trust": lambda path, part: getattr(bundle.read_trust(Path(path)), part),
    "unknown": lambda names, roles: preflight.unknown_names(names, Path(roles)),
    "unsettled_targets": monitoring.unsettled_targets,
    "user_problems": preflight.validate_service_user,
}


def _registered(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Ansible's data
        try:
            found = function(*map(plain, args), **{key: plain(value) for key, value in kwargs.items()})
        except RackserveError as refused:
            raise AnsibleFilterError(str(refused)) from refused
        if is_dataclass(found) and not isinstance(found, type):
            return asdict(found)
        return str(found) if isinstance(found, Path) else found

    return call


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {f"rackserve_{name}": _registered(function) for name, function in FUNCTIONS.items()}
