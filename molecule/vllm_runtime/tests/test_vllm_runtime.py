"""The release is complete, locked, compiled, and the one that `current` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host

CURRENT = "/opt/vllm/current"


def test_current_names_a_stamped_release(host: Host) -> None:
    stamp = host.file(f"{CURRENT}/.rackserve-complete").content_string.strip()
    release = host.check_output(f"readlink -f {CURRENT}")
    assert release == f"/opt/vllm/releases/0.32.0-{stamp[:12]}"


def test_what_an_interrupted_run_left_is_gone(host: Host) -> None:
    assert not host.file(f"{CURRENT}/half-done").exists
    assert not host.file("/opt/vllm/.install").exists


def test_vllms_own_command_knows_its_version(host: Host) -> None:
    assert host.check_output(f"{CURRENT}/bin/vllm --version").startswith("0.32.0")


def test_every_module_has_its_bytecode(host: Host) -> None:
    folder = f"{CURRENT}/lib/python3.11/site-packages/vllm"
    sources = int(host.check_output(f"find -L {folder} -name '*.py' | wc -l"))
    compiled = int(host.check_output(f"find -L {folder} -name '*.cpython-311.pyc' | wc -l"))
    assert compiled >= sources > 1000


def test_nobody_but_root_can_write_it(host: Host) -> None:
    assert host.check_output(f"find -L {CURRENT} ! -user root -o -perm -o+w ! -type l | head -1") == ""
