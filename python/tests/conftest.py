"""What all tests share: the names of Ansible's module utilities, and tools that not every machine has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import ansible.module_utils
import pytest

import rackserve

if TYPE_CHECKING:
    from collections.abc import Callable

# The name that Ansible gives them on a host.
for _folder in ("ansible/module_utils", "programs"):
    ansible.module_utils.__path__.append(str(Path(rackserve.__file__).parent / _folder))

# Programs beyond Python and git, and the Debian package of each.
PACKAGES: Final = {
    "apt-ftparchive": "apt-utils",
    "chromium": "chromium",
    "dpkg": "dpkg",
    "dpkg-deb": "dpkg",
    "gpg": "gnupg",
    "nginx": "nginx libnginx-mod-http-lua lua-cjson",
    "ssh-keygen": "openssh-client",
}


def require_tools(*tools: str) -> None:
    """Skip the running test where one of the tools is missing; in CI, where all of them belong, fail it."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    packages = " ".join(sorted({PACKAGES[tool] for tool in missing}))
    reason = f"needs {', '.join(missing)}: apt-get install {packages}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true no test is skipped for a missing tool", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def needs() -> Callable[..., None]:
    """Give `require_tools` to a fixture; a test has the mark `needs`."""
    return require_tools


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        require_tools(*mark.args)
