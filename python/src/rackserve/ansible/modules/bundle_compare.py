#!/usr/bin/python
"""Compare a host's part of the bundle with what it should hold, byte for byte, and remove everything else."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_compare
short_description: Compare the bundle on a host with its manifest
description:
  - Reports which of the wanted files are absent or differ in any byte, and removes what is not wanted. It is the one
    reader of an unchanged host's bundle in a run. The digests that it computes are saved for the rest of the run; the
    host's own verifier and C(hf_snapshot) read only what changed after it. The action plugin of C(bundle_transfer)
    calls it. In check mode nothing is removed.
options:
  root: {description: Folder of the bundle on the host., type: str, required: true}
  files: {description: "Wanted files: path, size, sha256.", type: list, elements: dict, required: true}
  digests: {description: File for the digests of this run., type: str, required: true}
author: rackserve
"""
EXAMPLES = r"""
- name: Compare the bundle
  bundle_compare: {root: /var/lib/rackserve/bundle, files: [], digests: /run/rackserve/bundle-digests.json}
"""
RETURN = r"""
missing: {description: Paths of absent or differing files., type: list, returned: always}
removed: {description: Paths that were not wanted., type: list, returned: always}
digests: {description: "Where the digests of this run are, and their sha256.", type: dict, returned: always}
read_bytes: {description: Bytes of files that were read for their sha256., type: int, returned: always}
"""

import os
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.verify_bundle import Digests, Entry, file_problem


def missing_files(root: str, files: list[Entry], digests: Digests) -> list[str]:
    """Return the paths of the wanted files that are absent or differ."""
    with ThreadPoolExecutor() as pool:
        problems = pool.map(lambda entry: file_problem(root, entry, digests.of), files)
        return [entry.path for entry, problem in zip(files, problems) if problem]  # noqa: B905 - Python 3.9


def unwanted(root: str, files: list[Entry]) -> list[str]:
    """Return the paths under the root that no wanted file has; a link to a folder is one of them."""
    wanted = {entry.path for entry in files}
    found = []
    for folder, folders, names in os.walk(root):
        names += [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(set(found) - wanted)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "digests": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    root, path = module.params["root"], module.params["digests"]
    files = [Entry(**entry) for entry in module.params["files"]]
    digests = Digests()
    missing, extra = missing_files(root, files, digests), unwanted(root, files)
    try:
        if not module.check_mode:
            for name in extra:
                os.unlink(os.path.join(root, name))
        saved = {"path": path, "sha256": digests.save(path)}
    except OSError as failed:
        module.fail_json(msg=f"cannot compare the bundle under {root}: {failed}")
    module.exit_json(changed=bool(extra), missing=missing, removed=extra, digests=saved, read_bytes=digests.read_bytes)


if __name__ == "__main__":
    main()
