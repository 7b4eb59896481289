"""Routing: the instances of a model name, and the settings of the edge."""

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


def table_of(*backends: dict[str, Any], affinity: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(edge.plan_of(backends, CLIENTS, (), affinity)["table"])
    return found


def groups(*backends: dict[str, Any]) -> dict[tuple[str, ...], list[str]]:
    return {tuple(group["models"]): group["servers"] for group in table_of(*backends)["groups"].values()}


@pytest.mark.parametrize(
    ("listens_on", "address"),
    [(None, "10.0.0.1"), ("0.0.0.0", "10.0.0.1"), ("::", "10.0.0.1"), ("10.9.9.9", "10.9.9.9")],  # noqa: S104
)
def test_an_instance_is_reached_where_it_listens(listens_on: str | None, address: str) -> None:
    instance = {"name": "i", "model": {"repo": "o/m", "revision": "0" * 40}, "max_model_len": 8, "max_num_seqs": 1}
    own = {"ansible_host": "10.0.0.1", "vllm_instances": [instance], "vllm_listen_address": listens_on}
    assert [backend["address"] for backend in edge.backends_of({"g1": own}, ["g1"])] == [address]


def test_an_edge_leaves_out_hosts_and_instances() -> None:
    backends = [backend("g1", "m"), backend("g2", "m"), {**backend("g2", "m"), "instance": "j"}]
    labels = [f"{one['host']}:{one['instance']}" for one in edge.named_backends(backends, {}, ["g1", "g2:j"])]
    assert labels == ["g2:i"]
    assert edge.named_backends(backends, {}) == backends
    (named,) = edge.named_backends(backends, {"g1:i": ["m"], "g2:i": ["n"]}, ["g1"])
    assert (named["host"], named["served_names"]) == ("g2", ["n"])


def test_only_instances_at_places_that_an_edge_does_not_know_are_new() -> None:
    backends = [backend("g1", "m"), backend("g2", "m"), backend("g3", "m"), {"host": "g4"}]
    known = {"g1:i": "10.0.0.1:8000", "g2:i": "10.0.0.9:8000"}
    found = edge.new_places(backends, known)
    assert found == [
        {"label": "g2:i", "address": "10.0.0.2", "port": 8000},
        {"label": "g3:i", "address": "10.0.0.3", "port": 8000},
    ]


def test_instances_of_one_model_are_one_group() -> None:
    assert groups(backend("g1", "m"), backend("g2", "m")) == {("m",): ["g1:i", "g2:i"]}


def test_names_that_lead_to_the_same_instances_share_a_group() -> None:
    assert groups(backend("g1", "m", "alias"), backend("g2", "m", "alias")) == {("alias", "m"): ["g1:i", "g2:i"]}


def test_an_adapter_on_one_host_leads_to_that_host_only() -> None:
    found = groups(backend("g1", "m", "adapter"), backend("g2", "m"), backend("g3", "other"))
    assert found == {("m",): ["g1:i", "g2:i"], ("adapter",): ["g1:i"], ("other",): ["g3:i"]}


def test_a_model_that_any_instance_with_adapters_serves_is_marked() -> None:
    plan = edge.plan_of([backend("g1", "m", "x", adapters=True), backend("g2", "m"), backend("g3", "n")], CLIENTS)
    models = json.loads(plan["table"])["models"]
    assert {name: model.get("adapters", False) for name, model in models.items()} == {"m": True, "x": True, "n": False}


def test_the_digest_changes_with_whatever_the_edge_does_otherwise() -> None:
    both = [backend("g1", "m"), backend("g2", "m")]
    slower = [{**CLIENTS[0], "requests_per_minute": 60}]
    digests = {edge.plan_of(*plan)["digest"] for plan in ((both, CLIENTS), (both[:1], CLIENTS), (both, slower))}
    assert len(digests) == 3
    assert edge.plan_of(both, CLIENTS)["digest"] == edge.plan_of(both, CLIENTS)["digest"]
    assert edge.plan_of(both, CLIENTS, hold={"seconds": 5})["digest"] not in digests


def test_every_instance_is_an_upstream_of_its_own_by_its_address() -> None:
    servers = table_of(backend("g1", "m"), backend("g2", "m"))["servers"]
    moved = table_of(backend("g1", "m", port=8001), backend("g2", "m"))["servers"]
    assert servers.keys() == {"g1:i", "g2:i"}
    assert (servers["g1:i"]["address"], servers["g2:i"]) == ("10.0.0.1:8000", moved["g2:i"])
    assert len({servers["g1:i"]["upstream"], servers["g2:i"]["upstream"], moved["g1:i"]["upstream"]}) == 3


def test_the_table_holds_hashes_limits_and_the_shortest_context() -> None:
    two = [backend("g1", "m", max_model_len=64), backend("g2", "m", max_model_len=32)]
    table = json.loads(edge.plan_of(two, CLIENTS)["table"])
    assert table["keys"] == {"1" * 64: {"client": "a", "expires": 1801440000, "revoked": False}}
    assert table["clients"]["a"]["seconds_per_request"] == 0.5
    assert table["models"]["m"]["max_model_len"] == 32


OPTIONAL = ("/v1/responses", "/v1/messages", "/v1/messages/count_tokens")


def paths(*backends: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, list[str]]:
    plan = edge.plan_of(backends, CLIENTS, optional)
    found = {name: model["paths"] for name, model in json.loads(plan["table"])["models"].items()}
    assert plan["paths"] == [path for path in plan["paths"] if any(path in of_model for of_model in found.values())]
    return found


def test_a_path_follows_from_the_task_and_an_optional_one_from_the_operator() -> None:
    both = (backend("g1", "m"), backend("g2", "v", task="embed"), backend("g3", "r", task="score"))
    chat = ["/v1/chat/completions", "/v1/completions"]
    assert paths(*both) == {
        "m": chat,
        "v": ["/v1/embeddings", "/v1/score", "/v1/rerank"],
        "r": ["/v1/score", "/v1/rerank"],
    }
    assert paths(*both, optional=OPTIONAL)["m"] == [*chat, *OPTIONAL]


def test_a_model_has_the_paths_that_every_release_behind_it_has() -> None:
    found = paths(backend("g1", "m", release="0.32.0"), backend("g2", "m", release="0.10.2"), optional=OPTIONAL)
    assert found["m"][2:] == ["/v1/responses"]
    assert paths(backend("g1", "v", task="embed", release="0.6.4.post1"))["v"] == ["/v1/embeddings"]


AFFINITY = {"by": "prefix", "prefix": "1024", "concurrent": "16"}


def test_affinity_is_for_groups_that_generate_and_have_a_choice() -> None:
    all_kinds = [
        *(backend(host, "m") for host in ("g1", "g2")),
        *(backend(host, "v", task="embed") for host in ("g3", "g4")),
        backend("g5", "alone"),
    ]
    table = table_of(*all_kinds, affinity=AFFINITY)
    found = {group["models"][0]: group["affine"] for group in table["groups"].values()}
    assert found == {"alone": False, "m": True, "v": False}
    assert table["affinity"] == {"by": "prefix", "prefix": 1024, "concurrent": 16}


def test_without_affinity_the_table_has_none() -> None:
    table = table_of(backend("g1", "m"), backend("g2", "m"))
    assert "affinity" not in table
    assert [group["affine"] for group in table["groups"].values()] == [False]


@pytest.mark.parametrize(
    ("hold", "reason"),
    [
        ({"seconds": 601}, "nginx_hold_timeout is 601; set it to a number from 0 .off. to 600"),
        ({"seconds": "soon"}, "nginx_hold_timeout is 'soon'"),
        ({"requests": -1}, "nginx_hold_requests is -1; set it to a number from 0 .off. to 4096"),
    ],
)
def test_a_hold_that_cannot_be_is_refused(hold: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        edge.plan_of([backend("g1", "m")], CLIENTS, hold=hold)


def test_a_hold_of_nothing_is_off_and_text_of_a_template_is_a_number() -> None:
    plan = edge.plan_of([backend("g1", "m")], CLIENTS, hold={"seconds": 0, "requests": "7"})
    assert json.loads(plan["table"])["hold"] == {"seconds": 0, "requests": 7}
    assert table_of(backend("g1", "m"))["hold"] == {"seconds": 60, "requests": 512}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"by": "cookie"}, "nginx_affinity is 'cookie'; set one of none, key, prefix"),
        ({"prefix": 0}, "nginx_affinity_prefix is 0"),
        ({"concurrent": 0}, "nginx_affinity_concurrent is 0"),
    ],
)
def test_an_affinity_that_cannot_be_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        edge.plan_of([backend("g1", "m")], CLIENTS, (), {**AFFINITY, **change})


