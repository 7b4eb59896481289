"""Routing: which instances a model's name leads to, and what the edge is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rackserve import edge
from rackserve.errors import InputError

CLIENTS = [{"name": "a", "keys": [{"sha256": "1" * 64, "expires": "2027-01-31"}], "requests_per_minute": 120}]


def backend(host: str, *names: str, port: int = 8000, **more: Any) -> dict[str, Any]:
    address = f"10.0.0.{host[-1]}"
    return {"host": host, "instance": "i", "address": address, "port": port, "served_names": list(names), **more}


def groups(*backends: dict[str, Any], drained: tuple[str, ...] = ()) -> dict[tuple[str, ...], list[str]]:
    plan = edge.plan_of(backends, CLIENTS, drained)
    return {tuple(g["models"]): [s["label"] for s in g["servers"] if not s["down"]] for g in plan["groups"]}


def test_instances_of_one_model_are_one_group() -> None:
    assert groups(backend("g1", "m"), backend("g2", "m")) == {("m",): ["g1:i", "g2:i"]}


def test_names_that_lead_to_the_same_instances_share_a_group() -> None:
    assert groups(backend("g1", "m", "alias"), backend("g2", "m", "alias")) == {("alias", "m"): ["g1:i", "g2:i"]}


def test_an_adapter_on_one_host_leads_to_that_host_only() -> None:
    found = groups(backend("g1", "m", "adapter"), backend("g2", "m"), backend("g3", "other"))
    assert found == {("m",): ["g1:i", "g2:i"], ("adapter",): ["g1:i"], ("other",): ["g3:i"]}


def test_a_drained_instance_gets_nothing_new_and_keeps_its_group() -> None:
    both = (backend("g1", "m"), backend("g2", "m"))
    assert groups(*both, drained=("g1:i",)) == {("m",): ["g2:i"]}
    names = [edge.plan_of(both, CLIENTS, drained)["groups"][0]["name"] for drained in ((), ("g1:i",))]
    assert names[0] == names[1]


def test_the_digest_changes_with_whatever_the_edge_does_otherwise() -> None:
    both = [backend("g1", "m"), backend("g2", "m")]
    slower = [{**CLIENTS[0], "requests_per_minute": 60}]
    plans = [(both, CLIENTS, ()), (both, CLIENTS, ("g1:i",)), (both[:1], CLIENTS, ()), (both, slower, ())]
    assert len({edge.plan_of(*plan)["digest"] for plan in plans}) == 4
    assert edge.plan_of(*plans[0])["digest"] == edge.plan_of(*plans[0])["digest"]


def test_the_table_holds_hashes_limits_and_the_shortest_context() -> None:
    two = [backend("g1", "m", max_model_len=64), backend("g2", "m", max_model_len=32)]
    table = json.loads(edge.plan_of(two, CLIENTS)["table"])
    assert table["keys"] == {"1" * 64: {"client": "a", "expires": 1801440000, "revoked": False}}
    assert table["clients"]["a"]["seconds_per_request"] == 0.5
    assert table["models"]["m"]["max_model_len"] == 32


@pytest.mark.parametrize(
    ("backends", "reason"),
    [
        ([], "nginx_backends is empty"),
        ([backend("g1", "m"), {**backend("g1", "m"), "instance": "j"}], "one address and port: g1:i and g1:j"),
        ([{"host": "g1"}], "has no 'instance'"),
    ],
)
def test_a_wrong_backend_is_refused(backends: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        edge.plan_of(backends, CLIENTS)
