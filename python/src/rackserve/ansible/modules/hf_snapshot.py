#!/usr/bin/python
"""Lay a model of the bundle out as a Hugging Face cache that works with HF_HUB_OFFLINE=1."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot
short_description: Place one model snapshot in the Hugging Face cache
description:
  - Writes blobs (named by their sha256), the snapshot of a commit and the ref C(main), as huggingface_hub lays them
    out. Blobs are hard links to the bundle's files where the filesystem allows. Every blob's sha256 is compared on
    every run, so a file that was altered is replaced. A blob that this run read as a file of the bundle, and that has
    not changed since, is not read again.
options:
  home: {description: "HF_HOME, such as /var/cache/huggingface.", type: str, required: true}
  source: {description: The model's folder in the bundle on the host., type: str, required: true}
  repo: {description: "Repository, such as org/name.", type: str, required: true}
  revision: {description: Commit., type: str, required: true}
  files: {description: "The snapshot's files: path, size, sha256.", type: list, elements: dict, required: true}
  wanted:
    description: Commits of this repository that the host is to have. The ref C(main) stays where it names one of them.
    type: list
    elements: str
    default: []
  digests: {description: What bundle_transfer returned in this run., type: dict, default: {}}
author: rackserve
"""
EXAMPLES = r"""
- name: Place the model
  hf_snapshot:
    home: /var/cache/huggingface
    source: /var/lib/rackserve/bundle/models/org--name/0123
    repo: org/name
    revision: "0123456789012345678901234567890123456789"
    files: "{{ files }}"
"""
RETURN = r"""
path: {description: The snapshot's folder., type: str, returned: always}
replaced: {description: Files that were placed or replaced., type: list, returned: always}
read_bytes: {description: Bytes of files that were read for their sha256., type: int, returned: always}
"""

import json
import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import host_lock, switch_link, sync_folder, write_durably
from ansible.module_utils.verify_bundle import Digests

_READABLE = 0o644


def place_blob(source: str, blob: str) -> None:
    """Give a bundle file its name in the cache: a hard link, or a durable copy on another filesystem."""
    draft = f"{blob}.new"
    if os.path.lexists(draft):
        os.unlink(draft)
    try:
        os.link(source, draft)
    except OSError:
        shutil.copyfile(source, draft)
    os.chmod(draft, _READABLE)
    os.replace(draft, blob)
    sync_folder(os.path.dirname(blob))


def differing(home: str, files: list[dict[str, Any]], digests: Digests) -> list[dict[str, Any]]:
    """Return the files whose blob is absent, altered, or not readable by everyone."""
    found = []
    for entry in files:
        blob = os.path.join(home, "blobs", entry["sha256"])
        intact = (
            os.path.isfile(blob)
            and os.stat(blob).st_mode & 0o777 == _READABLE
            and os.path.getsize(blob) == entry["size"]
            and digests.of(blob) == entry["sha256"]
        )
        if not intact:
            found.append(entry)
    return found


def altered_sources(source: str, replaced: list[dict[str, Any]], digests: Digests) -> list[str]:
    """Return the bundle's files that cannot replace a blob, because they were altered as well: often one inode."""
    paths = {os.path.join(source, entry["path"]): entry["sha256"] for entry in replaced}
    return [path for path, sha256 in paths.items() if digests.of(path) != sha256]


def content_of(path: str) -> bytes | None:
    """Return what a file holds; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write_snapshot(home: str, params: dict[str, Any]) -> bool:
    """Place what differs, then the links, and the manifest and the reference last; return whether links changed."""
    snapshot = os.path.join(home, "snapshots", params["revision"])
    changed = False
    for folder in ("blobs", "refs", f"snapshots/{params['revision']}", "manifests"):
        os.makedirs(os.path.join(home, folder), exist_ok=True)
    for entry in params["replaced"]:
        place_blob(os.path.join(params["source"], entry["path"]), os.path.join(home, "blobs", entry["sha256"]))
    for entry in params["files"]:
        link = os.path.join(snapshot, entry["path"])
        os.makedirs(os.path.dirname(link), exist_ok=True)
        blob = os.path.join(home, "blobs", entry["sha256"])
        changed |= switch_link(link, os.path.relpath(blob, os.path.dirname(link)))
    manifest = (json.dumps(params["files"], indent=1, sort_keys=True) + "\n").encode()
    written = {f"manifests/{params['revision']}.json": manifest}
    if content_of(os.path.join(home, "refs/main")) not in [commit.encode() for commit in params["wanted"]]:
        written["refs/main"] = params["revision"].encode()
    for name, data in written.items():
        path = os.path.join(home, name)
        if content_of(path) != data:
            write_durably(path, data)
            changed = True
    return changed


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            **dict.fromkeys(("home", "source", "repo", "revision"), text),
            "files": {"type": "list", "elements": "dict", "required": True},
            "wanted": {"type": "list", "elements": "str", "default": []},
            "digests": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    home = os.path.join(params["home"], "hub", f"models--{params['repo'].replace('/', '--')}")
    snapshot = os.path.join(home, "snapshots", params["revision"])
    digests = Digests.load(**params["digests"]) if params["digests"] else Digests()
    replaced = differing(home, params["files"], digests)
    changed = bool(replaced)
    os.umask(0o022)
    if not module.check_mode:
        try:
            altered = altered_sources(params["source"], replaced, digests)
            if altered:
                module.fail_json(
                    msg=f"{', '.join(altered)} was altered: its sha256 is not the manifest's; replace it by "
                    "playbooks/place_bundle.yml, and run this play again"
                )
            with host_lock():
                changed |= write_snapshot(home, {**params, "replaced": replaced})
        except OSError as failed:
            module.fail_json(
                msg=f"{params['repo']} was not placed in {home}: {failed}; fix that, and run the play again"
            )
    module.exit_json(
        changed=changed,
        path=snapshot,
        replaced=[entry["path"] for entry in replaced],
        read_bytes=digests.read_bytes,
    )


if __name__ == "__main__":
    main()
