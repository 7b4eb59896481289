"""The rows of every host's table: user, system, Python, disk, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.preflight._rows import Row, refused, row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.bundle import Manifest
    from rackserve.preflight._types import HostFacts, HostSpec
    from rackserve.vllm import Instance, Release

_SUPPORTED: Final = ("12", "13")
_SYSTEM_UIDS: Final = 999
_GB: Final = 1_000_000_000
_GIB: Final = 1 << 30


def system_rows(facts: HostFacts, manifest: Manifest) -> list[Row]:
    """Return the rows about user, Debian and machine."""
    carried = [repository.release for repository in manifest.repositories]
    usable = [release for release in _SUPPORTED if release in carried]
    supported = facts.distribution == "debian" and facts.release in _SUPPORTED
    user = "root" if facts.euid == 0 else f"user id {facts.euid}"
    system = (
        "add the release to bundle.yml and build the bundle again"
        if supported
        else f"install Debian {' or '.join(_SUPPORTED)}"
    )
    wheels = "use an x86_64 host: the bundle's wheels and packages are for it"
    return [
        row("user", "root", user, "set ansible_user: root, or ansible_become: true", fits=facts.euid == 0),
        row(
            "system",
            f"Debian {' or '.join(usable) or 'with packages'}, as the bundle carries",
            f"{facts.distribution} {facts.release}",
            system,
            fits=supported and facts.release in usable,
        ),
        row("machine", "x86_64", facts.architecture, wheels, fits=facts.architecture == "x86_64"),
    ]


def python_row(wanted: HostSpec, facts: HostFacts, release: Release) -> Row:
    """Return the row about the Python that the locked wheels are for, and that the release runs on."""
    asked, below = _version(wanted.python), release.python.below
    fits_release = _version(release.python.first) <= asked and (below is None or asked < _version(below))
    path = f"/usr/bin/python{wanted.python}"
    if not fits_release:
        span = f"{release.python.first} or newer" + (f", below {below}" if below else "")
        fix = "set stack_runtime.python to one that the release runs on and the bundle has"
        return row("Python", f"{span} (vLLM {release.version})", wanted.python, fix, fits=False)
    there = wanted.python in facts.pythons
    fix = "use the Debian release that has it, or set stack_runtime.python to one that bundle and host share"
    return row("Python", path, "there" if there else "not on the host", fix, fits=there)


def service_user_row(uid: int | None, *, removes_ipc: bool) -> Row | None:
    """Refuse a login user `vllm` whose IPC objects logind removes at each logout; None without such a user.

    System users are exempt from RemoveIPC (systemd: logind.conf(5)); systemd is built with SYS_UID_MAX, 999 on Debian.
    vllm-project/vllm#54259 is what it looks like.
    """
    if uid is None:
        return None
    login = uid > _SYSTEM_UIDS
    found = f"user id {uid}" + (", and logind removes its IPC objects at logout" if login and removes_ipc else "")
    fix = (
        "set RemoveIPC=no in /etc/systemd/logind.conf.d/vllm.conf and restart systemd-logind, or remove the user: "
        "the role makes a system user"
    )
    wanted = f"a system user (id {_SYSTEM_UIDS} or less), or RemoveIPC=no"
    return row("user vllm", wanted, found, fix, fits=not (login and removes_ipc))


def validate_service_user(facts: Mapping[str, Any]) -> list[str]:
    """Return why the user `vllm` of a host cannot run instances, of the module host_facts; empty when it can."""
    entry = service_user_row(facts.get("vllm_uid"), removes_ipc=bool(facts.get("removes_ipc")))
    return [f"user vllm has the {entry.found}; {entry.fix}"] if entry and refused([entry]) else []


def disk_rows(need: Mapping[str, int], free: Mapping[str, int]) -> list[Row]:
    """Return a row for each folder: space still needed, and space free."""
    fix = "free that much, or mount a larger filesystem there"
    return [
        row(f"disk {path}", f"{size / _GB:.1f} GB", f"{free[path] / _GB:.1f} GB free", fix, fits=free[path] >= size)
        for path, size in need.items()
    ]


def memory_row(
    instances: Sequence[Instance], manifest: Manifest, cpu_kvcache_gib: int, memory: int | None
) -> Row | None:
    """Compare what instances on a CPU keep in memory, weights and KV cache, with what the host has; None if unknown."""
    if not memory:
        return None
    paths = manifest.model_paths
    weights = sum(
        entry.size
        for instance in instances
        for entry in manifest.under((paths[instance.model.repo, instance.model.revision],))
        if entry.path.endswith(".safetensors")
    )
    need = weights + len(instances) * cpu_kvcache_gib * _GIB
    fix = "lower vllm_cpu_kvcache_gib, or serve fewer or smaller models here"
    wanted = f"{need / _GIB:.1f} GiB (weights, KV cache)"
    return row("memory", wanted, f"{memory / _GIB:.1f} GiB", fix, fits=memory >= need)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
