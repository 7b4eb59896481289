"""From the inventory's receivers to Alertmanager's configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rackserve.errors import InputError
from rackserve.monitoring import alertmanager_config, receiver_secrets

HOOK: dict[str, Any] = {
    "name": "on-call",
    "severities": ["critical"],
    "webhook": {"url": "http://p/h", "token_src": "/t"},
}
MAIL: dict[str, Any] = {
    "name": "team",
    "severities": ["critical", "warning"],
    "mail": {"to": "a@b", "from": "c@d", "smarthost": "m:25", "username": "u", "password_src": "/p"},
}


def routes(*receivers: object, dead_man: str = "") -> dict[str, Any]:
    return alertmanager_config(receivers, dead_man, "/etc/s", group_wait="10s", dead_man_interval="1m")


def silences(source: dict[str, str], target: dict[str, str]) -> bool:
    """Tell whether one alert silences another, by Alertmanager's words on inhibition and matchers."""

    def fits(matchers: list[str], labels: dict[str, str]) -> bool:
        for name, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', ",".join(matchers)):
            found = labels.get(name, "")
            same = bool(re.fullmatch(value, found)) if "~" in operator else found == value
            if same == operator.startswith("!"):
                return False
        return True

    return any(
        fits(rule["source_matchers"], source)
        and fits(rule["target_matchers"], target)
        and all(source.get(label) == target.get(label) for label in rule["equal"])
        for rule in routes()["inhibit_rules"]
    )


def test_without_receivers_nothing_is_sent() -> None:
    found = routes()
    assert found["receivers"] == [{"name": "nobody"}]
    assert found["route"]["receiver"] == "nobody"


def test_every_receiver_gets_its_severities_and_none_gets_watchdog() -> None:
    watch, *others = routes(HOOK, MAIL)["route"]["routes"]
    assert (watch["matchers"], watch["receiver"]) == (['alertname="Watchdog"'], "nobody")
    assert [(route["receiver"], route["matchers"], route["continue"]) for route in others] == [
        ("on-call", ['severity=~"critical"'], True),
        ("team", ['severity=~"critical|warning"'], True),
    ]


def test_secrets_stand_in_files_only() -> None:
    assert receiver_secrets([HOOK, MAIL]) == {"on-call.token": "/t", "team.password": "/p"}
    receivers = {receiver["name"]: receiver for receiver in routes(HOOK, MAIL)["receivers"]}
    hook, mail = receivers["on-call"]["webhook_configs"][0], receivers["team"]["email_configs"][0]
    assert hook["http_config"] == {"authorization": {"credentials_file": "/etc/s/on-call.token"}}
    assert mail["auth_password_file"].endswith("/team.password")


def test_the_dead_mans_switch_is_notified_repeatedly() -> None:
    found = routes(dead_man="http://d/")
    watch = found["route"]["routes"][0]
    assert (watch["receiver"], watch["repeat_interval"], watch["group_interval"]) == ("dead-man", "1m", "1m")
    assert found["receivers"][-1]["webhook_configs"] == [{"url": "http://d/", "send_resolved": False}]


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        ({**HOOK, "webhok": {}}, "receiver 'on-call': unknown key 'webhok', is it 'webhook'?"),
        ({"name": "x", "severities": ["critical"]}, "receiver 'x': neither mail nor webhook is set"),
        ({**HOOK, "severities": ["page"]}, "(found 'page')"),
        ({**HOOK, "repeat_interval": "often"}, "(found 'often')"),
        ({**HOOK, "name": "nobody"}, "the name nobody is taken"),
        ({**MAIL, "mail": {**MAIL["mail"], "smarthost": "m"}}, "receiver 'team': mail.smarthost: "),
        ({**MAIL, "mail": {**MAIL["mail"], "username": ""}}, "username and password_src belong together"),
        ("on-call", "receiver number 1: "),
        ({**HOOK, "webhook": {"url": "http://u:hunter2@p/h"}}, "receiver 'on-call': webhook.url: "),
        ({**MAIL, "mail": {**MAIL["mail"], "password": "hunter2"}}, "receiver 'team': unknown key 'mail.password'"),
        ({**MAIL, "mail": "hunter2"}, "receiver 'team': mail: "),
    ],
)
def test_a_wrong_receiver_is_refused_by_name(receiver: object, said: str) -> None:
    with pytest.raises(InputError) as refused:
        routes(receiver)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_dead_mans_switch_with_a_password_in_its_address_is_refused() -> None:
    with pytest.raises(InputError, match="alertmanager_dead_man_url: not an http:// or https:// URL") as refused:
        routes(dead_man="https://u:hunter2@d/")
    assert "hunter2" not in str(refused.value)


def test_two_receivers_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="the name on-call is taken"):
        routes(HOOK, HOOK)


NODE = {"alertname": "TargetDown", "job": "node", "host": "gpu1"}
PROBE = {"alertname": "ProbeMissing", "host": "gpu1", "vllm_instance": "chat"}


@pytest.mark.parametrize(
    ("source", "target", "silent"),
    [
        (NODE, PROBE, True),
        (NODE, PROBE | {"host": "gpu2"}, False),
        (NODE | {"job": "nginx"}, PROBE, False),
        (NODE, PROBE | {"alertname": "VllmInstanceDown"}, False),
        (PROBE, NODE, False),
        ({"alertname": "HostDown", "host": "gpu1"}, NODE, True),
        ({"alertname": "HostDown", "host": "gpu2"}, NODE, False),
        ({"alertname": "HostDown", "host": "gpu1"}, {"alertname": "Watchdog", "host": "gpu1"}, False),
    ],
)
def test_an_alert_silences_what_follows_from_it_and_nothing_else(
    source: dict[str, str], target: dict[str, str], *, silent: bool
) -> None:
    assert silences(source, target) is silent
