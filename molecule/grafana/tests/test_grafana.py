"""The stand-in says what it is, and what Grafana would read is where, and as, Grafana would read it."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[3]
DASHBOARDS = ROOT / "roles/grafana/files/dashboards"
SECRETS = "/etc/grafana/credentials"
# The fields of Grafana's own structures (pkg/services/provisioning/{datasources,dashboards}/types.go): it reads a file
# with others and says nothing of them.
SOURCE_FIELDS = {
    *("orgId", "orgName", "version", "name", "type", "access", "url", "user", "database", "basicAuth", "basicAuthUser"),
    *("withCredentials", "isDefault", "correlations", "jsonData", "secureJsonData", "editable", "uid"),
}
PROVIDER_FIELDS = {
    *("name", "type", "orgId", "folder", "folderUid", "editable", "options", "disableDeletion"),
    *("updateIntervalSeconds", "allowUiUpdates"),
}


def get(host: Host, path: str) -> str:
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:3000{path}').read().decode())"
    return host.check_output(f'python3 -c "{code}"')


def settings(host: Host) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read_string(host.file("/etc/grafana/grafana.ini").content_string)
    return found


def provisioned(host: Host, kind: str) -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load(host.file(f"/etc/grafana/provisioning/{kind}/rackserve.yml").content_string)


def test_the_stand_in_says_what_it_is(host: Host) -> None:
    assert get(host, "/") == "STAND-IN, not Grafana"
    assert json.loads(get(host, "/api/health")) == {"database": "ok", "version": "stand-in"}
    assert "STAND-IN" in host.check_output("systemctl show --property=Description --value grafana-server")


def test_it_runs_as_nobody_in_particular(host: Host) -> None:
    assert host.check_output("systemctl show --property=DynamicUser --value grafana-server") == "yes"
    checked = host.run("systemd-analyze verify grafana-server.service")
    assert (checked.rc, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "protocol", "http"),
        ("server", "http_addr", "127.0.0.1"),
        ("auth.anonymous", "enabled", "false"),
        ("users", "allow_sign_up", "false"),
        ("analytics", "reporting_enabled", "false"),
        ("analytics", "check_for_updates", "false"),
        ("analytics", "check_for_plugin_updates", "false"),
        ("plugins", "preinstall_disabled", "true"),
        ("plugins", "public_key_retrieval_disabled", "true"),
        ("news", "news_feed_enabled", "false"),
        ("security", "admin_password", "$__file{/run/credentials/grafana-server.service/admin_password}"),
    ],
)
def test_a_setting_is_what_an_air_gap_needs(host: Host, section: str, key: str, value: str) -> None:
    assert settings(host)[section][key] == value


def test_the_data_source_is_one_that_grafana_reads(host: Host) -> None:
    (source,) = provisioned(host, "datasources")["datasources"]
    assert source.keys() <= SOURCE_FIELDS
    assert (source["type"], source["url"], source["editable"]) == ("prometheus", "http://127.0.0.1:9090", False)


def test_the_folder_is_one_that_grafana_reads(host: Host) -> None:
    (provider,) = provisioned(host, "dashboards")["providers"]
    assert provider.keys() <= PROVIDER_FIELDS
    assert (provider["type"], provider["folderUid"], provider["allowUiUpdates"]) == ("file", "rackserve", False)
    assert host.file(provider["options"]["path"]).is_directory


def test_every_dashboard_is_there_and_asks_the_provisioned_source(host: Host) -> None:
    (source,) = provisioned(host, "datasources")["datasources"]
    (provider,) = provisioned(host, "dashboards")["providers"]
    names = host.check_output(f"ls {provider['options']['path']}").split()
    assert names == sorted(path.name for path in DASHBOARDS.glob("*.json"))
    for name in names:
        board = json.loads(host.file(f"{provider['options']['path']}/{name}").content_string)
        assert board == json.loads((DASHBOARDS / name).read_text(encoding="utf-8"))
        assert {p["datasource"]["uid"] for p in board["panels"] if p["type"] != "row"} == {source["uid"]}


def test_the_secrets_are_nobodys_but_grafanas(host: Host) -> None:
    assert host.file(SECRETS).mode == 0o700
    pid = host.check_output("systemctl show --property=MainPID --value grafana-server")
    for name in ("admin_password", "secret_key"):
        assert host.file(f"{SECRETS}/{name}").mode == 0o600
        found = host.check_output(
            f"grep --recursive --files-with-matches --fixed-strings --file={SECRETS}/{name} "
            f"/etc/grafana /etc/systemd/system/grafana-server.service* /proc/{pid}/cmdline /proc/{pid}/environ || true"
        )
        assert found == f"{SECRETS}/{name}"


@pytest.fixture(scope="module")
def behind_tls(host: Host, play: Play, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return an address of the host on which it listens by TLS, with a password that the operator brought."""
    address = host.check_output("hostname -I").split()[0]
    password = tmp_path_factory.mktemp("grafana") / "password"
    password.write_text("correct horse battery\n", encoding="utf-8")
    host.check_output("touch /etc/grafana/dashboards/earlier.json")
    variables = {
        "grafana_listen_address": address,
        "grafana_tls_certificate_src": "{{ stack_pki_dir }}/edge1.crt",
        "grafana_tls_key_src": "{{ stack_pki_dir }}/edge1.key",
        "grafana_admin_password_src": str(password),
    }
    before = host.file(f"{SECRETS}/secret_key").sha256sum
    done = play("molecule/grafana/converge.yml", variables)
    assert done.returncode == 0, done.stdout[-3000:]
    assert host.file(f"{SECRETS}/secret_key").sha256sum == before
    yield address
    assert play("molecule/grafana/converge.yml", {}).returncode == 0


