"""Which hosts may leave a site, and what the edges then know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackserve.rollout import Retirement, inventory_lines, retire_problems, retired_record, retirement

if TYPE_CHECKING:
    from pathlib import Path

GROUPS = {"vllm_hosts": ["gpu1", "gpu2", "gpu3"], "edge_hosts": ["edge1"], "monitoring_hosts": ["gpu2"]}


@pytest.mark.parametrize(
    ("retired", "limit", "said"),
    [
        ([], "", "stack_retire_hosts is []; set it to a list of hosts"),
        ("gpu3", "", "stack_retire_hosts is 'gpu3'; set it to a list of hosts, such as [gpu3]"),
        (["gpu9"], "", "'gpu9' is no vLLM host of the inventory; set stack_retire_hosts to some of gpu1, gpu2, gpu3"),
        (["edge1"], "", "'edge1' is no vLLM host of the inventory"),
        (["gpu2"], "", "gpu2 is in monitoring_hosts too; take it out of that group"),
        (["gpu3"], "gpu3", "--limit gpu3 may leave out an edge or Prometheus"),
    ],
)
def test_hosts_that_cannot_retire(retired: Any, limit: str, said: str) -> None:
    assert retire_problems(retired, GROUPS, limit)[0].startswith(said)


def test_one_host_has_to_stay() -> None:
    assert retire_problems(["gpu1"], {"vllm_hosts": ["gpu1"]}) == [
        "gpu1 is every vLLM host, and an edge needs one; take the edges out of service instead"
    ]


def test_any_other_host_may_retire() -> None:
    assert retire_problems(["gpu1", "gpu3"], GROUPS) == []


def backend(host: str, **changed: Any) -> dict[str, Any]:
    return {"host": host, "instance": "a", "address": f"{host}.lan", "port": 8000, **changed}


def serving(*names: str, active: bool = True) -> dict[str, Any]:
    found = {"instances": {"a": {"active": active, "generation": {"served_names": list(names)}}}}
    return {"__rollout_found": found}


def edge(names: dict[str, list[str]], **changed: Any) -> dict[str, Any]:
    weights = dict.fromkeys(names, 100)
    addresses = {label: f"{label.partition(':')[0]}.lan:8000" for label in names}
    return {"names": names, "weights": weights, "addresses": addresses, **changed}


BOTH = {"gpu1:a": ["m"], "gpu2:a": ["m"]}


def retire(
    *hosts: str, state: dict[str, Any] | None = None, of: dict[str, Any] | None = None, **asked: Any
) -> Retirement:
    hostvars = {
        "gpu1": serving("m"),
        "gpu2": serving("m"),
        "edge1": {"__rollout_backends": [backend("gpu1"), backend("gpu2"), backend("new")]},
        **(of or {}),
    }
    edges = {"edge1": state or edge(BOTH)} if state != {} else {}
    return retirement(hosts or ("gpu1",), edges, hostvars, run="r1", **asked)


def test_a_host_whose_names_others_serve_retires_and_the_edges_learn_no_more() -> None:
    found = retire()
    assert (found.refusal, found.losses, found.held, found.run) == ("", [], [], "r1")
    assert found.names == {"edge1": {"gpu2:a": ["m"]}}, "a host that is new in the inventory is not let in here"


LAST = "'m' would have no instance in rotation at edge1 without gpu1; bring another one into rotation first"


@pytest.mark.parametrize(
    ("state", "of"),
    [
        (edge(BOTH, weights={"gpu1:a": 100, "gpu2:a": 0}), {}),
        (edge(BOTH), {"gpu2": serving("m", active=False)}),
        (edge(BOTH), {"gpu2": serving("n")}),
        (edge(BOTH), {"gpu2": {"__rollout_found": {"unreachable": True, "msg": "no route"}}}),
        (edge({"gpu1:a": ["m"], "gpu2:a": ["n"]}), {"gpu2": serving("m", "n")}),
        (edge(BOTH, weights={"gpu1:a": 0, "gpu2:a": 0}), {}),
    ],
    ids=["drained", "down", "serves another name", "not reached", "edge routes another name", "both drained"],
)
def test_the_last_instance_of_a_name_needs_consent(state: dict[str, Any], of: dict[str, Any]) -> None:
    refused = retire(state=state, of=of)
    assert refused.refusal.startswith(f"nothing was changed, because requests would be lost: {LAST}")
    assert refused.refusal.endswith("rackserve retire --consent REASON, or stack_rollout_consent: REASON")
    agreed = retire(state=state, of=of, consent=" sold ")
    assert (agreed.refusal, agreed.consent, agreed.losses) == ("", "sold", refused.losses)


def test_a_share_is_in_rotation() -> None:
    assert not retire(state=edge(BOTH, weights={"gpu1:a": 100, "gpu2:a": 5})).losses


def test_an_edge_that_was_not_reached_needs_consent() -> None:
    assert "edge2 could not be reached and would go on sending requests to gpu1" in retire(unreached=["edge2"]).refusal


def test_without_an_edge_only_a_host_that_answers_loses_requests() -> None:
    assert "no edge of the site is configured, so requests to gpu1 fail" in retire(state={}).refusal
    assert retire(state={}, silent=["gpu1"]).refusal == ""


def test_a_dead_host_retires_unless_it_is_to_be_wiped() -> None:
    dead: dict[str, Any] = {"gpu1": {}}
    assert retire(of=dead, silent=["gpu1"]).refusal == ""
    refused = retire(of=dead, silent=["gpu1"], wipe=True, consent="x").refusal
    assert refused == "nothing was changed: gpu1 does not answer, so it cannot be wiped; run it without --wipe"


def test_a_host_that_answers_and_cannot_be_read_is_refused() -> None:
    unread = {"gpu1": {"__rollout_found": {"failed": True, "msg": "no python"}}}
    said = "nothing was changed: what serves on gpu1 cannot be read: no python; mend that first"
    assert retire(of=unread, consent="x").refusal == said


@pytest.mark.parametrize(
    ("backends", "wanted"),
    [([backend("gpu1"), backend("gpu2", port=8001)], "gpu2.lan:8001"), ([backend("gpu1")], "nowhere")],
)
def test_an_inventory_that_was_not_applied_is_refused(backends: list[dict[str, Any]], wanted: str) -> None:
    refused = retire(of={"edge1": {"__rollout_backends": backends}}, consent="x").refusal
    assert refused == (
        f"nothing was changed: edge1 has gpu2:a at gpu2.lan:8000, and the inventory {wanted}; run site.yml first, "
        "or take that change back"
    )


def test_an_edge_keeps_an_instance() -> None:
    refused = retire(state=edge({"gpu1:a": ["m"]}), consent="x").refusal
    assert refused.startswith("nothing was changed: edge1 would have no instance at all")


def test_the_inventory_is_searched_for_whole_names(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  gpu3: {}\n  gpu33: {}\n  my-gpu3: {}\n  # gpu3\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("stack_addresses: {gpu3: 10.0.0.3}\n")
    (tmp_path / "host_vars/gpu3").mkdir(parents=True)
    (tmp_path / "host_vars/gpu3/vllm.yml").write_text("x: gpu3\n")
    (tmp_path / "host_vars/gpu4.yml").write_text("x: 1\n")
    found = ["group_vars/all.yml:1", "host_vars/gpu3/vllm.yml (the file)", "hosts.yml:2"]
    assert inventory_lines(tmp_path, "gpu3") == inventory_lines(tmp_path / "hosts.yml", "gpu3") == found
    assert inventory_lines(tmp_path, "gpu5") == []


WIPED = {"removed": ["/etc/vllm"], "bytes": 2e9, "left": [{"path": "/hf/hub", "why": "it is on /hf"}], "changed": True}


def test_the_operator_is_told_what_only_he_can_do(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("gpu3:\n")
    found = retired_record("gpu3", tmp_path, ["a"], told=["edge1", "mon1"], wiped=WIPED)
    text = "\n".join(found["text"])
    assert text.startswith("gpu3 retired; forgotten by edge1, mon1\n")
    assert "gpu3: instances removed: a" in text
    assert "1 folders and files removed, 2.0 GB; that is no erasure" in text
    assert "/hf/hub was left, because it is on /hf" in text
    assert text.endswith(
        "now remove gpu3 from the inventory (hosts.yml:1): while it is there, the next site.yml installs and starts it "
        "again and has the edges send requests to it"
    )
    assert found["wiped"] == {key: WIPED[key] for key in ("removed", "bytes", "left")}


def test_a_dead_host_is_reported_as_such(tmp_path: Path) -> None:
    found = retired_record("gpu3", tmp_path, [], silent=True)
    assert found["text"][0] == "gpu3 retired; forgotten by nobody, since no edge and no Prometheus runs"
    assert found["text"][1].startswith("gpu3 did not answer, so nothing was changed on it: if it comes back")
    assert "no line names it alone, so look for a range" in found["text"][-1]
