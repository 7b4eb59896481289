"""`python3 -m host_state`."""

from __future__ import annotations

import sys

from ._commands import main

if __name__ == "__main__":
    sys.exit(main())
