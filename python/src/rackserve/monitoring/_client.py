"""Authentication of Prometheus to a server: every secret is a file on the controller, copied to the host."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field, model_validator

from rackserve._schema import Strict

_KINDS: Final = ("password", "token", "ca", "cert", "key")


class Tls(Strict):
    """TLS of a connection, besides its files."""

    server_name: str = Field(default="", description="Name in the server's certificate, where it is not the address.")
    insecure_skip_verify: bool = Field(default=False, description="Accept any certificate of the server.")


class HttpClient(Strict):
    """The keys of an inventory for authentication and TLS of Prometheus's requests."""

    username: str = Field(default="", description="User of basic authentication, together with `password_src`.")
    password_src: str = Field(default="", description="File on the controller with the password.")
    token_src: str = Field(default="", description="File on the controller with a bearer token.")
    ca_src: str = Field(default="", description="CA certificate of the server on the controller, PEM.")
    cert_src: str = Field(default="", description="Client certificate on the controller, PEM, together with `key_src`.")
    key_src: str = Field(default="", description="Private key of the client certificate on the controller, PEM.")
    tls_config: Tls = Field(default=Tls(), description="TLS of the connection.")

    @model_validator(mode="after")
    def _one_way_to_authenticate(self) -> HttpClient:
        for one, other in (("username", "password_src"), ("cert_src", "key_src")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ValueError(f"{one} and {other} belong together; set both or neither")
        if self.username and self.token_src:
            raise ValueError("username and token_src are both set; set one")
        return self

    def files(self) -> dict[str, str]:
        """Return the files of the controller, by what they are: password, token, ca, cert, key."""
        return {kind: path for kind in _KINDS if (path := str(getattr(self, f"{kind}_src")))}

    def http_config(self, placed: dict[str, str]) -> dict[str, Any]:
        """Return Prometheus's keys; `placed` has the path of each of `files` on the host."""
        found: dict[str, Any] = {}
        if "password" in placed:
            found["basic_auth"] = {"username": self.username, "password_file": placed["password"]}
        if "token" in placed:
            found["authorization"] = {"credentials_file": placed["token"]}
        tls = self.tls_config.model_dump(exclude_defaults=True)
        tls |= {f"{kind}_file": placed[kind] for kind in ("ca", "cert", "key") if kind in placed}
        return found | ({"tls_config": tls} if tls else {})