def test_it_listens_by_tls_with_the_operators_certificate(host: Host, behind_tls: str) -> None:
    code = f"import ssl; print(ssl.get_server_certificate(('{behind_tls}', 3000)))"
    shown = host.check_output(f'python3 -c "{code}"').strip()
    assert shown in host.file("/etc/grafana/tls.crt").content_string
    assert host.file(f"{SECRETS}/tls.key").mode == 0o600
    assert settings(host)["security"]["cookie_secure"] == "true"


@pytest.mark.usefixtures("behind_tls")
def test_the_operators_password_replaces_the_made_one(host: Host) -> None:
    assert host.file(f"{SECRETS}/admin_password").content_string == "correct horse battery\n"


@pytest.mark.usefixtures("behind_tls")
def test_a_dashboard_of_an_earlier_version_is_removed(host: Host) -> None:
    assert not host.file("/etc/grafana/dashboards/earlier.json").exists
    assert host.file("/etc/grafana/dashboards/fleet.json").exists


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"grafana_stand_in": False}, "grafana_package is empty and grafana_stand_in is false"),
        ({"grafana_package": __file__, "grafana_package_sha256": "0" * 64}, "grafana_package_sha256 is 0000"),
        ({"grafana_package": "/nowhere.deb", "grafana_package_sha256": "0" * 64}, "has sha256 missing"),
        ({"grafana_listen_address": "10.0.0.1"}, "which other hosts can reach, and there is no certificate"),
        (
            {"grafana_tls_certificate_src": "{{ stack_pki_dir }}/edge1.crt", "grafana_tls_key_src": __file__},
            "are not a certificate and its own, unencrypted key",
        ),
        ({"grafana_admin_password_src": "/dev/null"}, "/dev/null contains a password of 0 characters"),
    ],
    ids=["neither", "another package", "no such package", "in clear", "no pair", "no password"],
)
@pytest.mark.usefixtures("host")
def test_what_cannot_work_is_refused(play: Play, variables: dict[str, object], reason: str) -> None:
    done = play("molecule/grafana/converge.yml", variables, "--tags", "grafana_preflight")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split())
