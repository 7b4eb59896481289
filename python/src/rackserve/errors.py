"""Every error this package raises on purpose.

    RackserveError            root: one clear message that names the next step
    ├── InputError            the operator's data is wrong: nothing was changed
    ├── LabError              a lab host or its network could not be made or removed
    ├── BundleError           a bundle could not be built, or is not what it says
    └── RunError              Ansible could not be started, or its result not read

A failed check is not an error: it is a result, and ends a command with 1. Any of these ends it with 2.
"""

from __future__ import annotations


class RackserveError(Exception):
    """Root of the package's errors."""


class InputError(RackserveError):
    """The operator's data is wrong; the message says what was found and what to set."""


class LabError(RackserveError):
    """A lab host or its network could not be made or removed."""


class BundleError(RackserveError):
    """A bundle could not be built, or does not hold what its manifest says."""


class RunError(RackserveError):
    """Ansible could not be started, or its result could not be read."""
