#!/usr/bin/python
"""Unpack files of a bundle that were sent to a host, each verified by its sha256."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_unpack
short_description: Unpack files of the bundle on a host
description:
  - A member of the archive is written only under a wanted name, and gets that name only after its sha256 was verified.
    The action plugin of C(bundle_transfer) calls it.
options:
  root: {description: Folder of the bundle on the host., type: str, required: true}
  archive: {description: The tar file., type: str, required: true}
  files: {description: "Wanted files: path, size, sha256.", type: list, elements: dict, required: true}
  digests: {description: What bundle_compare returned., type: dict, required: true}
author: rackserve
"""
EXAMPLES = r"""
- name: Unpack what was sent
  bundle_unpack:
    root: /var/lib/rackserve/bundle
    archive: /tmp/bundle.tar
    files: [{path: a.deb, size: 5, sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824}]
    digests: "{{ compared.digests }}"
"""
RETURN = r"""
digests: {description: "Where the digests of this run are, and their sha256.", type: dict, returned: always}
read_bytes: {description: Bytes of files that were read for their sha256., type: int, returned: always}
"""

import os
import tarfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import host_lock, sync_folder
from ansible.module_utils.verify_bundle import CHUNK, DRAFT, Digests


def unpack(root: str, archive: str, files: list[dict[str, Any]], digests: Digests) -> None:
    """Write the wanted members of an archive; each takes its name only once its bytes are verified and durable.

    Raises:
        ValueError: for a member that is not wanted, not a plain file, or not the bytes wanted.
    """
    wanted = {entry["path"]: entry for entry in files}
    folders = set()
    with tarfile.open(archive) as source:
        for member in source:
            entry = wanted.get(member.name)
            if entry is None or not member.isreg() or member.size != entry["size"]:
                raise ValueError(f"{member.name} was sent but is not what the manifest wants; run the play again")
            path = os.path.join(root, member.name)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            draft = f"{path}{DRAFT}"
            data = source.extractfile(member)
            with open(draft, "wb") as target:
                while data is not None and (chunk := data.read(CHUNK)):
                    target.write(chunk)
                os.fchmod(target.fileno(), 0o644)
                target.flush()
                os.fsync(target.fileno())
            if digests.of(draft) != entry["sha256"]:
                os.unlink(draft)
                raise ValueError(f"{member.name} was altered on its way to the host; run the play again")
            digests.rename(draft, path)
            folders.add(os.path.dirname(path))
    for folder in folders:
        sync_folder(folder)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "str", "required": True},
            "archive": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "digests": {"type": "dict", "required": True},
        },
    )
    root = module.params["root"]
    digests = Digests.load(**module.params["digests"])
    try:
        with host_lock():
            unpack(root, module.params["archive"], module.params["files"], digests)
        saved = {**module.params["digests"], "sha256": digests.save(module.params["digests"]["path"])}
    except (OSError, ValueError, tarfile.TarError) as failed:
        module.fail_json(msg=f"cannot unpack the bundle under {root}: {failed}")
    module.exit_json(changed=True, digests=saved, read_bytes=digests.read_bytes)


if __name__ == "__main__":
    main()
