#!/usr/bin/python
"""Have nginx run the program and libraries that are installed, without losing a request."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_upgrade
short_description: Replace nginx's processes after an upgrade of their files
description:
  - Where the running nginx uses a program or a library that was replaced on the disk, by whatever package and in
    whatever run, a new nginx takes over its listening sockets. The old one ends with its streams.
  - Where the new one does not start or does not answer, the old one serves on, and the module fails. A host whose nginx
    does not run, or whose configuration is not rackserve's, is left unchanged.
options:
  wait:
    description: >-
      Seconds that an nginx from an earlier upgrade may take to end its streams; nginx has at most two at a time.
    type: int
    default: 320
author: rackserve
"""
EXAMPLES = r"""
- name: Have nginx run what is installed
  edge_upgrade: {}
"""
RETURN = r"""
files: {description: Replaced files that nginx used., type: list, returned: always}
left: {description: Replaced files that the new nginx uses too., type: list, returned: always}
running: {description: Whether nginx runs., type: bool, returned: always}
seconds: {description: Seconds that it took., type: float, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_edge import Edge, EdgeError, Places
from ansible.module_utils.rackserve_host import host_lock
from ansible.module_utils.rackserve_upgrade import upgrade


def main(places: Places | None = None) -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"wait": {"type": "int", "default": 320}}, supports_check_mode=True)
    places = places or Places()
    edge = Edge(places)
    if not edge.installed:
        module.exit_json(changed=False, running=False, files=[], left=[], seconds=0.0)
    try:
        if module.check_mode:
            found = upgrade(edge, wait=0, check=True)
        else:
            with host_lock(places.lock):  # no reload meanwhile
                found = upgrade(edge, wait=module.params["wait"])
    except (EdgeError, OSError) as wrong:
        module.fail_json(msg=str(wrong))
    if found["left"]:
        module.warn(f"the new nginx still uses a replaced file: {', '.join(found['left'])}")
    module.exit_json(**found)


if __name__ == "__main__":
    main()
