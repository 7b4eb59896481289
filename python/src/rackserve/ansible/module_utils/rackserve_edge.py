"""nginx of an edge: its files, its reload, and its replacement. Standard library only, Python 3.9 and newer."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import time
from dataclasses import dataclass
from json import loads
from typing import TYPE_CHECKING, Any

from ansible.module_utils.rackserve_host import run, tail, write_durably
from ansible.module_utils.rackserve_nginx import serving_workers
from ansible.module_utils.rackserve_rotation import parse_marks

if TYPE_CHECKING:
    from collections.abc import Callable

UPSTREAMS = "upstreams.conf"
RELOAD_S = 30.0
_MOMENT_S = 3.0
_STEP_S = 0.05


class EdgeError(ValueError):
    """What nginx did not do, or what is missing for it; its text is one sentence for an operator."""


@dataclass(frozen=True)
class Places:
    """Where an edge has its files; tests have others."""

    state: str = "/var/lib/rackserve/edge/rotation.json"
    lock: str = "/var/lib/rackserve/edge/rotation.lock"
    conf: str = "/etc/nginx/nginx.conf"
    nginx: tuple[str, ...] = ("/usr/sbin/nginx",)


def text_of(path: str) -> str:
    """Return what a file says, empty where there is none."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as source:
        return source.read()
    return ""


class Edge:
    """The edge of this host, as its nginx.conf has it."""

    def __init__(self, places: Places) -> None:
        """Read nginx.conf."""
        self.places = places
        conf = text_of(places.conf)
        self.upstreams = _found(r"^\s*include (\S+/upstreams\.conf);", conf)
        self.pid_file = _found(r"^pid (\S+);", conf)
        self.port = int(_found(r"^\s*listen 127\.0\.0\.1:(\d+); # edge_rotation", conf) or 0)

    @property
    def installed(self) -> bool:
        """Whether nginx is here with a configuration of ours."""
        return bool(self.upstreams) and os.path.exists(self.places.nginx[0])

    def table(self) -> dict[str, Any]:
        """Return what the inventory says of groups and servers.

        Raises:
            EdgeError: it is not there.
        """
        path = os.path.join(os.path.dirname(self.upstreams), "table.json")
        text = text_of(path)
        if not text:
            raise EdgeError(f"{path} is missing, which {self.places.conf} names; run the role `nginx` on this host")
        return dict(loads(text))

    def marks(self) -> list[dict[str, Any]]:
        """Return the marks of the state on disk."""
        found: list[dict[str, Any]] = parse_marks(text_of(self.places.state), self.places.state)
        return found

    def write(self, path: str, text: str) -> None:
        """Write a file, or remove it where there was none; a worker, which is no root, reads the upstreams."""
        if text:
            write_durably(path, text.encode(), 0o644)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def test(self) -> str:
        """Have nginx test its configuration; return its complaint, empty where it is well."""
        code, out, err = run([*self.places.nginx, "-t", "-q", "-c", self.places.conf])
        return "" if code == 0 else tail(err or out, 3)

    def loaded(self) -> str:
        """Return the digest that a worker has loaded, empty where none answers."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            link.request("GET", "/edge")
            return str(link.getresponse().read().decode(errors="replace")).strip()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            link.close()

    def reload(self, master: int, digest: str) -> bool:
        """Have nginx load its configuration; return whether all workers that take connections have in time."""
        before = serving_workers(master)
        os.kill(master, signal.SIGHUP)

        def is_new() -> bool:
            now = serving_workers(master)
            return bool(now) and not now & before and self.loaded() == digest

        return until(is_new, RELOAD_S)

    def has(self, digest: str) -> bool:
        """Return whether a worker has loaded this, or does in a moment: systemd does not wait for a reload."""
        return until(lambda: self.loaded() == digest, _MOMENT_S)


def until(what: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so; return whether it was in time."""
    ends = time.monotonic() + seconds
    while not what():
        if time.monotonic() > ends:
            return False
        time.sleep(_STEP_S)
    return True


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1) if match else ""
