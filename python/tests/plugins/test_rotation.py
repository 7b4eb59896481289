"""Who is in rotation at an edge after a change, and the upstreams that follow from it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rackserve.ansible.module_utils.rackserve_rotation import (
    RotationError,
    digest_of,
    dump_marks,
    labels_of,
    marks_after,
    names_of,
    parse_marks,
    upstreams_of,
    weights_of,
)

LABELS = {"gpu1:a": ["small"], "gpu1:b": ["large"], "gpu2:a": ["small", "large"]}
TABLE: dict[str, Any] = {
    "groups": {
        "of_small": {"models": ["small"], "servers": ["gpu1:a", "gpu2:a"], "affine": True},
        "of_large": {"models": ["large"], "servers": ["gpu1:b", "gpu2:a"], "affine": False},
    },
    "servers": {
        label: {"address": f"10.0.0.{number}:8000", "upstream": f"server_{number}"}
        for number, label in enumerate(LABELS, 1)
    },
}
NOW = "2027-01-31T12:00:00Z"


def mark(label: str, weight: int = 0, by: str = "operator", run: str = "", since: str = NOW) -> dict[str, Any]:
    return {"label": label, "by": by, "run": run, "weight": weight, "since": since}


def after(
    marks: list[dict[str, Any]], wanted: dict[str, int], by: str = "operator", run: str = "", *, force: bool = False
) -> list[dict[str, Any]]:
    return marks_after(TABLE, marks, wanted, by=by, run=run, now=NOW, force=force)


@pytest.mark.parametrize(
    ("before", "wanted", "out"),
    [
        ([], {}, []),
        ([], {"gpu1:a": 0}, ["gpu1:a"]),
        ([], {"gpu1": 0}, ["gpu1:a", "gpu1:b"]),
        (["gpu1:a", "gpu1:b"], {"gpu1:b": 100}, ["gpu1:a"]),
        (["gpu2:a"], {"gpu1:a": 0, "gpu2": 100}, ["gpu1:a"]),
        (["gone:a"], {}, []),
        (["gpu1:a", "gpu2:a"], {"gpu1:a": 0, "gpu2:a": 0}, ["gpu1:a", "gpu2:a"]),
    ],
)
def test_marks_of_an_operator(before: list[str], wanted: dict[str, int], out: list[str]) -> None:
    assert [found["label"] for found in after(list(map(mark, before)), wanted)] == out


@pytest.mark.parametrize(
    ("before", "wanted", "reason"),
    [
        ([], {"gpu1": 0, "gpu1:a": 100}, "gpu1:a: to be drained and undrained at once; name it in one of the two"),
        (
            ["gpu2:a"],
            {"gpu1:a": 0},
            "without gpu1:a no instance would serve small; undrain another one first, or drain",
        ),
        ([], {"gpu1:a": 0, "gpu2:a": 0}, "without gpu1:a, gpu2:a no instance would serve small; undrain"),
        ([], {"gpu1:a": 101}, "the weight of gpu1:a is 101; set it to a number from 0 (out) to 100 (full)"),
        ([], {"gpu1:a": True}, "the weight of gpu1:a is True"),
    ],
)
def test_refusals(before: list[str], wanted: dict[str, int], reason: str) -> None:
    with pytest.raises(RotationError, match=re.escape(reason)):
        after(list(map(mark, before)), wanted)


def test_the_last_one_is_taken_out_when_forced_and_then_needs_no_force() -> None:
    out = after([mark("gpu2:a")], {"gpu1:a": 0}, force=True)
    assert [found["label"] for found in out] == ["gpu1:a", "gpu2:a"]
    assert after(out, {"gpu1:a": 0}) == out


def test_a_share_serves() -> None:
    assert after([mark("gpu2:a", 5)], {"gpu1:a": 0})


def test_an_operator_and_a_rollout_do_not_undo_each_other() -> None:
    both = after([mark("gpu1:a")], {"gpu1:a": 0}, "rollout", "r1")
    assert [(found["by"], found["run"]) for found in both] == [("operator", ""), ("rollout", "r1")]
    assert after(both, {"gpu1:a": 100}, "rollout", "r1") == [mark("gpu1:a")]
    with pytest.raises(RotationError, match=r"the rollout r1 keeps gpu1:a at 0 % of its requests since .*--force"):
        after(both, {"gpu1:a": 100})
    assert after(both, {"gpu1:a": 100}, force=True) == []
    of_rollout = [found for found in both if found["by"] == "rollout"]
    assert after(of_rollout, {"gpu1:a": 0}) == both, "an operator may keep it out for longer"


def test_a_rollout_takes_over_what_a_dead_one_left() -> None:
    left = [mark("gpu1:a", by="rollout", run="r1", since="2027-01-30T12:00:00Z")]
    assert after(left, {"gpu1:a": 0}, "rollout", "r2") == [mark("gpu1:a", by="rollout", run="r2")]
    assert after(left, {"gpu1:a": 100}, "rollout", "r2") == []


def test_an_equal_mark_keeps_its_time() -> None:
    left = [mark("gpu1:a", since="2027-01-30T12:00:00Z")]
    assert after(left, {"gpu1:a": 0}) == left
    assert after(left, {"gpu1:a": 5})[0]["since"] == NOW


def test_the_least_weight_counts() -> None:
    marks = [mark("gpu1:a", 50), mark("gpu1:a", 5, by="rollout"), mark("gone:a")]
    assert weights_of(TABLE, marks) == {"gpu1:a": 5, "gpu1:b": 100, "gpu2:a": 100}


def test_names_mean_hosts_and_labels() -> None:
    assert labels_of(TABLE, ["gpu1", "gpu2:a", "gpu9"]) == (
        {"gpu1": ["gpu1:a", "gpu1:b"], "gpu2:a": ["gpu2:a"], "gpu9": []},
        ["gpu9"],
    )


def test_every_instance_has_the_names_of_its_groups() -> None:
    assert names_of(TABLE) == {"gpu1:a": ["small"], "gpu1:b": ["large"], "gpu2:a": ["large", "small"]}


def test_a_state_is_read_as_it_was_written() -> None:
    marks = [mark("gpu1:a", 5, "rollout", "r1")]
    assert parse_marks(dump_marks(marks), "f") == marks
    assert parse_marks("", "f") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "f is not readable (JSONDecodeError"),
        ("[]", "f is not readable (TypeError"),
        ('{"marks": [{"label": "a"}]}', "f is not readable (KeyError: 'by'); correct it, or delete it to have every"),
        (dump_marks([mark("a", 100)]), 'f has the mark {"label": "a"'),
        (dump_marks([mark("a", by="nobody")]), 'f has the mark {"label": "a"'),
    ],
)
def test_a_damaged_state_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RotationError, match=re.escape(reason)):
        parse_marks(text, "f")


def blocks(*marks: dict[str, Any]) -> dict[str, list[str]]:
    """Return what stands behind the servers of each upstream, without the settings that all have."""
    found = re.findall(r"^upstream (\S+) \{\n(.*?)^\}", upstreams_of(TABLE, marks), re.MULTILINE | re.DOTALL)
    return {
        name: [
            line.replace(" max_fails=2 fail_timeout=10s", "").removeprefix("server 10.0.0.").rstrip(";")
            for line in map(str.strip, body.splitlines())
            if line.startswith("server ")
        ]
        for name, body in found
    }


ALONE = {f"server_{number}": [f"{number}:8000"] for number in (1, 2, 3)}


def test_all_are_in_rotation() -> None:
    assert blocks() == {
        "of_large": ["2:8000", "3:8000"],
        "of_small": ["1:8000", "3:8000"],
        "of_small_affine": ["1:8000", "3:8000"],
        **ALONE,
    }


def test_one_that_is_out_is_down_and_not_on_the_ring_and_has_its_own_upstream() -> None:
    found = blocks(mark("gpu1:a"))
    assert found == {"of_large": ["2:8000", "3:8000"], "of_small": ["3:8000", "1:8000 down"], **ALONE}


def test_one_with_a_share_is_a_spare_of_the_others() -> None:
    found = blocks(mark("gpu1:a", 5))
    assert (found["of_small"], found["of_small_share"]) == (
        ["3:8000", "1:8000 backup"],
        ["1:8000 weight=5", "3:8000 backup"],
    )
    assert "of_small_affine" not in found


def test_with_nothing_but_shares_no_upstream_has_only_spares() -> None:
    found = blocks(mark("gpu1:a", 5), mark("gpu2:a", 10))
    assert found["of_small"] == ["1:8000", "3:8000"]
    assert found["of_small_share"] == ["1:8000 weight=5", "3:8000 weight=10"]


def live(*marks: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(upstreams_of(TABLE, marks).splitlines()[1].removeprefix("# "))
    return found


@pytest.mark.parametrize(
    ("marks", "share"),
    [((), 0), ((mark("gpu1:a", 25),), 0.2), ((mark("gpu1:a"),), 0), ((mark("gpu1:a", 9), mark("gpu2:a", 1)), 1)],
)
def test_a_share_is_a_percentage_of_a_full_instance(marks: tuple[dict[str, Any], ...], share: float) -> None:
    assert live(*marks)["groups"]["of_small"]["share"] == pytest.approx(share)


def test_the_digest_is_that_of_table_and_rotation() -> None:
    moved = {**TABLE, "models": {}}
    texts = [upstreams_of(TABLE, []), upstreams_of(TABLE, [mark("gpu1:a")]), upstreams_of(moved, [])]
    assert len({digest_of(text) for text in texts}) == 3
    assert digest_of(texts[0]) == live()["digest"]
    assert digest_of("") == ""


def test_connections_to_engines_do_not_live_for_ever() -> None:
    text = upstreams_of(TABLE, [])
    assert text.count("keepalive_time 5s;") == text.count("keepalive_timeout 4s;") == text.count("upstream ")
