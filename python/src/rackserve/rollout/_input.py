"""What a rollout's plan is made of: the state of every vLLM host, of its instances, and of their rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from rackserve._schema import Converting, sentences
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class AtEdge(Converting):
    """An instance at one edge."""

    state: Literal["in", "weight", "operator", "rollout", "absent"] = Field(
        description="In rotation, in it with a share only, drained by an operator or a rollout, or not in its table."
    )
    run: str = Field(default="", description="Rollout that drained it, or gave it a share.")
    names: tuple[str, ...] | None = Field(
        default=None, description="Names that the edge routes to it now; unset means those of its live generation."
    )
    reaches: bool = Field(
        default=True, description="Whether the edge has the address and port at which the instance listens now."
    )


class InstanceState(Converting):
    """An instance of a host: the generation that is live, and the one that the inventory wants."""

    name: str
    live: str | None = Field(default=None, description="Digest of the live generation.")
    wanted: str | None = Field(default=None, description="Digest of the wanted generation; unset: to be removed.")
    live_names: tuple[str, ...] = Field(default=(), description="Names that the live generation serves.")
    wanted_names: tuple[str, ...] = Field(default=(), description="Names that the inventory wants.")
    serves: bool | None = Field(
        default=None, description="Whether its unit is active and a token came; unset: the host was not asked."
    )
    way: Literal["beside", "drain"] = Field(
        default="drain", description="Whether the new engine fits beside the old one, or the instance must be drained."
    )
    entry: Literal["same", "restarts", "moves"] = Field(
        default="same", description="Whether its entry stays, is restarted, or gets another address or port."
    )
    changes: tuple[str, ...] = Field(default=(), description="What changes, in words: `max_num_seqs 8 -> 16`.")
    start_s: float | None = Field(default=None, ge=0, description="Seconds of its last start, where one is known.")
    edges: dict[str, AtEdge] = Field(default_factory=dict, description="Its state by edge; it is absent at others.")


class HostState(Converting):
    """A vLLM host."""

    name: str
    selected: bool = Field(default=True, description="Whether it is in this run's limit.")
    reachable: bool = Field(default=True, description="Whether it was reached.")
    instances: tuple[InstanceState, ...] = ()


class RolloutInput(Converting):
    """All that a plan is made of. Times are in seconds; an unset one is not known."""

    run: str = Field(default="", description="ID of this rollout.")
    hosts: tuple[HostState, ...] = Field(description="Every vLLM host, in the inventory's order.")
    edges: tuple[str, ...] = Field(default=(), description="Edges that were reached.")
    unreached_edges: tuple[str, ...] = Field(default=(), description="Edges that were not.")
    steps: Any = Field(default=(1, "25%"), description="Hosts of a batch, as `serial` of a play takes it.")
    consent: str = Field(default="", description="Reason why requests may be lost; empty: they may not.")
    pause_after: str = Field(default="", description="Host or number of the batch after which the run pauses.")
    hold_s: float = Field(default=0, ge=0, description="How long an edge holds requests for a model without instance.")
    drain_s: float | None = Field(default=None, ge=0, description="What the streams of a drained host take to end.")
    gates_s: float | None = Field(default=None, ge=0, description="What gates take before a host gets requests.")
    soak_s: float | None = Field(default=None, ge=0, description="How long a host serves a share before all of it.")


def parse_input(raw: Mapping[str, Any]) -> RolloutInput:
    """Read a plan's input.

    Raises:
        InputError: naming every key or value that is wrong, and every name that is there twice.
    """
    try:
        found = RolloutInput.model_validate(raw)
    except ValidationError as wrong:
        raise InputError("rollout: " + "; ".join(sentences(wrong, RolloutInput))) from None
    if problems := list(_repeated(found)):
        raise InputError("rollout: " + "; ".join(problems))
    return found


def _repeated(found: RolloutInput) -> Iterator[str]:
    hosts = [host.name for host in found.hosts]
    for name in sorted({name for name in hosts if hosts.count(name) > 1}):
        yield f"the host {name} is there twice; name it once"
    for host in found.hosts:
        names = [instance.name for instance in host.instances]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"the instance {host.name}:{name} is there twice; name it once"
