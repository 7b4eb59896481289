"""The capacity of every instance, computed from the inventory, the bundle's model and the host's GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rackserve import bundle, capacity, preflight
from rackserve.errors import RackserveError
from rackserve.report._types import CapacityFacts
from rackserve.vllm import parse_instances

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rackserve.report._site import SiteCollector
    from rackserve.vllm import Instance


def describe_capacity(hosts: Iterable[str], seen: SiteCollector) -> tuple[CapacityFacts, ...]:
    """Return one item for all equal instances, in the order of the hosts."""
    found: dict[str, CapacityFacts] = {}
    for host in hosts:
        for instance in parse_instances(seen.serves(host).get("instances", [])):
            where = f"{host}:{instance.name}"
            try:
                one = _of(instance, host, seen)
            except RackserveError as wrong:
                one = CapacityFacts((), None, str(wrong))
            alike = f"{instance.name} {one.problem} {capacity.svg(one.plan) if one.plan else ''} {one.plan}"
            earlier = found.get(alike, one).where
            found[alike] = CapacityFacts((*earlier, where), one.plan, one.problem)
    return tuple(found.values())


def _of(instance: Instance, host: str, seen: SiteCollector) -> CapacityFacts:
    serves, folder = seen.serves(host), Path(str(seen.facts(host).get("bundle") or ""))
    models = {(model.repo, model.revision): model for model in bundle.read_manifest(folder).models}
    model = models.get((instance.model.repo, instance.model.revision))
    if model is None:
        return CapacityFacts((), None, "its model is not in the bundle of this controller")
    runtime = serves.get("runtime") or {}
    request = preflight.capacity_request(
        instance,
        folder / model.path,
        vllm=str(runtime.get("vllm", "")),
        flavour=str(runtime.get("flavour", "")),
        cpu_kvcache_gib=int(serves.get("cpu_kvcache_gib", 1)),
        gpus=seen.gpus.get(host),
    )
    if request is None:
        return CapacityFacts((), None, "the memory of its GPU is not known")
    return CapacityFacts((), capacity.plan_of(request))
