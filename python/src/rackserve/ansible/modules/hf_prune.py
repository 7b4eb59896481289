#!/usr/bin/python
"""Find the snapshots of a Hugging Face cache that nothing uses, and remove them on request."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_prune
short_description: List, and on demand remove, unused snapshots of the Hugging Face cache
description:
  - A snapshot is used when it is in C(keep), or when a file of C(instances) mentions its commit, as the arguments of an
    instance do that still runs although the inventory names it no more. Everything else under C(hub/models--*) is
    unused.
  - With C(remove), an unused snapshot goes with its manifest, the references to it and the blobs that no snapshot left
    behind links to.
options:
  home: {description: "HF_HOME, such as /var/cache/huggingface.", type: str, required: true}
  keep: {description: "Snapshots that are needed: repo, revision.", type: list, elements: dict, required: true}
  instances: {description: Folder with the arguments of the host's instances., type: str, required: true}
  remove: {description: Whether to remove what is unused., type: bool, default: false}
author: rackserve
"""
EXAMPLES = r"""
- name: List what nothing uses
  hf_prune: {home: /var/cache/huggingface, keep: "{{ snapshots }}", instances: /etc/vllm/instances}
"""
RETURN = r"""
unused: {description: "Unused snapshots: repo, revision, size in bytes.", type: list, returned: always}
"""

import glob
import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import host_lock, sync_folder


def snapshots_in(home: str) -> list[str]:
    """Return the folder of every snapshot in the cache."""
    return sorted(glob.glob(os.path.join(home, "hub", "models--*", "snapshots", "*")))


def snapshot_of(home: str, repo: str, revision: str) -> str:
    """Return the folder that a snapshot has in the cache."""
    return os.path.join(home, "hub", f"models--{repo.replace('/', '--')}", "snapshots", revision)


def mentioned(folder: str) -> str:
    """Return the text of the arguments of every generation that the host has, live or not."""
    texts = []
    for path in glob.glob(os.path.join(folder, "*", "generations", "*", "engine.yaml")):
        with open(path, encoding="utf-8", errors="replace") as source:
            texts.append(source.read())
    return "\n".join(texts)


def unused(found: list[str], kept: list[str], text: str) -> list[str]:
    """Return the snapshots that are neither kept nor mentioned."""
    return [folder for folder in found if folder not in kept and os.path.basename(folder) not in text]


def described(folder: str) -> dict[str, Any]:
    """Return what an operator wants to know of a snapshot; some of its bytes may be another snapshot's too."""
    home = os.path.dirname(os.path.dirname(folder))
    sizes = (os.path.join(home, "blobs", name) for name in blobs_of(folder))
    return {
        "repo": os.path.basename(home)[len("models--") :].replace("--", "/"),
        "revision": os.path.basename(folder),
        "size": sum(os.path.getsize(path) for path in sizes if os.path.isfile(path)),
    }


def blobs_of(snapshot: str) -> set[str]:
    """Return the names of the blobs that a snapshot links to."""
    walked = (os.path.join(folder, name) for folder, _, names in os.walk(snapshot) for name in names)
    return {os.path.basename(os.readlink(path)) for path in walked if os.path.islink(path)}


def remove_snapshot(snapshot: str) -> None:
    """Remove a snapshot: what names it first, the folder by which the next run would find it last."""
    snapshots, revision = os.path.split(snapshot)
    home = os.path.dirname(snapshots)
    for ref in glob.glob(os.path.join(home, "refs", "*")):
        with open(ref, encoding="utf-8") as source:
            names_it = source.read().strip() == revision
        if names_it:
            os.unlink(ref)
    manifest = os.path.join(home, "manifests", f"{revision}.json")
    if os.path.exists(manifest):
        os.unlink(manifest)
    others = [os.path.join(snapshots, name) for name in os.listdir(snapshots) if name != revision]
    blobs = os.path.join(home, "blobs")
    for name in set(os.listdir(blobs)).difference(*map(blobs_of, others)):
        os.unlink(os.path.join(blobs, name))
    shutil.rmtree(snapshot if others else home)
    sync_folder(snapshots if others else os.path.dirname(home))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "str", "required": True},
            "keep": {"type": "list", "elements": "dict", "required": True},
            "instances": {"type": "str", "required": True},
            "remove": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    home, listed = params["home"], []
    kept = [snapshot_of(home, entry["repo"], entry["revision"]) for entry in params["keep"]]
    try:
        found = unused(snapshots_in(home), kept, mentioned(params["instances"]))
        listed = [described(folder) for folder in found]
        if params["remove"] and found and not module.check_mode:
            with host_lock():
                for folder in found:
                    remove_snapshot(folder)
    except OSError as failed:
        module.fail_json(msg=f"{home} was not pruned: {failed}; fix that, and run the play again")
    module.exit_json(changed=bool(params["remove"] and found), unused=listed)


if __name__ == "__main__":
    main()
