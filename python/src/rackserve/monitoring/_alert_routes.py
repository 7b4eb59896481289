"""Alertmanager's configuration from the receivers of an inventory. Exposed as `rackserve_alert_routes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, model_validator

from rackserve._schema import Strict
from rackserve.errors import InputError
from rackserve.monitoring._receivers import Named, Url, parse_receivers, without_password

if TYPE_CHECKING:
    from collections.abc import Sequence

DEAD_MAN: Final = "dead-man"
_NULL_RECEIVER: Final = "nobody"
# The alert that inhibits others, where these labels are equal.
_INHIBITED_BY: Final = (
    ('alertname="HostDown"', 'alertname!~"HostDown|Watchdog"', ("host",)),
    (
        'alertname=~"InstanceHung|InstanceCorrupt|InstanceFailed|InstanceStartingTooLong"',
        'alertname=~"VllmInstanceDown|VllmHung|ProbeMissing|MetricsMissing|QueueGrowing"',
        ("host", "vllm_instance"),
    ),
    # The probe's state comes through the node exporter.
    ('alertname="TargetDown",job="node"', 'alertname="ProbeMissing"', ("host",)),
    ('alertname="DiskFull"', 'alertname="DiskFilling"', ("host", "mountpoint")),
    ('alertname="CertificateExpiresNow"', 'alertname="CertificateExpires"', ("host", "path")),
    ('alertname="FirstTokenBudgetBurnFast"', 'alertname="FirstTokenBudgetBurn"', ("model",)),
    ('alertname="InterTokenBudgetBurnFast"', 'alertname="InterTokenBudgetBurn"', ("model",)),
)


class Mail(Strict):
    """Alerts by mail."""

    to: str = Field(min_length=1, description="Address that alerts are sent to.")
    sender: str = Field(alias="from", min_length=1, description="Address that alerts are sent from.")
    smarthost: str = Field(pattern=r"^[^\s:]+:\d+$", description="Mail server, as host:port.")
    username: str = Field(default="", description="User at the mail server, together with `password_src`.")
    password_src: str = Field(default="", description="File on the controller with the user's password.")
    require_tls: bool = Field(default=True, description="Whether the connection to the mail server must use TLS.")

    @model_validator(mode="after")
    def _password_with_its_user(self) -> Mail:
        if bool(self.username) != bool(self.password_src):
            raise ValueError("username and password_src belong together; set both or neither")
        return self


class Webhook(Strict):
    """Alerts by HTTP POST."""

    url: Url = Field(description="HTTP URL that alerts are posted to, without a user or a password.")
    token_src: str = Field(default="", description="File on the controller with a bearer token.")


class AlertReceiver(Named):
    """One receiver of alerts."""

    severities: list[Literal["critical", "warning"]] = Field(
        min_length=1, description="Severities of the alerts that it gets: `critical`, `warning` or both."
    )
    repeat_interval: str = Field(
        default="4h",
        pattern=r"^([0-9]+(ms|[smhdwy]))+$",
        description="Time after which an alert that still fires is sent again.",
    )
    mail: Mail | None = Field(default=None, description="Delivery by mail; set this, `webhook` or both.")
    webhook: Webhook | None = Field(default=None, description="Delivery by HTTP POST, as Alertmanager's webhooks.")

    @model_validator(mode="after")
    def _has_a_delivery(self) -> AlertReceiver:
        if self.mail is None and self.webhook is None:
            raise ValueError("neither mail nor webhook is set; set one")
        return self

    @property
    def secrets(self) -> dict[str, str]:
        """Files with secrets on the controller, by the name that they get on the host."""
        found = {"password": self.mail.password_src if self.mail else ""}
        found["token"] = self.webhook.token_src if self.webhook else ""
        return {f"{self.name}.{kind}": path for kind, path in found.items() if path}


def receiver_secrets(raw: Sequence[object]) -> dict[str, str]:
    """Return the files with secrets on the controller, by the name that they get on the host."""
    return {name: path for receiver in _parse(raw) for name, path in receiver.secrets.items()}


def alertmanager_config(
    raw: Sequence[object], dead_man_url: str, secret_dir: str, group_wait: str, dead_man_interval: str
) -> dict[str, Any]:
    """Return Alertmanager's configuration.

    Every receiver gets the alerts of its severities. The dead man's switch gets only Watchdog, repeatedly, so
    that its absence is noticed.

    Args:
        raw: the receivers as the inventory has them.
        dead_man_url: webhook of the dead man's switch; empty for none.
        secret_dir: folder on the host where the files with secrets are.
        group_wait: how long a first alert waits for others of its group.
        dead_man_interval: time between two notifications to the dead man's switch.

    Raises:
        InputError: naming the receiver and what is wrong with it.
    """
    receivers = _parse(raw)
    if dead_man_url:
        try:
            without_password(dead_man_url)
        except ValueError as bad:
            raise InputError(f"alertmanager_dead_man_url: {bad}") from None
    routes: list[dict[str, Any]] = [
        {
            "receiver": receiver.name,
            "matchers": [f'severity=~"{"|".join(receiver.severities)}"'],
            "repeat_interval": receiver.repeat_interval,
            "continue": True,
        }
        for receiver in receivers
    ]
    watch: dict[str, Any] = {"receiver": _NULL_RECEIVER, "matchers": ['alertname="Watchdog"']}
    if dead_man_url:
        watch |= {
            "receiver": DEAD_MAN,
            "group_wait": "0s",
            "group_interval": dead_man_interval,
            "repeat_interval": dead_man_interval,
        }
    configured = [{"name": _NULL_RECEIVER}, *(_receiver(receiver, secret_dir) for receiver in receivers)]
    if dead_man_url:
        configured.append({"name": DEAD_MAN, "webhook_configs": [{"url": dead_man_url, "send_resolved": False}]})
    return {
        "route": {
            "receiver": _NULL_RECEIVER,
            "group_by": ["alertname", "host"],
            "group_wait": group_wait,
            "group_interval": "1m",
            "routes": [watch, *routes],
        },
        "inhibit_rules": [
            {"source_matchers": [source], "target_matchers": [target], "equal": list(equal)}
            for source, target, equal in _INHIBITED_BY
        ],
        "receivers": configured,
    }


def _receiver(receiver: AlertReceiver, secret_dir: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": receiver.name}
    if mail := receiver.mail:
        entry: dict[str, Any] = {
            "to": mail.to,
            "from": mail.sender,
            "smarthost": mail.smarthost,
            "require_tls": mail.require_tls,
            "send_resolved": True,
        }
        if mail.username:
            entry |= {
                "auth_username": mail.username,
                "auth_password_file": f"{secret_dir}/{receiver.name}.password",
            }
        found["email_configs"] = [entry]
    if hook := receiver.webhook:
        entry = {"url": hook.url, "send_resolved": True}
        if hook.token_src:
            entry["http_config"] = {"authorization": {"credentials_file": f"{secret_dir}/{receiver.name}.token"}}
        found["webhook_configs"] = [entry]
    return found


def _parse(raw: Sequence[object]) -> list[AlertReceiver]:
    return parse_receivers(raw, AlertReceiver, "alertmanager_receivers", reserved={DEAD_MAN, _NULL_RECEIVER})