@pytest.mark.parametrize(
    ("backends", "optional", "reason"),
    [
        (
            [backend("g1", "m"), backend("g2", "m", task="embed")],
            (),
            "'m' is served by g1:i to generate, g2:i to embed",
        ),
        ([backend("g1", "m", task="sing")], (), "instance number 1: task: Input should be .* .found 'sing'."),
        ([backend("g1", "m")], ("/metrics",), "/metrics cannot be offered; choose from /v1/responses"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    backends: list[dict[str, Any]], optional: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        edge.plan_of(backends, CLIENTS, optional)


@pytest.mark.parametrize(
    ("backends", "reason"),
    [
        ([], "nginx_backends is empty"),
        ([backend("g1", "m"), {**backend("g1", "m"), "instance": "j"}], "one address and port: g1:i and g1:j"),
        ([backend("g1", "m"), backend("g1", "m", port=1)], "nginx_backends has g1:i twice; give each instance"),
        ([{"host": "g1"}], "nginx_backends: instance number 1: 'instance' is missing; set it"),
        ([{**backend("g1", "m"), "adress": "10.0.0.1"}], "unknown key 'adress' .found '10.0.0.1'., is it 'address'.;"),
    ],
)
def test_a_wrong_backend_is_refused(backends: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        edge.plan_of(backends, CLIENTS)


def test_login_users_of_an_edge_are_kept_from_every_instance() -> None:
    backends = [backend("g1", "m"), backend("g2", "m", port=8001), {**backend("g3", "n"), "address": "gpu3.example"}]
    backends.append({**backend("g4", "n"), "address": "2001:db8::4"})
    assert edge.plan_of(backends, CLIENTS)["engine_matches"] == [
        "ip daddr 10.0.0.1 tcp dport 8000",
        "ip daddr 10.0.0.2 tcp dport 8001",
        "ip6 daddr 2001:db8::4 tcp dport 8000",
        "tcp dport 8000",
    ]
