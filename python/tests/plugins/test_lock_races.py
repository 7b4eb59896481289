"""The module's locks, with processes that race for them."""

from __future__ import annotations

import multiprocessing
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from rackserve.ansible.module_utils.rackserve_host import host_lock
from rackserve.ansible.modules import run_lock

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONTEXT = multiprocessing.get_context("fork")


def controller(run: str, folders: list[str], start: Any, out: Any) -> None:
    """Do as a run does: ask for every host at once, each answer at its own time; give back all, if one is refused."""
    start.wait()

    def ask(folder: str) -> bool:
        time.sleep(random.random() * 0.02)  # noqa: S311 - no secret
        return bool(run_lock.take(folder, {"run": run}, [], 120.0)["mine"])

    with ThreadPoolExecutor() as pool:
        proceeds = all(pool.map(ask, folders))
    if not proceeds:
        for folder in folders:
            run_lock.release(folder, {"run": run}, "", {})
    for folder in folders if proceeds else []:  # as if the time had passed in which a run may give up
        run_lock._write(folder, {"run": run, "taken": 0.0})
    out.put((run, proceeds))


def race(runs: dict[str, list[str]]) -> dict[str, bool]:
    start, out = CONTEXT.Barrier(len(runs)), CONTEXT.Queue()
    processes = [CONTEXT.Process(target=controller, args=(run, folders, start, out)) for run, folders in runs.items()]
    for process in processes:
        process.start()
    found = dict(out.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    return found


def test_of_two_runs_that_race_for_three_hosts_exactly_one_proceeds_in_each_of_fifty_races(tmp_path: Path) -> None:
    for number in range(50):
        folders = [str(tmp_path / f"{number}-{host}") for host in ("a", "b", "c")]
        found = race({"1": folders, "2": list(reversed(folders))})
        assert sorted(found.values()) == [False, True], (number, found)
        winner = next(run for run, proceeds in found.items() if proceeds)
        holders = [run_lock.read_holder(folder) for folder in folders]
        assert [holder and holder["run"] for holder in holders] == [winner] * 3


def test_of_three_runs_that_overlap_in_a_ring_one_at_least_proceeds_and_no_host_has_two(tmp_path: Path) -> None:
    for number in range(10):
        a, b, c = (str(tmp_path / f"{number}-{host}") for host in "abc")
        found = race({"1": [a, b], "2": [b, c], "3": [c, a]})
        assert sum(found.values()) == 1, found


def test_the_earlier_of_two_waits_for_the_later_one_which_never_waits(tmp_path: Path) -> None:
    run_lock.take(str(tmp_path), {"run": "2"}, [], 0)
    before = time.monotonic()
    assert not run_lock.take(str(tmp_path), {"run": "3"}, [], 5.0)["mine"]
    assert time.monotonic() - before < 1.0
    assert not run_lock.take(str(tmp_path), {"run": "1"}, [], 0.5)["mine"]
    assert time.monotonic() - before >= 0.5


def test_nobody_waits_for_a_lock_that_is_not_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_lock.take(str(tmp_path), {"run": "2"}, [], 0)
    monkeypatch.setattr(run_lock, "YOUNG_S", -1.0)
    before = time.monotonic()
    assert not run_lock.take(str(tmp_path), {"run": "1"}, [], 5.0)["mine"]
    assert time.monotonic() - before < 1.0


def test_only_the_holder_gives_back_and_renews_and_writes_history(tmp_path: Path) -> None:
    folder = str(tmp_path)
    head = run_lock.take(folder, {"run": "1"}, [], 0)["head"]
    assert head == {"count": 0, "digest": ""}
    assert not run_lock.renew(folder, {"run": "2"})["mine"]
    assert not run_lock.release(folder, {"run": "2"}, "line", head)["mine"]
    assert run_lock.renew(folder, {"run": "1"})["mine"]
    assert run_lock.release(folder, {"run": "1"}, "line", head)["stored"]
    assert run_lock.read_holder(folder) is None
    assert not run_lock.renew(folder, {"run": "1"})["mine"]
    again = run_lock.take(folder, {"run": "3"}, [], 0)["head"]
    assert again["count"] == 1
    assert not run_lock.release(folder, {"run": "3"}, "x", head)["stored"]  # the history has gone on
    assert run_lock.history_lines(folder) == ["line"]


def test_a_line_that_a_power_loss_cut_short_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / run_lock.HISTORY).write_text('{"cut')
    head = run_lock.take(str(tmp_path), {"run": "1"}, [], 0)["head"]
    run_lock.release(str(tmp_path), {"run": "1"}, "line", head)
    assert run_lock.history_lines(str(tmp_path)) == ['{"cut', "line"]


def test_a_module_at_work_is_a_sign_of_life(tmp_path: Path) -> None:
    run_lock.take(str(tmp_path), {"run": "1"}, [], 0)
    with host_lock(str(tmp_path / run_lock.WORK), 1):
        assert run_lock.take(str(tmp_path), {"run": "2"}, [], 0)["busy"]
    assert not run_lock.take(str(tmp_path), {"run": "2"}, [], 0)["busy"]
