"""Hugging Face's own library finds the model by repository and commit, offline, as an unprivileged user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
