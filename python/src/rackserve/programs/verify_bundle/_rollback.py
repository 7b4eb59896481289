"""Rollback protection: a machine accepts no bundle that is older than the newest one that it accepted."""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import Any

from ._files import write_durably
from ._manifest import BundleRejected, excerpt, is_version, load_json


class RollbackProtection:
    """The newest version of each bundle that a machine accepted, and the history of all.

    Two files in one folder: `bundle-floor.json` (name -> version and id of the newest, id of the one installed) and
    `bundle-history.jsonl`. The newer of both counts, so neither can be removed, emptied or set back alone.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "bundle-floor.json")
        self._history = os.path.join(folder, "bundle-history.jsonl")

    def read(self) -> dict[str, Any]:
        """Return the accepted versions by bundle; empty on a new machine.

        Raises:
            BundleRejected: when a record cannot be read; it is never ignored.
        """
        accepted: dict[str, Any] = {}
        for row in self._rows():
            newest = accepted.get(row["name"], row)
            best = row if row["version"] >= newest["version"] else newest
            accepted[row["name"]] = {"version": best["version"], "id": best["id"], "installed": row["id"]}
        for name, known in self._floor().items():
            recorded = accepted.get(name, known)
            newest = recorded if recorded["version"] > known["version"] else known
            accepted[name] = {**newest, "installed": known.get("installed")}
        return accepted

    def _floor(self) -> dict[str, Any]:
        try:
            found = load_json(_bytes(self._path), "it", "")
            rows = found if isinstance(found, dict) else {"it": found}
            for name, known in rows.items():
                _reject_invalid_row(known, name)
        except BundleRejected as bad:
            raise BundleRejected(
                f"{self._path}, the newest accepted versions, cannot be read ({bad}); restore it, or remove it to have "
                f"it made again from {os.path.basename(self._history)}"
            ) from bad
        return rows

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for number, line in enumerate(_bytes(self._history, b"").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = load_json(line, f"line {number}", "")
                _reject_invalid_row(row, f"line {number}", "name")
            except BundleRejected as bad:
                raise BundleRejected(
                    f"{self._history}, the bundles that were accepted, cannot be read ({bad}); restore it or remove "
                    "that line"
                ) from bad
            rows.append(row)
        return rows

    def check(self, manifest: dict[str, Any], identity: str, downgrade_reason: str | None) -> None:
        """Reject a version older than the newest one, and other contents under its number.

        Raises:
            BundleRejected: with the versions found.
        """
        refuse_rollback(manifest["name"], manifest["version"], identity, self.read(), downgrade_reason)

    def record(self, manifest: dict[str, Any], identity: str, signer: str, downgrade_reason: str | None) -> bool:
        """Raise the minimum version and add a line to the history; return whether there was anything to record."""
        accepted = self.read()
        known = accepted.get(manifest["name"], {})
        if known.get("installed") == identity and os.path.exists(self._path):
            return False
        now = {"version": manifest["version"], "id": identity}
        if known.get("installed") != identity:
            newest = now if manifest["version"] >= known.get("version", 0) else known
            accepted[manifest["name"]] = {**newest, "installed": identity}
            at = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
            row = {"at": at, "name": manifest["name"], **now, "signer": signer, "downgrade_reason": downgrade_reason}
            lines = [json.dumps(line, sort_keys=True) + "\n" for line in (*self._rows(), row)]
            write_durably(self._history, "".join(lines))
        write_durably(self._path, json.dumps(accepted, indent=1, sort_keys=True) + "\n")
        return True


def _bytes(path: str, missing: bytes = b"{}") -> bytes:
    try:
        with open(path, "rb") as source:
            return source.read()
    except FileNotFoundError:
        return missing
    except OSError as failed:
        raise BundleRejected(f"{path} cannot be read: {failed.strerror}") from failed


def _reject_invalid_row(row: Any, what: str, *texts: str) -> None:  # noqa: ANN401 - any JSON
    if not (
        isinstance(row, dict)
        and is_version(row.get("version"))
        and all(isinstance(row.get(key), str) for key in ("id", *texts))
        and isinstance(row.get("installed"), (str, type(None)))
    ):
        raise BundleRejected(f"{what} is {excerpt(row)}, not a version and an id")


def refuse_rollback(name: str, version: int, identity: str, accepted: dict[str, Any], reason: str | None) -> None:
    """Reject a bundle older than the newest that a machine accepted, and other contents under one version.

    Args:
        name: the bundle's name.
        version: its version.
        identity: its id.
        accepted: name -> version and id of the newest accepted bundle.
        reason: why an older version is allowed; without one it is rejected.

    Raises:
        BundleRejected: with the versions found.
    """
    known = accepted.get(name, {})
    least = known.get("version", 0)
    if version < least and not reason and known.get("installed") != identity:
        raise BundleRejected(
            f"it is version {version} of {name}, older than version {least}, which was accepted before; bring a newer "
            "one, or give --allow-downgrade REASON"
        )
    if version == least and known.get("id") != identity:
        raise BundleRejected(
            f"it is version {version} of {name} with other contents ({identity}) than the one that was accepted before "
            f"({known.get('id')}); raise `version` in bundle.yml and build it again"
        )
