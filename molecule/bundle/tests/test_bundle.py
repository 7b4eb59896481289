"""The host holds the bundle's bytes and no others, and apt reads nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host

ROOT = "/var/lib/rackserve/bundle"


def test_every_file_is_the_one_of_the_manifest(host: Host) -> None:
    manifest = json.loads(host.file(f"{ROOT}/manifest.json").content_string)
    wanted = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    listed = host.check_output(
        f"cd {ROOT} && find . -type f ! -name 'manifest.json*' ! -name host-parts.json -print0 | xargs -0 sha256sum"
    )
    found = {line[66:].removeprefix("./"): line[:64] for line in listed.splitlines()}
    assert found
    assert found.items() <= wanted.items()


def test_what_was_planted_is_gone(host: Host) -> None:
    assert not host.file(f"{ROOT}/wheels/planted.whl").exists


def test_apt_knows_the_bundle_only(host: Host) -> None:
    apt = "APT_CONFIG=/etc/rackserve/apt.conf apt-"
    policy = host.check_output(f"{apt}get -qq update && {apt}cache policy")
    sources = [line for line in policy.splitlines() if "Packages" in line]
    assert sources
    assert all("file:" in line for line in sources)


def test_the_hosts_own_sources_are_untouched(host: Host) -> None:
    assert "debian" in host.file("/etc/apt/sources.list").content_string
    assert not host.file("/etc/apt/sources.list.d/bundle.list").exists
