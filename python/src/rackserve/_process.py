"""The one way this package starts other programs."""

from __future__ import annotations

import logging
import subprocess
from typing import TYPE_CHECKING

from rackserve.errors import RackserveError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)
_TAIL_LINES = 15


def run(
    argv: Sequence[str | Path],
    *,
    error: type[RackserveError] = RackserveError,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        argv: the program and its arguments; never a shell line, never a secret.
        error: the class to raise when it fails.
        what: what was being done, for the message: "build the Debian 12 tree".
        env: the whole environment, or the caller's own.
        cwd: the folder to run in.
        stdin: text for its standard input.
        timeout_s: seconds after which it is killed.

    Raises:
        RackserveError: (as `error`) with the program's last lines, when it is missing, fails or takes too long.
    """
    words = [str(word) for word in argv]
    log.debug("run %s", words)
    try:
        done = subprocess.run(
            words, env=env, cwd=cwd, input=stdin, timeout=timeout_s, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as missing:
        raise error(f"cannot {what}: {words[0]} is not installed; run .ci/setup lab, which installs it") from missing
    except subprocess.TimeoutExpired as late:
        raise error(f"cannot {what}: {words[0]} did not end within {timeout_s:.0f} s") from late
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        raise error(f"cannot {what}: {words[0]} ended with {done.returncode}\n{tail}")
    return done.stdout
