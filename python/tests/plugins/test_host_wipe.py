"""What leaves a host with it, and what is left because it may be others' too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rackserve.ansible.modules import host_wipe
from rackserve.ansible.modules.host_wipe import act, mounts_of, reason_to_leave

ROLES = Path(__file__).parents[3] / "roles"
MOUNTS = {"/": "ext4", "/data": "xfs", "/data/nfs": "nfs4", "/hf": "fuse.gcsfuse", "/opt/a b": "ext4"}


def test_mounts_are_read_with_their_spaces() -> None:
    assert mounts_of("/dev/x / ext4 rw 0 0\nh:/x /a\\040b nfs4 rw 0 0\n") == {"/": "ext4", "/a b": "nfs4"}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "it is a folder of the system"),
        ("/opt", "it is a folder of the system"),
        ("/lib64", "it is a folder of the system"),
        ("/var/cache", "it is a folder of the system"),
        ("/var/lib/rackserve", "it is a folder of the system"),
        ("/var/lib/rackserve/bundle", ""),
        ("/etc/vllm", ""),
        ("/data/nfs/hub", "it is on /data/nfs, a file system of the kind nfs4, which other hosts may use"),
        ("/hf", "it is on /hf, a file system of the kind fuse.gcsfuse, which other hosts may use"),
        ("/data", "/data/nfs is mounted below it"),
        ("/opt/a", ""),
        ("/data/hub", ""),
        ("/data/nfsx", ""),
    ],
)
def test_what_may_be_of_others_is_left(path: str, why: str) -> None:
    assert reason_to_leave(path, MOUNTS) == why


def wipe(*paths: Path, mounts: dict[str, str] | None = None, check: bool = False) -> dict[str, Any]:
    return act({"paths": list(map(str, paths)), "units": []}, mounts or {"/": "ext4"}, check=check)


def test_files_folders_links_and_their_targets_go(tmp_path: Path) -> None:
    for name in ("a/b", "real/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("1234")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "one").write_text("12")
    (tmp_path / "dangling").symlink_to("nowhere")
    paths = [tmp_path / name for name in ("a", "link", "one", "dangling")]
    told = wipe(*paths, check=True)
    assert len(list(tmp_path.iterdir())) == 5
    done = wipe(*paths, tmp_path / "missing")
    assert done == told
    assert (done["removed"], done["bytes"], done["left"]) == (list(map(str, paths)), 10, [])
    assert list(tmp_path.iterdir()) == []
    assert not wipe(*paths)["changed"]


def test_a_mount_point_stays_and_its_content_goes(tmp_path: Path) -> None:
    (tmp_path / "data/x").mkdir(parents=True)
    mounts = {"/": "ext4", str(tmp_path / "data"): "xfs"}
    assert wipe(tmp_path / "data", mounts=mounts)["changed"]
    assert list((tmp_path / "data").iterdir()) == []
    assert not wipe(tmp_path / "data", mounts=mounts)["changed"]


def test_what_is_shared_stays(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    done = wipe(tmp_path / "hub", mounts={"/": "ext4", str(tmp_path): "nfs"})
    assert (done["changed"], [one["path"] for one in done["left"]]) == (False, [str(tmp_path / "hub")])
    assert (tmp_path / "hub").is_dir()


@pytest.mark.parametrize(
    ("state", "stopped"),
    [
        ("LoadState=not-found\nActiveState=inactive\nUnitFileState=", []),
        ("LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled", []),
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled", ["x.timer"]),
        ("LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled", ["x.timer"]),
    ],
)
def test_units_that_the_host_has_are_stopped(monkeypatch: pytest.MonkeyPatch, state: str, stopped: list[str]) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str]) -> tuple[int, str, str]:
        asked.append(argv)
        return 0, state, ""

    monkeypatch.setattr(host_wipe, "run", run)
    assert host_wipe.stop(["x.timer"]) == stopped
    assert len(asked) == 1 + len(stopped)


def test_a_unit_that_does_not_stop_keeps_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        host_wipe, "run", lambda argv: (argv[1] != "show", "LoadState=loaded\nActiveState=active", "no")
    )
    with pytest.raises(OSError, match=r"x\.timer cannot be stopped"):
        act({"paths": [str(tmp_path)], "units": ["x.timer"]}, {"/": "ext4"}, check=False)
    assert tmp_path.is_dir()


# On vLLM hosts, and not removed: why.
STAYS = {
    "{{ stack_hf_home }}": "its hub, which is all that the role writes",
    "{{ stack_vllm_root }}": "its releases and its link, which are all that the role writes",
}


def test_every_tree_and_every_secret_of_a_vllm_host_goes() -> None:
    """A role that is added tells here what is done with its trees and its secrets."""
    wiped = yaml.safe_load((ROLES / "rollout/vars/main.yml").read_text())["__rollout_wiped"]
    for path in sorted(ROLES.glob("*/vars/owned.yml")):
        ((_, owned),) = yaml.safe_load(path.read_text()).items()
        if owned["hosts"] not in ("all", "vllm_hosts"):
            continue
        for tree in owned.get("trees", []):
            covered = any(tree == one or tree.startswith(f"{one}/") for one in wiped)
            assert covered or STAYS.get(tree), f"{tree} of {path.parents[1].name}: add it to __rollout_wiped"
    # Written with mode 0600 on such hosts: the engines' environment, and the key of the driver's modules.
    secret = [path.parents[1].name for path in ROLES.glob("*/tasks/*.yml") if '"0600"' in path.read_text()]
    assert {*secret} == {"grafana", "keepalived", "nginx", "nvidia_driver"}
    assert {"/etc/vllm", "{{ __stack_host_state }}/mok"} <= {*wiped}
