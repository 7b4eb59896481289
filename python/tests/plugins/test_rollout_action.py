"""The action that plans a rollout: plain data in and out, one message where requests would be lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.plugins.action import ActionBase

from rackserve.ansible.action import rollout_plan

INSTANCE = {
    "name": "a",
    "live": "1",
    "wanted": "2",
    "live_names": ["m"],
    "wanted_names": ["m"],
    "serves": True,
    "edges": {"edge1": {"state": "in"}},
}


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_, **__: {})


def run(*hosts: str, **asked: Any) -> dict[str, Any]:
    action = rollout_plan.ActionModule.__new__(rollout_plan.ActionModule)
    given = [{"name": host, "instances": [INSTANCE]} for host in hosts]
    action._task = SimpleNamespace(args={"run": "r1", "hosts": given, "edges": ["edge1"], **asked})
    return action.run()


def test_a_plan_is_plain_data_and_a_record() -> None:
    found = run("gpu1", "gpu2", "gpu3")
    assert "failed" not in found
    assert found["changed"] is False
    assert (found["order"], found["serial"]) == (["gpu1", "gpu2", "gpu3"], [1, 1, 1])
    assert found["batches"] == [["gpu1"], ["gpu2"], ["gpu3"]]
    record = found["rackserve_record"]
    assert record["kind"] == "plan"
    assert record["rows"][0]["how"] == "drained"
    assert yaml.safe_load(yaml.safe_dump(found)) == found


def test_a_plan_of_another_kind_is_another_record() -> None:
    found = run("gpu1", "gpu2", kind="driver_plan")
    assert (found["rackserve_record"]["kind"], found["order"]) == ("driver_plan", ["gpu1", "gpu2"])


def test_all_problems_are_one_message() -> None:
    found = run("gpu1", unreached_edges=["edge2"])
    assert found["failed"]
    assert found["msg"].startswith("nothing was changed, because requests would be lost: edge2 could not be reached")
    assert "'m' would have no instance in rotation while gpu1:a is changed" in found["msg"]
    assert found["msg"].endswith("rackserve rollout --consent REASON, or stack_rollout_consent: REASON")
    assert found["rackserve_record"]["problems"][1]["names"] == ["m"]


def test_with_a_consent_it_runs() -> None:
    found = run("gpu1", consent="window of 3 May")
    assert "failed" not in found
    assert found["consent"] == "window of 3 May"


def test_wrong_input_is_one_message() -> None:
    found = run("gpu1", steps=[0], hold_s=60)
    assert found["failed"]
    assert found["msg"].startswith("nothing was changed: stack_rollout_steps: 0 of [0]")
