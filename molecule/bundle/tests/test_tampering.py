"""A bundle that was tampered with stops the whole run before any task on a host; a host refuses it as well."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from testinfra import get_host

from rackserve.bundle._sign import sign
from rackserve.programs.verify_bundle import MANIFEST
from testing import bundles as making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]
    Site = Callable[[str], subprocess.CompletedProcess[str]]

STATE = (
    "{ find /etc /opt /usr/local /var/lib/rackserve -xdev -type f -print0 | sort -z | xargs -0 sha256sum;"
    " find /etc /opt /usr/local /var/lib/rackserve -xdev -printf '%p %m %U %C@ %l\\n' | sort;"
    " dpkg-query --show; } | sha256sum"
)
CASES = "/root/tampered"
METRICS = "/var/lib/prometheus/node-exporter"
VERIFIER = "/usr/local/lib/rackserve/verify_bundle.pyz"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key = making.make_key(folder, "lab")
    (folder / "trust.yml").write_text(f"signers: [{{name: lab, key_file: {key}.pub}}]\n")
    (folder / "signers").write_text(making.trust_in(key).signers)
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    """Give a folder of tampered bundles, as they lie on a controller, and one that is good."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in ["good", *making.TAMPERINGS]:
        tree = folder / name.replace(" ", "-")
        manifest = making.write_tree(tree, version=2_000_000_000)
        (tree / MANIFEST).write_bytes(manifest.to_bytes())
        sign(tree, keys / "lab")
        if name != "good":
            making.TAMPERINGS[name][0](tree)
    return folder


@pytest.fixture(scope="module")
def site(play: Play, bundles: Path, keys: Path) -> Site:
    """Give a function that runs site.yml with one of the bundles."""

    def run(name: str) -> subprocess.CompletedProcess[str]:
        chosen = {
            "stack_bundle_path": str(bundles / name.replace(" ", "-")),
            "stack_trust_file": str(keys / "trust.yml"),
        }
        return play("site.yml", chosen, "--limit", "gpu1")

    return run


@pytest.fixture(scope="class")
def unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the host before the first refusal and after the last, byte for byte."""
    host = get_host("ssh://gpu1", ssh_config=request.config.getoption("--ssh-config"))
    before = host.check_output(STATE)
    yield
    assert host.check_output(STATE) == before


@pytest.mark.usefixtures("host", "unchanged")
class TestOnTheController:
    @pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in making.TAMPERINGS.items()])
    def test_the_run_stops_before_any_task_on_a_host(self, site: Site, name: str, reason: str) -> None:
        done = site(name)
        said = " ".join(done.stdout.split())
        assert done.returncode != 0
        assert "cannot be used" in said
        assert reason in said
        assert "Read the host" not in said, "no task has run on the host"

    def test_a_good_one_passes_that_gate(self, site: Site) -> None:
        said = " ".join(site("good").stdout.split())
        assert "Read the host" in said
        assert "cannot be used" not in said
        assert "cannot be provisioned, nothing was changed" in said, "it has no model that the lab serves"


def test_a_host_refuses_them_all_by_itself(host: Host, bundles: Path, keys: Path) -> None:
    ssh = ["ssh", "-F", host.backend.ssh_config, "gpu1"]
    packed = subprocess.run(["tar", "-C", bundles, "-cS", "."], capture_output=True, check=True).stdout
    unpack = f"rm -rf {CASES} && mkdir {CASES} && tar -C {CASES} -xSp"
    subprocess.run([*ssh, unpack], input=packed, check=True)
    subprocess.run([*ssh, f"cat >{CASES}/signers"], input=(keys / "signers").read_bytes(), check=True)
    try:
        check = f"python3 {VERIFIER} check {CASES}/%s --signers {CASES}/signers"
        assert host.run(check % "good").rc == 0
        wrong = {}
        for name, (_, reason) in making.TAMPERINGS.items():
            done = host.run(check % name.replace(" ", "-"))
            if done.rc != 1 or reason not in done.stderr:
                wrong[name] = done.stderr
        assert wrong == {}
    finally:
        host.check_output(f"rm -rf {CASES}")


@pytest.fixture
def verified(host: Host) -> Iterator[Callable[[], int]]:
    """Give the periodic verification, run now; it returns what it leaves for the node exporter: 1 intact, 0 altered."""
    host.check_output(f"mkdir -p {METRICS}")

    def run() -> int:
        host.run("systemctl start rackserve-bundle-verify.service")
        values = dict(
            line.split() for line in host.file(f"{METRICS}/rackserve_bundle.prom").content_string.splitlines()
        )
        assert int(values["rackserve_bundle_checked_time_seconds"]) > 0
        return int(values["rackserve_bundle_intact"])

    yield run
    host.check_output(f"rm -rf {METRICS}")


def test_a_byte_that_flips_on_the_host_is_found_there_and_mended_by_the_next_run(
    host: Host, verified: Callable[[], int], play: Play
) -> None:
    folder = "/var/lib/rackserve/bundle"
    path = f"{folder}/" + host.check_output(f"cd {folder} && find apt -name 'logrotate*.deb'")
    assert verified() == 1
    host.check_output(f"printf X | dd of={path} bs=1 seek=100 conv=notrunc status=none")
    assert verified() == 0
    assert "was altered" in host.check_output("journalctl --unit rackserve-bundle-verify --no-pager --lines 5")
    assert play("molecule/bundle/converge.yml").returncode == 0
    assert verified() == 1


def test_the_timer_of_the_verification_runs(host: Host) -> None:
    assert host.service("rackserve-bundle-verify.timer").is_running
    assert host.service("rackserve-bundle-verify.timer").is_enabled
