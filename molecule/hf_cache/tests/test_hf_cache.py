"""Hugging Face's own library finds the model by repository and commit, offline, as an unprivileged user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testing.generations import INSTANCES, folder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from testinfra.host import Host

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB = "/var/cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M-Instruct"
FIND = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp HF_HOME=/var/cache/huggingface HF_HUB_OFFLINE=1 "
    '/opt/vllm/current/bin/python -c "from huggingface_hub import snapshot_download as s;'
    " print(s('{repo}'{revision}))\""
)


def revision(host: Host) -> str:
    return host.file(f"{HUB}/refs/main").content_string


@pytest.mark.parametrize("by_commit", [True, False], ids=["by commit", "by branch"])
def test_the_library_finds_the_snapshot(host: Host, by_commit: bool) -> None:  # noqa: FBT001
    commit = revision(host)
    argument = f", revision='{commit}'" if by_commit else ""
    assert host.check_output(FIND.format(repo=REPO, revision=argument)) == f"{HUB}/snapshots/{commit}"


def test_the_library_refuses_a_model_that_is_not_there(host: Host) -> None:
    assert host.run(FIND.format(repo="someone/else", revision="")).rc != 0


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_is_a_link_to_a_blob_named_by_its_digest(host: Host, name: str) -> None:
    path = f"{HUB}/snapshots/{revision(host)}/{name}"
    target = host.check_output(f"readlink {path}")
    digest = host.check_output(f"sha256sum {path}").split()[0]
    assert target == f"../../blobs/{digest}"
    blob = host.file(f"{HUB}/blobs/{digest}")
    assert (blob.user, blob.mode) == ("root", 0o644)


def test_the_weights_stand_on_the_disk_once(host: Host) -> None:
    assert int(host.check_output(f"stat -L -c %h {HUB}/snapshots/{revision(host)}/model.safetensors")) == 2


def test_adapters_are_placed_beside_their_model(host: Host) -> None:
    found = host.check_output("ls /var/cache/huggingface/hub").split()
    assert {f"models--rackserve--smollm2-lora-{name}" for name in ("one", "two", "three")} <= set(found)


@pytest.fixture
def stale(host: Host) -> Iterator[dict[str, str]]:
    """Put two snapshots into the cache that the inventory does not know; one is an old instance's."""
    folders = {}
    for name, commit in (("unused", "1" * 40), ("running", "2" * 40)):
        home = f"/var/cache/huggingface/hub/models--old--{name}"
        folders[name] = f"{home}/snapshots/{commit}"
        host.check_output(
            f"mkdir -p {home}/blobs {home}/refs {folders[name]} && echo {name} >{home}/blobs/b && "
            f"echo {commit} >{home}/refs/main && ln -s ../../blobs/b {folders[name]}/config.json"
        )
    old = folder_of("prune-test", "0000000000")
    host.check_output(f"mkdir -p {old} && echo 'revision: {'2' * 40}' >{old}/engine.yaml")
    yield folders
    host.check_output(f"rm -rf {INSTANCES}/prune-test /var/cache/huggingface/hub/models--old--*")


def test_what_no_instance_uses_is_listed_and_stays(
    host: Host, stale: dict[str, str], play: Callable[..., CompletedProcess[str]]
) -> None:
    done = play("molecule/hf_cache/converge.yml")
    words = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"old/unused at {'1' * 40}, 7.00 Bytes: no instance uses it; set hf_cache_prune: true" in words
    assert "old/running" not in words
    assert all(host.file(path).is_directory for path in stale.values())


def test_what_no_instance_uses_goes_when_the_operator_says_so(
    host: Host, stale: dict[str, str], play: Callable[..., CompletedProcess[str]]
) -> None:
    before = host.check_output("ls -R /var/cache/huggingface/hub/models--[!o]*")
    looked = play("molecule/hf_cache/converge.yml", {"hf_cache_prune": True}, "--check")
    assert "changed=1" in looked.stdout
    assert host.file(stale["unused"]).is_directory
    done = play("molecule/hf_cache/converge.yml", {"hf_cache_prune": True})
    assert done.returncode == 0, done.stdout + done.stderr
    assert not host.file("/var/cache/huggingface/hub/models--old--unused").exists
    assert host.file(stale["running"]).is_directory
    assert host.check_output("ls -R /var/cache/huggingface/hub/models--[!o]*") == before
    assert "changed=0" in play("molecule/hf_cache/converge.yml", {"hf_cache_prune": True}).stdout
