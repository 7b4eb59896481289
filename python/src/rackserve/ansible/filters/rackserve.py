"""Filters: the doors from inventory data to the package's pure functions."""

from __future__ import annotations

from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError

from rackserve import bundle, edge, gpu, monitoring, pki, preflight, vllm
from rackserve._paths import program_file
from rackserve.checks import host_checks, host_facts, status_checks
from rackserve.errors import RackserveError
from rackserve.vllm import parse_instances, release_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rackserve.vllm import Instance


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return Ansible's lazy, tagged containers and strings as Python's own, which schemas can read."""
    if isinstance(value, dict):
        return {_plain(key): _plain(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _one_message(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a function plain data, and turn the package's errors into Ansible's, message unchanged."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return function(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
        except RackserveError as refused:
            raise AnsibleFilterError(str(refused)) from refused

    return call


def rackserve_instances(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return validated instances with their ports and served names."""
    return [{**i.model_dump(), "served_names": list(i.served_names)} for i in parse_instances(raw)]


def rackserve_release_problems(raw: list[dict[str, Any]], vllm_version: str) -> list[str]:
    """Return what that vLLM release would refuse of these instances."""
    return vllm.validate_release(parse_instances(raw), release_of(vllm_version))


def rackserve_adapter_folders(raw: list[dict[str, Any]]) -> list[str]:
    """Return the folders of a host that its instances' adapters are in; none for instances that are refused anyway."""
    try:
        return vllm.folders_on_host(parse_instances(raw))
    except RackserveError:
        return []


def rackserve_placed(
    raw: list[dict[str, Any]], vllm_version: str, path: str, on_host: dict[str, str], *, hf_home: str, site: str
) -> list[dict[str, Any]]:
    """Return instances with the paths of adapters and templates on the host; see `rackserve.vllm.resolve_paths`."""
    sources = vllm.adapter_sources(bundle.read_manifest(Path(path)), Path(path), on_host)
    placed = vllm.resolve_paths(parse_instances(raw), sources, release_of(vllm_version), hf_home, Path(site))
    return [instance.model_dump() for instance in placed]


def rackserve_templates(raw: list[dict[str, Any]], site: str) -> dict[str, str]:
    """Return the chat templates that a host is given: path on the host to file of the inventory."""
    found = (vllm.find_own(instance, Path(site)) for instance in parse_instances(raw))
    return {template.on_host: str(template.source) for template in found if template}


