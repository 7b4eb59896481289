"""The one way to a host: its files under a root, and what its programs say."""

from __future__ import annotations

import os
import subprocess
from typing import Callable, Optional

TIMEOUT_S = 20
Run = Callable[[tuple[str, ...]], tuple[int, str]]


class UnreadError(Exception):
    """A part of the host cannot be read, so nothing can be said of it; the message names the part and the reason."""


def run_program(argv: tuple[str, ...]) -> tuple[int, str]:
    """Return a program's exit code and standard output; -1 and a reason when it is missing or does not come back."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
        )
    except OSError as failed:
        return -1, f"{argv[0]}: {failed.strerror}"
    except subprocess.TimeoutExpired:
        return -1, f"{argv[0]} did not answer within {TIMEOUT_S} s"
    return done.returncode, done.stdout if done.returncode == 0 or done.stdout else done.stderr.strip()


class Host:
    """A host whose files lie under `root`, and whose programs `run` calls; each is asked once."""

    def __init__(self, root: str = "/", run: Run = run_program) -> None:
        self.root = root.rstrip("/")
        self._run = run
        self._answers: dict[tuple[str, ...], tuple[int, str]] = {}
        self._names: dict[str, dict[str, str]] = {}

    def at(self, path: str) -> str:
        """Return where a path of the host lies."""
        return f"{self.root}{path}"

    def run(self, *argv: str, codes: tuple[int, ...] = (0,)) -> str:
        """Return what a program prints.

        Raises:
            UnreadError: it is missing, does not come back, or ends with none of the exit codes.
        """
        if argv not in self._answers:
            self._answers[argv] = self._run(argv)
        code, said = self._answers[argv]
        if code not in codes:
            raise UnreadError(f"{' '.join(argv[:2])}: {said.splitlines()[-1] if said else f'exit {code}'}")
        return said

    def text(self, path: str) -> Optional[str]:  # noqa: UP045 - Python 3.9 runs this
        """Return the text of a file, None where there is none that can be read."""
        try:
            with open(self.at(path), encoding="utf-8", errors="replace") as source:
                return source.read()
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, none where there is no such folder."""
        try:
            return sorted(os.listdir(self.at(path)))
        except OSError:
            return []

    def user(self, uid: int) -> str:
        """Return the name of a user, its number where it has none."""
        return self._name("/etc/passwd", uid)

    def group(self, gid: int) -> str:
        """Return the name of a group, its number where it has none."""
        return self._name("/etc/group", gid)

    def rows(self, path: str) -> list[list[str]]:
        """Return the rows of a file such as /etc/passwd."""
        return [line.split(":") for line in (self.text(path) or "").splitlines() if ":" in line]

    def _name(self, path: str, number: int) -> str:
        if path not in self._names:
            self._names[path] = {row[2]: row[0] for row in reversed(self.rows(path)) if len(row) > 2}  # noqa: PLR2004
        return self._names[path].get(str(number), str(number))
