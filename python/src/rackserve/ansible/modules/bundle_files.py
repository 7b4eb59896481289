#!/usr/bin/python
"""Hold the parts of a bundle that a host needs, each file verified by its sha256."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_files
short_description: Verify, unpack and prune the bundle on a host
description:
  - Reports which of the wanted files are absent or differ in any byte, unpacks an archive that was sent, and removes
    what is not wanted. The action plugin of `bundle_transfer` calls it; an archive's member is written only under a
    wanted name, and only becomes a file once its sha256 is the wanted one.
options:
  root: {description: Folder of the bundle on the host., type: str, required: true}
  files: {description: "Wanted files: path, size, sha256.", type: list, elements: dict, required: true}
  archive: {description: A tar file to unpack., type: str}
  texts: {description: "Name to text of what to store beside the files once every one is there.", type: dict}
  prune: {description: Remove what is not wanted., type: bool, default: false}
author: rackserve
"""
EXAMPLES = r"""
- name: Verify what is there
  bundle_files: {root: /var/lib/rackserve/bundle, files: []}
"""
RETURN = r"""
missing: {description: Paths of absent or differing files., type: list, returned: always}
removed: {description: Paths that were not wanted., type: list, returned: always}
"""

import json
import os
import stat
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_host import CHUNK, host_lock, sha256_of, sync_folder, write_durably


def is_wanted(root: str, entry: dict[str, Any]) -> bool:
    """Return whether the host holds exactly this file."""
    path = os.path.join(root, entry["path"])
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == entry["size"] and sha256_of(path) == entry["sha256"]


def missing_files(root: str, files: list[dict[str, Any]]) -> list[str]:
    """Return the paths of the wanted files that are absent or differ."""
    with ThreadPoolExecutor() as pool:
        present = pool.map(lambda entry: is_wanted(root, entry), files)
        return [entry["path"] for entry, there in zip(files, present) if not there]  # noqa: B905 - Python 3.9


def unpack(root: str, archive: str, files: list[dict[str, Any]]) -> None:
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
            draft = f"{path}.new"
            data = source.extractfile(member)
            with open(draft, "wb") as target:
                while data is not None and (chunk := data.read(CHUNK)):
                    target.write(chunk)
                os.fchmod(target.fileno(), 0o644)
                target.flush()
                os.fsync(target.fileno())
            if sha256_of(draft) != entry["sha256"]:
                os.unlink(draft)
                raise ValueError(f"{member.name} was altered on its way to the host; run the play again")
            os.replace(draft, path)
            folders.add(os.path.dirname(path))
    for folder in folders:
        sync_folder(folder)


def unwanted(root: str, files: list[dict[str, Any]]) -> list[str]:
    """Return the paths under the root that no wanted file has, the manifest and its signature apart."""
    wanted = {entry["path"] for entry in files} | {"manifest.json", "manifest.json.sig"}
    found: list[str] = []
    for folder, _, names in os.walk(root):
        found.extend(os.path.relpath(os.path.join(folder, name), root) for name in names)
    return sorted(set(found) - wanted)


def replace_text(path: str, text: str, *, check_mode: bool) -> bool:
    """Write a text file unless it is so already; return whether it was not."""
    data = text.encode()
    if os.path.exists(path):
        with open(path, "rb") as source:
            if source.read() == data:
                return False
    if not check_mode:
        write_durably(path, data)
    return True


def replace_texts(root: str, texts: dict[str, str], files: list[dict[str, Any]], *, check_mode: bool) -> bool:
    """Write the manifest, its signature and the list of this host's parts; return whether any was another."""
    names = {os.path.join(root, name): text for name, text in texts.items()}
    names[f"{root}.parts.json"] = json.dumps(sorted(entry["path"] for entry in files), indent=1) + "\n"
    changed = False
    for path, text in names.items():
        changed |= replace_text(path, text, check_mode=check_mode)
    return changed


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "archive": {"type": "str"},
            "texts": {"type": "dict"},
            "prune": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    root, files = module.params["root"], module.params["files"]
    changed = False
    if module.params["archive"]:
        try:
            with host_lock():
                unpack(root, module.params["archive"], files)
        except (OSError, ValueError, tarfile.TarError) as failed:
            module.fail_json(msg=f"cannot unpack the bundle under {root}: {failed}")
        module.exit_json(changed=True, missing=[], removed=[])
    missing = missing_files(root, files)
    extra = unwanted(root, files) if module.params["prune"] else []
    try:
        if extra and not module.check_mode:
            for name in extra:
                os.unlink(os.path.join(root, name))
        if module.params["texts"] is not None and not missing:
            changed = replace_texts(root, module.params["texts"], files, check_mode=module.check_mode)
    except OSError as failed:
        module.fail_json(msg=f"cannot write the bundle under {root}: {failed}")
    module.exit_json(changed=changed or bool(extra), missing=missing, removed=extra)


if __name__ == "__main__":
    main()