def rackserve_config(
    raw: list[dict[str, Any]],
    name: str,
    vllm_version: str,
    *,
    flavour: str,
    timeout: int,
    gpus: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the `--config` file of the instance of that name; `gpus` of the host decide what dtype `auto` is."""
    instance = _named(raw, name)
    capability = gpu.capability_of(instance.gpus, _gpus(gpus))
    return vllm.config_of(
        instance, release_of(vllm_version), flavour=flavour, shutdown_timeout=timeout, capability=capability
    )


def rackserve_engine(config: dict[str, Any]) -> str:
    """Return where an engine with that `--config` file listens."""
    return vllm.engine_address(config)


def rackserve_words(raw: list[dict[str, Any]], name: str, vllm_version: str) -> list[str]:
    """Return what must stand before `--config` on the command line of the instance of that name."""
    return vllm.words_of(_named(raw, name), release_of(vllm_version))


def rackserve_environment(
    raw: list[dict[str, Any]],
    name: str,
    vllm_version: str,
    *,
    flavour: str,
    kvcache_gib: int,
    gpus: Sequence[dict[str, Any]] = (),
) -> dict[str, str]:
    """Return the environment of the instance of that name; `gpus` of the host are what its own are found among."""
    instance, release = _named(raw, name), release_of(vllm_version)
    visible = gpu.visible_devices(instance.gpus, _gpus(gpus), by_uuid=release.gpus_by_uuid)
    return vllm.environment_of(instance.model_copy(update={"gpus": visible}), release, flavour, kvcache_gib)


def _gpus(raw: Sequence[dict[str, Any]]) -> list[gpu.Gpu]:
    return [gpu.Gpu.model_validate(one) for one in raw]


def _named(raw: list[dict[str, Any]], name: str) -> Instance:
    return next(i for i in parse_instances(raw) if i.name == name)


def rackserve_reason(result: dict[str, Any]) -> str:
    """Return the last line of what a failed `validate` wrote; what could not be run, where it wrote nothing."""
    lines = str(result.get("stderr", "")).strip().splitlines()
    if lines:
        return lines[-1]
    if "cmd" in result:
        return f"{str(result['cmd']).split()[0]} cannot be run; run the role vllm_runtime first"
    return str(result.get("msg", "no reason given"))


def rackserve_backends(hostvars: dict[str, Any], hosts: list[str]) -> list[dict[str, Any]]:
    """Return every instance of a group of hosts as the edge needs it; see `rackserve.edge.backends_of`."""
    names = ("ansible_host", "vllm_instances", "stack_runtime")
    return edge.backends_of({host: {name: _plain(hostvars[host].get(name)) for name in names} for host in hosts})


def rackserve_drained(
    backends: list[dict[str, Any]], drained: list[str], drain: list[str], undrain: list[str], *, last: bool = False
) -> list[str]:
    """Return the instances that are out of rotation afterwards, as `edge.drained_after` does."""
    return edge.drained_after(_plain(backends), drained, drain=drain, undrain=undrain, last_too=last)


def rackserve_edge_plan(
    backends: list[dict[str, Any]],
    clients: list[dict[str, Any]],
    drained: list[str],
    optional_paths: list[str],
    affinity: dict[str, Any],
) -> dict[str, Any]:
    """Return what the edge's configuration is made of; see `rackserve.edge.plan_of`."""
    return edge.plan_of(backends, clients, drained, optional_paths, affinity)


def rackserve_client_trust_problems(ca_file: str, crl_file: str) -> list[str]:
    """Return why clients' certificates could not be held against these files; see `rackserve.edge.trust_problems`."""
    return edge.trust_problems(ca_file, crl_file)


def rackserve_pair_problem(certificate: str, key: str) -> str:
    """Return why a server could not show this certificate with this key; see `rackserve.pki.pair_problem`."""
    return pki.pair_problem(certificate, key)


def rackserve_probe_settings(
    raw: list[dict[str, Any]], name: str, engine: str, runtime: dict[str, str], start_timeout: int
) -> dict[str, Any]:
    """Return what the probe asks of the instance of that name; see `rackserve.vllm.probe_settings`."""
    instance = next(i for i in parse_instances(raw) if i.name == name)
    return vllm.probe_settings(instance, engine, runtime, start_timeout)


def rackserve_start_plan(raw: list[dict[str, Any]], *, serial: bool) -> dict[str, dict[str, Any]]:
    """Return by instance what it starts after, and how long its restart waits."""
    return vllm.start_plan(parse_instances(raw), serial=serial)


def rackserve_targets(hostvars: dict[str, Any], hosts: list[str], port: int) -> list[dict[str, Any]]:
    """Return a scrape target on one port of each host: host, address, port."""
    return [{"host": host, "address": str(hostvars[host]["ansible_host"]), "port": port} for host in hosts]


def rackserve_shared_address(wanted: dict[str, Any], links: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what keepalived is told on one host; see `rackserve.edge.shared_address`."""
    return edge.shared_address(wanted, links)


def rackserve_alert_routes(
    receivers: list[object], dead_man_url: str, secret_dir: str, group_wait: str, dead_man_every: str
) -> dict[str, Any]:
    """Return Alertmanager's configuration; see `rackserve.monitoring`."""
    return monitoring.alertmanager_config(
        receivers, dead_man_url, secret_dir, group_wait=group_wait, dead_man_every=dead_man_every
    )


def rackserve_alert_secrets(receivers: list[object]) -> dict[str, str]:
    """Return the receivers' files with secrets on the controller, by the name that they get on the host."""
    return monitoring.receiver_secrets(receivers)


def rackserve_remote_write(receivers: list[object], folder: str) -> list[dict[str, Any]]:
    """Return the entries of Prometheus's remote_write; see `rackserve.monitoring`."""
    return monitoring.remote_write_entries(receivers, folder)


def rackserve_remote_write_files(receivers: list[object], folder: str) -> dict[str, str]:
    """Return the files of those receivers on the controller, by their path on the host."""
    return monitoring.remote_write_files(receivers, folder)


def rackserve_program(name: str) -> str:
    """Return the controller's path of a program that hosts are given; see `rackserve.programs`."""
    return str(program_file(name))


def rackserve_scrape_plan(
    fleet: dict[str, Any], site_jobs: list[object], target_dir: str, secret_dir: str, inventory: str
) -> dict[str, Any]:
    """Return what Prometheus scrapes; see `rackserve.monitoring.scrape_plan`."""
    plan = monitoring.scrape_plan(
        fleet, site_jobs, target_dir=target_dir, secret_dir=secret_dir, inventory=Path(inventory)
    )
    return asdict(plan)


def rackserve_rule_files(paths: list[object], inventory: str) -> dict[str, str]:
    """Return the rule files of a site by their name on the host; see `rackserve.monitoring.rule_files`."""
    return monitoring.rule_files(paths, Path(inventory))


def rackserve_unsettled_targets(answer: dict[str, Any], targets: dict[str, Any]) -> list[str]:
    """Return how what Prometheus scrapes differs from a plan; see `rackserve.monitoring.unsettled_targets`."""
    return monitoring.unsettled_targets(answer, targets)


def rackserve_sha256(path: str) -> str:
    """Return the sha256 of a file on the controller in hex; "missing" when it is not there."""
    return bundle.sha256_of(Path(path)) if Path(path).is_file() else "missing"


def rackserve_bundle_problems(path: str, trust_file: str) -> list[str]:
    """Return what is wrong with the bundle on the controller: signature, date, bytes; an empty list means nothing."""
    try:
        return bundle.problems(Path(path), bundle.read_trust(Path(trust_file)))
    except RackserveError as refused:
        return [str(refused)]


def rackserve_trust(trust_file: str, part: str) -> str:
    """Return one text of who is trusted: `signers` as ssh-keygen reads them, or the `revoked` public keys."""
    trust = bundle.read_trust(Path(trust_file))
    return {"signers": trust.signers, "revoked": trust.revoked}[part]


def rackserve_refusal(
    wanted: dict[str, Any], path: str, facts: dict[str, Any], name: str, gpus: dict[str, dict[str, Any]]
) -> str:
    """Return everything that refuses a host, empty when nothing does; see `rackserve.preflight.judge`.

    `gpus` is what rackserve_gpu_facts read, by host: of this one and of those that serve the same instances.
    """
    manifest = bundle.read_manifest(Path(path))
    names = preflight.HostFacts.__dataclass_fields__
    known = preflight.HostFacts(**{key: value for key, value in facts.items() if key in names})
    peers = {host: gpu.GpuFacts.of(read) for host, read in gpus.items()}
    host = preflight.Host(name, known, peers.get(name), peers)
    judgement = preflight.judge(preflight.HostSpec(**wanted), manifest, host, Path(path))
    return "" if judgement.fits else judgement.text


def rackserve_driver_set(
    wish: dict[str, Any], path: str, host: dict[str, Any], facts: dict[str, Any], *, root: str, kernels: list[str]
) -> dict[str, Any]:
    """Return the driver set that the module rackserve_driver is to install; empty where none comes from the bundle.

    Args:
        wish: what the inventory says, as `rackserve.preflight.DriverRequest`.
        path: the bundle on the controller.
        host: what the module host_facts read.
        facts: what the module rackserve_gpu_facts read.
        root: the bundle on the host.
        kernels: those that the modules are built for.
    """
    manifest = bundle.read_manifest(Path(path))
    chosen = preflight.find_set(preflight.DriverRequest(**wish), manifest, host["release"], host["drivers"])
    if chosen is None:
        return {}
    read = gpu.GpuFacts.of(facts)
    hidden = any(gpu.known and gpu.known.nvswitch for gpu in read.gpus)
    nvswitch = read.host.nvswitches > 0 or hidden
    names = preflight.package_names(chosen, kernels, nvswitch=nvswitch)
    path = chosen.path if chosen.kept else f"{root}/{chosen.path}"
    return {**asdict(chosen), "path": path, "names": names, "nvswitch": nvswitch}


def rackserve_driver_mistakes(
    wish: dict[str, Any], given: dict[str, Any], path: str, host: dict[str, Any]
) -> list[str]:
    """Return what is wrong with what the inventory says of the driver; see `rackserve.preflight`."""
    manifest = bundle.read_manifest(Path(path))
    return preflight.validate_driver_inputs(
        preflight.DriverRequest(**wish), preflight.DriverInputs(**given), manifest, host["release"], host["drivers"]
    )


def rackserve_driver_refusal(
    wish: dict[str, Any],
    path: str,
    host: dict[str, Any],
    facts: dict[str, Any],
    *,
    vllm_version: str,
    kernels: list[str],
    gpu_required: bool,
) -> str:
    """Return the table of what refuses a host's driver, empty when nothing does; arguments as of the filter above."""
    manifest = bundle.read_manifest(Path(path))
    plan = preflight.plan_of(preflight.DriverRequest(**wish), manifest, host["release"], host["drivers"])
    found = gpu.GpuFacts.of(facts)
    return preflight.driver_refusal(found, plan, release_of(vllm_version), kernels, gpu_required=gpu_required)


def rackserve_driver_reboot(facts: dict[str, Any], version: str, modules: str) -> list[str]:
    """Return why a host must be rebooted for its driver; see `rackserve.preflight`."""
    return preflight.reboot_reasons(gpu.GpuFacts.of(facts), version, modules)


def rackserve_driver_problems(facts: dict[str, Any], version: str, *, fresh: bool = False) -> list[str]:
    """Return why a host's driver does not serve as it should; see `rackserve.preflight`."""
    return preflight.driver_problems(gpu.GpuFacts.of(facts), version, fresh=fresh)


def rackserve_gpus_of_peers(hostvars: dict[str, Any], hosts: list[str], name: str, fact: str) -> dict[str, Any]:
    """Return what rackserve_gpu_facts read, by host, of a host and of those that serve the very same instances."""
    instances = {host: _plain(hostvars[host].get("vllm_instances", [])) for host in hosts}
    read = {host: _plain(hostvars[host].get(fact, {})) for host in hosts if instances[host] == instances.get(name)}
    return {host: facts for host, facts in read.items() if "host" in facts}


def rackserve_instance_files(name: str, folder: str, shared: list[str]) -> list[str]:
    """Return the files that the unit of an instance reads: its own two, and those that all share."""
    return [f"{folder}/{name}.yaml", f"{folder}/{name}.env", *shared]


def rackserve_entry_files(name: str, folder: str) -> list[str]:
    """Return the files that the entry of an instance listens and forwards by."""
    return [
        f"{folder}/vllm-entry@{name}.socket.d/10-instance.conf",
        f"{folder}/vllm-entry@{name}.service.d/10-instance.conf",
        f"{folder}/vllm-entry@.service",
    ]


def rackserve_parts(
    path: str,
    release: str,
    instances: list[dict[str, Any]],
    runtime: dict[str, str],
    wish: dict[str, Any] | None = None,
) -> list[str]:
    """Return the paths of the bundle that a host needs; see `rackserve.preflight.parts_for`."""
    manifest = bundle.read_manifest(Path(path))
    wanted = preflight.DriverRequest(**wish) if wish else None
    return list(preflight.parts_for(manifest, release, instances, **runtime, wish=wanted))


def rackserve_runtime(path: str, vllm_version: str, flavour: str, python: str) -> dict[str, str]:
    """Return the bundle's runtime: id, lock, lock_sha256, wheels."""
    found: dict[str, str] = asdict(
        preflight.find_runtime(bundle.read_manifest(Path(path)), vllm_version, flavour, python)
    )
    return found


def rackserve_snapshots(path: str, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the snapshots that instances need: repo, revision, path in the bundle, and files relative to it."""
    manifest = bundle.read_manifest(Path(path))
    wanted = preflight.wanted_snapshots(instances)
    return [
        {
            "repo": model.repo,
            "revision": model.revision,
            "path": model.path,
            "files": [
                {**entry._asdict(), "path": entry.path.removeprefix(f"{model.path}/")}
                for entry in manifest.under((model.path,))
            ],
        }
        for model in manifest.models
        if (model.repo, model.revision) in wanted
    ]


def rackserve_unknown(names: Iterable[str], roles_path: str) -> list[str]:
    """Return the variables with a role's prefix that no role knows; see `rackserve.preflight.unknown_names`."""
    return preflight.unknown_names(names, Path(roles_path))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        functions = (
            rackserve_adapter_folders,
            rackserve_backends,
            rackserve_bundle_problems,
            rackserve_client_trust_problems,
            rackserve_config,
            rackserve_drained,
            rackserve_driver_mistakes,
            rackserve_driver_problems,
            rackserve_driver_reboot,
            rackserve_driver_refusal,
            rackserve_driver_set,
            rackserve_edge_plan,
            rackserve_engine,
            rackserve_entry_files,
            rackserve_environment,
            rackserve_gpus_of_peers,
            rackserve_instance_files,
            rackserve_instances,
            rackserve_pair_problem,
            rackserve_parts,
            rackserve_placed,
            rackserve_probe_settings,
            rackserve_program,
            rackserve_reason,
            rackserve_refusal,
            rackserve_release_problems,
            rackserve_runtime,
            rackserve_sha256,
            rackserve_shared_address,
            rackserve_snapshots,
            rackserve_start_plan,
            rackserve_targets,
            rackserve_alert_routes,
            rackserve_alert_secrets,
            rackserve_remote_write,
            rackserve_remote_write_files,
            rackserve_rule_files,
            rackserve_scrape_plan,
            rackserve_unsettled_targets,
            rackserve_templates,
            rackserve_trust,
            rackserve_unknown,
            rackserve_words,
        )
        plans = (host_checks, host_facts, status_checks)
        return {
            **{function.__name__: _one_message(function) for function in functions},
            **{f"rackserve_{function.__name__}": _one_message(function) for function in plans},
        }
