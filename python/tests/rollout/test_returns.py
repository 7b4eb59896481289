"""What a return and a rollback make live again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from rackserve.rollout import generations_before, previous_plan
from rackserve.vllm._plan import InstancePlan
from testing.rollout_world import generation


def found(*, live: str = "one", previous: str = "zero", name: str = "a") -> dict[str, Any]:
    there = {
        "live": live,
        "previous": previous,
        "generation": generation(live, name) if live else {},
        "before": generation(previous, name) if previous else {},
        "listens": "10.0.0.5:8000",
    }
    return {"instances": {name: there}}


def plan(digest: str) -> dict[str, Any]:
    return {"instances": [{"name": "a", "digest": digest, "url": "http://10.0.0.5:8000"}]}


@pytest.mark.parametrize("previous", ["zero", ""])
def test_a_return_goes_to_what_was_live_and_restores_the_one_before_it(previous: str) -> None:
    (back,) = generations_before(found(previous=previous), ["a"], plan("two"))
    assert (back["digest"], back["previous"], back["url"]) == ("one", previous, "http://10.0.0.5:8000")


def test_a_return_from_what_a_dead_run_made_live_goes_to_the_one_before_it_and_no_further() -> None:
    (back,) = generations_before(found(live="two", previous="one"), ["a"], plan("two"))
    assert (back["digest"], back["previous"]) == ("one", "")


def test_a_new_instance_has_nothing_to_return_to() -> None:
    assert generations_before(found(live="", previous=""), ["a", "b"], plan("two")) == []


@pytest.mark.parametrize(
    ("only_from", "returns", "digest"),
    [
        ({}, True, "zero"),
        ({}, False, "one"),
        ({"gpu1:a": "one"}, True, "zero"),
        ({"gpu1:a": "another"}, True, "one"),
        ({"gpu2:a": "one"}, True, "one"),
    ],
)
def test_a_rollback_takes_the_generation_before_of_what_it_names(
    only_from: dict[str, str],
    returns: bool,  # noqa: FBT001
    digest: str,
) -> None:
    (one,) = previous_plan(found(), "gpu1", only_from, returns)["instances"]
    assert (one["digest"], one["url"]) == (digest, "http://10.0.0.5:8000")


def test_a_rollback_plans_an_instance_as_the_inventory_does() -> None:
    """The same tasks start both; what only staging needs is not kept on a host."""
    (one,) = previous_plan(found(), "gpu1", {})["instances"]
    planned = {field.name for field in fields(InstancePlan)}
    staged = {
        "generation",
        "port",
        "config",
        "cli_args",
        "runtime",
        "probe",
        "identity",
        "engine",
        "after",
        "restart_sec",
    }
    assert planned - staged <= set(one)
    assert (one["listener"], one["timer"]) == ("vllm-proxy@a.socket", "vllm-probe@a.timer")


def test_a_rollback_without_a_generation_before_changes_nothing() -> None:
    (one,) = previous_plan(found(previous=""), "gpu1", {})["instances"]
    assert one["digest"] == "one"
