"""Replace nginx's processes by new ones without losing a request. Standard library only, Python 3.9 and newer.

nginx's own way (https://nginx.org/en/docs/control.html, "Upgrading Executable on the Fly"): USR2 starts a new master on
the same listening sockets, WINCH ends the old one's workers with their streams, HUP starts them again, and QUIT ends
the old master with them. systemd reads the PID file again when the old master ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from ansible.module_utils.rackserve_edge import EdgeError, text_of, until
from ansible.module_utils.rackserve_nginx import (
    is_alive,
    master_of,
    predecessor_of,
    replaced_files,
    serving_workers,
)
from ansible.module_utils.rackserve_rotation import digest_of

if TYPE_CHECKING:
    from ansible.module_utils.rackserve_edge import Edge

START_S = 30.0
# While the new workers alone take requests and have not shown yet that they answer.
ANSWER_S = 10.0


def upgrade(edge: Edge, *, wait: float, check: bool = False) -> dict[str, Any]:
    """Have nginx run the program and the libraries that are installed, where it runs others.

    It also ends what a run that died has left: two masters that both take requests.

    Args:
        edge: the edge of this host.
        wait: seconds that a process from an earlier upgrade, or one that is given up, may take to end its streams.
        check: change nothing.

    Returns:
        changed, running, `files` that were replaced, `left`: those that the new processes still use, seconds.

    Raises:
        EdgeError: the new processes do not serve; those from before do.
    """
    began, master, program = time.monotonic(), master_of(edge.pid_file), edge.places.nginx[0]
    files = replaced_files(master, program) if master else []
    old = predecessor_of(master) if master else 0
    half = bool(old and serving_workers(old))
    found = {"changed": half or bool(files), "running": bool(master), "files": files, "left": [], "seconds": 0.0}
    if check or not master:
        return found
    if half:
        _hand_over(edge, old, master, "", wait)
    elif old and edge.loaded():
        _end(old)
    if files:
        if old and not until(lambda: not is_alive(old), wait):
            raise EdgeError(
                f"nginx runs {', '.join(files)} from before an upgrade, and process {old} still has streams of "
                f"the time before another one after {wait:.0f} s; run it again when it has ended"
            )
        if complaint := edge.test():
            raise EdgeError(f"the installed nginx refuses its configuration and the running one serves on: {complaint}")
        _hand_over(edge, master, _start(edge, master), digest_of(text_of(edge.upstreams)), wait)
        found["left"] = replaced_files(master_of(edge.pid_file), program)
    return {**found, "seconds": round(time.monotonic() - began, 2)}


def _start(edge: Edge, old: int) -> int:
    """Start a master beside the old one and return it."""
    os.kill(old, signal.SIGUSR2)
    if not until(lambda: predecessor_of(master_of(edge.pid_file)) == old, START_S):
        raise EdgeError(
            f"{edge.places.nginx[0]} did not start in {START_S:.0f} s and the nginx from before serves on; "
            "read /var/log/nginx/error.log"
        )
    return int(master_of(edge.pid_file))


def _hand_over(edge: Edge, old: int, new: int, digest: str, wait: float) -> None:
    """Leave new requests to the new master's workers, which have to answer with this digest, or with any if empty."""

    def alone() -> bool:
        told = "" if serving_workers(old) or not serving_workers(new) else edge.loaded()
        return bool(told) and told == (digest or told)

    told = until(lambda: bool(serving_workers(new)), START_S)
    if told:
        os.kill(old, signal.SIGWINCH)
        if until(alone, ANSWER_S):
            _end(old)
            return
    _give_back(edge, old, new, wait, told=told)
    raise EdgeError(
        f"{edge.places.nginx[0]} started and did not answer as its configuration says, so the nginx from before serves "
        "on; read /var/log/nginx/error.log"
    )


def _end(master: int) -> None:
    """Have a master end when its streams have, also one that was told before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(master, signal.SIGQUIT)


def _give_back(edge: Edge, old: int, new: int, wait: float, *, told: bool) -> None:
    if told:
        os.kill(old, signal.SIGHUP)
        until(lambda: bool(serving_workers(old)), START_S)
    for number in (signal.SIGQUIT, signal.SIGTERM):
        with contextlib.suppress(ProcessLookupError):
            os.kill(new, number)
        if until(lambda: master_of(edge.pid_file) == old, wait or START_S):
            return
