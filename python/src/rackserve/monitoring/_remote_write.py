"""From the receivers of samples that an inventory names to Prometheus's `remote_write`. Exposed as filters.

Keys and meaning: https://prometheus.io/docs/prometheus/2.42/configuration/configuration/#remote_write
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from rackserve.monitoring._receivers import Named, Url, parse_receivers

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Receiver(Named):
    url: Url
    username: str = ""
    password_src: str = ""
    token_src: str = ""
    ca_src: str = ""
    write_relabel_configs: list[dict[str, Any]] = Field(default_factory=list)
    queue_config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way_to_be_known(self) -> _Receiver:
        if bool(self.username) != bool(self.password_src):
            raise ValueError("username and password_src belong together; set both or neither")
        if self.username and self.token_src:
            raise ValueError("username and token_src are both set; set one")
        return self

    @property
    def files(self) -> dict[str, str]:
        found = {"password": self.password_src, "token": self.token_src, "ca": self.ca_src}
        return {f"{self.name}.{kind}": path for kind, path in found.items() if path}

    def entry(self, folder: str) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "url": self.url}
        if self.username:
            found["basic_auth"] = {"username": self.username, "password_file": f"{folder}/{self.name}.password"}
        if self.token_src:
            found["authorization"] = {"credentials_file": f"{folder}/{self.name}.token"}
        if self.ca_src:
            found["tls_config"] = {"ca_file": f"{folder}/{self.name}.ca"}
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


def remote_write_files(raw: Sequence[object]) -> dict[str, str]:
    """Return their files on the controller, by the name that they get on the host."""
    return {name: path for receiver in _parse(raw) for name, path in receiver.files.items()}


def _parse(raw: Sequence[object]) -> list[_Receiver]:
    return parse_receivers(raw, _Receiver, "prometheus_remote_write")
