"""Two independent programs look at the edge: sslyze at its TLS, gixy at its configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from testing.edge import configured
from testing.lab import FOLDER

if TYPE_CHECKING:
    from testinfra.host import Host

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
WAIVED: dict[str, str] = yaml.safe_load((HERE / "gixy_waivers.yml").read_text(encoding="utf-8"))
CURVES_OF_OPENSSL = r"s/ssl_ecdh_curve .*;//"
OLD_TLS = (
    r"s/ssl_protocols .*;/ssl_protocols TLSv1.1 TLSv1.2 TLSv1.3;/; s/ssl_ciphers .*;/ssl_ciphers ALL:@SECLEVEL=0;/"
)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what python/locks/edge-audit.txt pins, by hash, and return the folder of its programs."""
    home = tmp_path_factory.mktemp("audit")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    lock = ["--require-hashes", "--requirement", str(ROOT / "python/locks/edge-audit.txt")]
    subprocess.run([str(home / "bin/pip"), "install", "--quiet", *lock], check=True)
    return home / "bin"


def sslyze(host: Host, programs: Path) -> subprocess.CompletedProcess[str]:
    """Hold the edge's TLS against Mozilla's intermediate profile, and its certificate against the lab's authority."""
    authority = FOLDER / "pki/ca.crt"
    address = host.check_output("hostname -I").split()[0]
    options = ["--mozilla_config", "intermediate", "--sni", "rackserve.lab", "--certinfo_ca_file", str(authority)]
    return subprocess.run(
        [str(programs / "sslyze"), *options, f"{address}:443"], capture_output=True, text=True, check=False
    )


def test_tls_is_as_mozillas_intermediate_profile_has_it(host: Host, programs: Path) -> None:
    done = sslyze(host, programs)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "OK - Compliant" in done.stdout


@pytest.mark.parametrize(("change", "reason"), [(CURVES_OF_OPENSSL, "tls_curves"), (OLD_TLS, "tls_versions")])
def test_sslyze_sees_what_is_not(host: Host, programs: Path, change: str, reason: str) -> None:
    with configured(host, change):
        done = sslyze(host, programs)
    assert done.returncode == 1
    assert reason in done.stdout


def gixy(host: Host, programs: Path) -> list[str]:
    """Return the names of the checks that find something in the edge's configuration."""
    text = host.file("/etc/nginx/nginx.conf").content_string
    done = subprocess.run(
        [str(programs / "gixy"), "--format", "json", "-"], input=text, capture_output=True, text=True, check=False
    )
    return sorted({str(found["plugin"]) for found in json.loads(done.stdout)})


def test_gixy_finds_nothing_but_what_is_waived_with_a_reason(host: Host, programs: Path) -> None:
    assert gixy(host, programs) == sorted(WAIVED), "a waiver that is not needed goes"
    assert all(len(reason) > 40 for reason in WAIVED.values())


def test_gixy_sees_what_is_wrong(host: Host, programs: Path) -> None:
    with configured(host, r"s/^ +deny all;//; s/server_tokens off/server_tokens on/"):
        found = gixy(host, programs)
    assert {"status_page_exposed", "version_disclosure"} & set(found) - set(WAIVED)
