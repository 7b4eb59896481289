"""Instances behind the edge: `nginx_backends` of an inventory, and those of the hosts that serve models."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, ValidationError

from rackserve._schema import Converting, label_of, plain, sentences
from rackserve.errors import InputError
from rackserve.vllm import Task, parse_instances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_ANY: Final = ("0.0.0.0", "::", "[::]")  # noqa: S104 - a value to recognise, not to listen on


class Backend(Converting):
    """One instance behind the edge, and the model names that it serves."""

    host: str = Field(description="Name of its host.")
    instance: str = Field(description="Name of the instance.")
    address: str = Field(description="Address of the host.")
    port: int = Field(description="Port of the instance.")
    model: str | None = Field(
        default=None, description="First of `served_names`, for Prometheus, which reads the same list."
    )
    served_names: tuple[str, ...] = Field(description="Names that clients put into `model`, LoRA adapters included.")
    max_model_len: int | None = Field(
        default=None, description="Maximum length of prompt and answer together, in tokens."
    )
    task: Task = Field(default="generate", description="Task of the model, which decides the paths for it.")
    release: str = Field(default="unknown", description="vLLM version of the instance, which decides the paths for it.")
    adapters: bool = Field(default=False, description="Whether the instance has LoRA adapters.")

    @property
    def label(self) -> str:
        """The instance's name in the whole fleet, as `rackserve drain` takes it."""
        return f"{self.host}:{self.instance}"


def backends_of(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> list[dict[str, Any]]:
    """Return every instance of a group of hosts, with all names that clients may use, those of LoRA adapters too.

    Args:
        hostvars: variables by host, of which `ansible_host`, `vllm_instances`, `vllm_listen_address` and
            `stack_runtime` are read.
        hosts: those of the group.
    """
    return [
        {
            "host": host,
            "instance": instance.name,
            "address": _address(own),
            "port": instance.port,
            "model": instance.served_names[0],
            "served_names": [*instance.served_names, *(adapter.name for adapter in instance.lora)],
            "task": instance.task,
            "adapters": bool(instance.lora),
            "max_model_len": instance.max_model_len,
            "release": str((own.get("stack_runtime") or {}).get("vllm", "unknown")),
        }
        for host, own in ((host, hostvars[host]) for host in hosts)
        for instance in parse_instances(plain(own.get("vllm_instances") or []))
    ]


def named_backends(
    backends: Sequence[dict[str, Any]], names: Mapping[str, Sequence[str]], without: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return backends with the names that an edge routes to them while a rollout goes on, or when hosts have retired.

    Args:
        backends: as in `nginx_backends`.
        names: names by label, as `names_before` of a rollout's plan; an instance that it does not have gets no
            requests. Empty: the backends as they are.
        without: hosts or labels that get none in any case.
    """
    left = [one for one in backends if not {one.get("host"), f"{one.get('host')}:{one.get('instance')}"} & {*without}]
    if not names:
        return left
    routed = ({**one, "served_names": names.get(f"{one['host']}:{one['instance']}", [])} for one in left)
    return [one for one in routed if one["served_names"]]


def new_places(backends: Sequence[dict[str, Any]], addresses: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return label, address and port of the backends that an edge does not know, or knows at another address.

    Args:
        backends: as in `nginx_backends`; one that names no place is left to the check of that input.
        addresses: address and port by label, as edge_rotation reads them.
    """
    places = [
        {"label": f"{one.get('host')}:{one.get('instance')}", "address": one["address"], "port": one["port"]}
        for one in backends
        if {"address", "port"} <= one.keys()
    ]
    return [one for one in places if addresses.get(one["label"]) != f"{one['address']}:{one['port']}"]


def _address(own: Mapping[str, Any]) -> str:
    """Return the address that clients of an instance connect to: its listen address, unless that is a wildcard."""
    listens_on = str(own.get("vllm_listen_address") or _ANY[0])
    return str(own["ansible_host"]) if listens_on in _ANY else listens_on


def parse_backends(raw: Sequence[dict[str, Any]]) -> list[Backend]:
    """Check `nginx_backends`.

    Raises:
        InputError: the list is empty, an item has a wrong key or value, or two share a name, or an address and port.
    """
    parsed = [_backend(item, position) for position, item in enumerate(raw)]
    _refuse_shared_addresses(parsed)
    if twice := sorted(label for label, count in Counter(backend.label for backend in parsed).items() if count > 1):
        raise InputError(f"nginx_backends has {', '.join(twice)} twice; give each instance of a host its own name")
    return parsed


def _backend(item: dict[str, Any], position: int) -> Backend:
    try:
        return Backend.model_validate(item)
    except ValidationError as wrong:
        label = label_of(item, "instance", position)
        raise InputError(f"nginx_backends: {label}: {'; '.join(sentences(wrong, Backend))}") from None


def _refuse_shared_addresses(backends: Sequence[Backend]) -> None:
    if not backends:
        raise InputError(
            "nginx_backends is empty; name at least one instance, or take the host out of the group of edges"
        )
    seen: dict[tuple[str, int], str] = {}
    for backend in backends:
        place = (backend.address, backend.port)
        if place in seen:
            raise InputError(
                f"two of nginx_backends have one address and port: {seen[place]} and {backend.label} at "
                f"{backend.address}:{backend.port}"
            )
        seen[place] = backend.label
