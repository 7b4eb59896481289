"""How Prometheus authenticates to a server: every secret is a file of the controller and gets one on the host."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

_KINDS: Final = ("password", "token", "ca", "cert", "key")


class _Tls(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    server_name: str = ""
    insecure_skip_verify: bool = False


class HttpClient(BaseModel):
    """The keys of an inventory that say how Prometheus authenticates, and whom it trusts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    username: str = ""
    password_src: str = ""
    token_src: str = ""
    ca_src: str = ""
    cert_src: str = ""
    key_src: str = ""
    tls_config: _Tls = Field(default_factory=_Tls)

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
