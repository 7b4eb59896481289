"""What a change of driver would do to a host is read from apt, dpkg and dkms before it is done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.ansible.module_utils import rackserve_driver as pure
from rackserve.ansible.module_utils import rackserve_driver_host as acting
from rackserve.ansible.modules import rackserve_driver as module

if TYPE_CHECKING:
    from pathlib import Path

NEW, OLD = "535.309.01-0+deb12u1", "535.261.03-1"
CARRIED = {
    **dict.fromkeys(("nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-alternative"), NEW),
    "nvidia-persistenced": "535.171.04-1~deb12u1",
    "gcc": "4:12.2.0-3",
    "dkms": "3.0.10-8+deb12u1",
    "linux-headers-6.1.0-56-amd64": "6.1.192-2",
}
NAMES = ["nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-persistenced", "gcc", "dkms"]
SIMULATION = f"""\
NOTE: This is only a simulation!
Remv nvidia-open-kernel-dkms [{OLD}]
Inst libcuda1 [{OLD}] ({NEW} localhost [amd64])
Inst linux-headers-6.1.0-56-amd64 (6.1.192-2 localhost [amd64])
Inst nvidia-kernel-dkms ({NEW} localhost [amd64])
Conf libcuda1 ({NEW} localhost [amd64])
"""
DKMS = """\
nvidia-current/535.309.01, 6.1.0-56-amd64, x86_64: installed
nvidia-current/535.309.01, 6.1.0-47-amd64, x86_64: built
nvidia-current/535.261.03: added
zfs/2.1.11, 6.1.0-56-amd64, x86_64: installed
"""


def test_a_simulation_is_read() -> None:
    installs, removals = pure.parse_simulation(SIMULATION)
    assert installs == {"libcuda1": NEW, "linux-headers-6.1.0-56-amd64": "6.1.192-2", "nvidia-kernel-dkms": NEW}
    assert removals == ["nvidia-open-kernel-dkms"]
    assert pure.refusals(installs, removals) == []


@pytest.mark.parametrize(
    ("installs", "removals", "problem"),
    [
        ({"linux-image-6.1.0-99-amd64": "6.1.250-1"}, [], "it would change the kernel (linux-image-6.1.0-99-amd64)"),
        ({}, ["linux-image-amd64"], "it would change the kernel (linux-image-amd64)"),
        ({}, ["nginx", "nvidia-smi"], "it would remove nginx"),
    ],
    ids=["another kernel", "no kernel", "another service"],
)
def test_a_plan_that_moves_the_kernel_or_takes_something_else_is_refused(
    installs: dict[str, str], removals: list[str], problem: str
) -> None:
    assert pure.refusals(installs, removals) == [problem]


def test_a_bare_host_gets_what_the_set_asks_for() -> None:
    wanted = pure.to_install(NAMES, CARRIED, {}, "535.309.01", set())
    assert wanted == [f"{name}={CARRIED[name]}" for name in NAMES]


def test_a_driver_goes_up_or_down_as_a_whole_and_the_rest_is_never_made_older() -> None:
    present = {
        **dict.fromkeys(CARRIED, "0"),
        "nvidia-alternative": OLD,
        "libcuda1": NEW,
        "nvidia-smi": NEW,
        "gcc": "4:13",
    }
    present["nvidia-kernel-dkms"] = "550.163.01-2"
    wanted = pure.to_install(NAMES, CARRIED, present, "535.309.01", {"dkms"})
    assert wanted == [f"dkms={CARRIED['dkms']}", f"nvidia-alternative={NEW}", f"nvidia-kernel-dkms={NEW}"]


def test_a_host_that_has_it_all_gets_nothing() -> None:
    assert pure.to_install(NAMES, CARRIED, CARRIED, "535.309.01", set()) == []


def test_dkms_says_which_kernels_have_the_module() -> None:
    assert pure.parse_dkms(DKMS, "535.309.01") == ("nvidia-current", {"6.1.0-56-amd64"})
    assert pure.parse_dkms(DKMS, "535.261.03") == ("nvidia-current", set())
    assert pure.parse_dkms(DKMS, "580.95.05") == (None, set())


def test_driver_kernel_and_headers_are_held() -> None:
    present = {**CARRIED, "linux-image-6.1.0-56-amd64": "6.1.192-2", "linux-image-amd64": "6.1.192-2", "nginx": "1"}
    held = pure.to_hold(CARRIED, present, "535.309.01", ["6.1.0-56-amd64"])
    assert set(held) == {
        *("nvidia-kernel-dkms", "libcuda1", "nvidia-smi", "nvidia-alternative", "nvidia-persistenced"),
        *("linux-headers-6.1.0-56-amd64", "linux-image-6.1.0-56-amd64", "linux-image-amd64"),
    }


def test_a_kernel_that_moved_all_the_same_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"linux-image-amd64": "1"}, {"linux-image-amd64": "2"}])
    monkeypatch.setattr(module, "packages", lambda: next(states))
    monkeypatch.setattr(module, "command", lambda *_: "")
    monkeypatch.setattr(module, "apt_environment", lambda *_: {})
    monkeypatch.setattr(module, "debian_repository", list)
    chosen = {"version": "535.309.01", "packages": CARRIED, "names": NAMES, "path": "/p"}
    driver_error = vars(module)["DriverError"]  # of the module as Ansible imports it
    with pytest.raises(driver_error, match="changed the kernel: linux-image-amd64"):
        module.install(chosen, check=False)


def test_a_kernel_that_stayed_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "packages", lambda: {"linux-image-amd64": "1"})
    monkeypatch.setattr(module, "command", lambda *_: "")
    monkeypatch.setattr(module, "apt_environment", lambda *_: {})
    monkeypatch.setattr(module, "debian_repository", list)
    chosen = {"version": "535.309.01", "packages": CARRIED, "names": ["gcc"], "path": "/p"}
    assert module.install(chosen, check=False) == ["gcc=4:12.2.0-3"]


def test_a_set_is_kept_once_and_old_ones_go(tmp_path: Path) -> None:
    source = tmp_path / "bundle/apt/driver-12-proprietary"
    source.mkdir(parents=True)
    (source / "InRelease").write_text("signed")
    (source / "a.deb").write_bytes(b"a")
    keep = tmp_path / "drivers"
    chosen: dict[str, Any] = {"version": "535.309.01", "flavour": "proprietary", "path": str(source), "packages": {}}
    assert acting.keep_set(chosen, str(keep))
    assert not acting.keep_set(chosen, str(keep))
    home = keep / "535.309.01-proprietary"
    record = json.loads((home / "set.json").read_text())
    assert record["path"] == f"{home}/apt"
    assert (home / "apt/a.deb").stat().st_ino == (source / "a.deb").stat().st_ino
    assert not acting.keep_set(record, str(keep))
    (keep / "470.1-proprietary").mkdir()
    acting.prune(str(keep), {"535.309.01-proprietary"})
    assert [path.name for path in keep.iterdir()] == ["535.309.01-proprietary"]


@pytest.mark.parametrize(
    ("answer", "listed"),
    [
        ((0, DKMS, ""), DKMS),
        ((4, DKMS, "Error! Could not locate dkms.conf file."), DKMS),
        ((0, "", ""), ""),
        ((4, "", "Error! Could not locate dkms.conf file."), None),
    ],
    ids=["fine", "somebody else's is broken", "no module", "nothing listed"],
)
def test_a_broken_module_of_somebody_else_loses_no_other(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str, str], listed: str | None
) -> None:
    monkeypatch.setattr(acting, "run", lambda _: answer)
    if listed is None:
        with pytest.raises(acting.DriverError, match="Could not locate"):
            acting.dkms_status()
    else:
        assert acting.dkms_status() == listed
