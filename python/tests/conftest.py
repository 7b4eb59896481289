"""Makes the module utilities importable under the name that Ansible gives them on a host."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

import rackserve

ansible.module_utils.__path__.append(str(Path(rackserve.__file__).parent / "ansible" / "module_utils"))
