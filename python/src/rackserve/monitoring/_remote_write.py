"""Prometheus's `remote_write` from the receivers of samples of an inventory. Exposed as filters.

Keys and meaning: https://prometheus.io/docs/prometheus/2.42/configuration/configuration/#remote_write
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from rackserve.monitoring._client import HttpClient
from rackserve.monitoring._receivers import Named, Url, parse_receivers

if TYPE_CHECKING:
    from collections.abc import Sequence


class RemoteWrite(Named, HttpClient):
    """One receiver of samples."""

    url: Url = Field(description="HTTP URL of the receiver, without a user or a password.")
    write_relabel_configs: list[dict[str, Any]] = Field(
        default=[], description="Relabelling of the samples, as in Prometheus's configuration."
    )
    queue_config: dict[str, Any] = Field(
        default={}, description="Queue of unsent samples, as in Prometheus's configuration."
    )

    def placed(self, folder: str) -> dict[str, str]:
        """Return the path of each of its files on the host."""
        return {kind: f"{folder}/{self.name}.{kind}" for kind in self.files()}

    def entry(self, folder: str) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "url": self.url, **self.http_config(self.placed(folder))}
        if self.write_relabel_configs:
            found["write_relabel_configs"] = self.write_relabel_configs
        if self.queue_config:
            found["queue_config"] = self.queue_config
        return found


def remote_write_entries(raw: Sequence[object], folder: str) -> list[dict[str, Any]]:
    """Return the entries of Prometheus's `remote_write`.

    Args:
        raw: the receivers as the inventory has them.
        folder: where their files are on the host.

    Raises:
        InputError: naming the receiver and what is wrong with it.
    """
    return [receiver.entry(folder) for receiver in _parse(raw)]


def remote_write_files(raw: Sequence[object], folder: str) -> dict[str, str]:
    """Return their files on the controller, by their path on the host."""
    return {receiver.placed(folder)[kind]: path for receiver in _parse(raw) for kind, path in receiver.files().items()}


def _parse(raw: Sequence[object]) -> list[RemoteWrite]:
    return parse_receivers(raw, RemoteWrite, "prometheus_remote_write")
