"""Debian 12's own NVIDIA driver on a host without a GPU: built, held, changed, gone back from, signed, removed.

The tests run in their order, on one host. Nothing here loads a module: the lab's kernel is not Debian's.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rackserve.bundle._debs import index_repository
from testing.generations import unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

HERE = Path(__file__).parents[1]
VARS = yaml.safe_load((HERE / "vars.yml").read_text(encoding="utf-8"))
INSTALL = "playbooks/install_driver.yml"
KERNEL = "6.1.0-56-amd64"
OLD, NEW = "535.261.03", "535.309.01"
SETS = "/var/lib/rackserve/drivers"
MODULE = f"/lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko"


def install(play: Play, *options: str, **more: object) -> str:
    """Run the playbook with the scenario's variables, and return what it said."""
    done = play(INSTALL, {**VARS, **more}, "--limit", "gpu1", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(play: Play, playbook: str = INSTALL, **more: object) -> str:
    """Run a playbook that has to fail, and return what it said on one line."""
    done = play(playbook, {**VARS, **more}, "--limit", "gpu1")
    assert done.returncode != 0, done.stdout
    return " ".join(done.stdout.split())


def status(host: Host) -> str:
    return host.check_output("dkms status")


def versions(host: Host) -> dict[str, str]:
    shown = host.check_output("dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n'")
    rows = (line.split() for line in shown.splitlines())
    return {row[0]: row[1] for row in rows if row[-1] == "installed"}


def held(host: Host) -> set[str]:
    return set(host.check_output("apt-mark showhold").split())


def test_the_module_is_built_for_the_kernel_whose_headers_are_there(host: Host) -> None:
    assert f"nvidia-current/{OLD}, {KERNEL}, x86_64: installed" in status(host)
    assert host.file(MODULE).exists
    assert host.check_output(f"modinfo -F version {MODULE}") == OLD
    assert host.check_output(f"modinfo -F vermagic {MODULE}").startswith(f"{KERNEL} ")


@pytest.mark.parametrize(
    "name", ["nvidia-kernel-dkms", "libcuda1", "libnvidia-ml1", "nvidia-smi", "nvidia-alternative"]
)
def test_every_part_of_the_driver_has_its_version_and_is_held(host: Host, name: str) -> None:
    assert versions(host)[name].startswith(f"{OLD}-")
    assert name in held(host)


def test_headers_and_what_has_a_version_of_its_own_are_held_too(host: Host) -> None:
    assert {f"linux-headers-{KERNEL}", "nvidia-persistenced", "nvidia-modprobe"} <= held(host)


def test_no_kernel_came_with_it(host: Host) -> None:
    assert [name for name in versions(host) if name.startswith("linux-image")] == []


def test_an_unattended_upgrade_leaves_driver_and_kernel_alone(host: Host) -> None:
    blacklist = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert '"^nvidia-"' in blacklist
    assert '"^linux-(image|headers|modules)-"' in blacklist


def test_nouveau_is_kept_away_and_the_image_is_newer_than_that(host: Host) -> None:
    assert "blacklist nouveau\n" in host.file("/etc/modprobe.d/rackserve-nvidia.conf").content_string
    assert host.file("/root/update-initramfs.log").content_string == f"-u -k {KERNEL}\n"
    image = host.file(f"/boot/initrd.img-{KERNEL}")
    assert image.mtime >= host.file("/etc/modprobe.d/rackserve-nvidia.conf").mtime


def test_instances_start_after_the_gpus_are_there(host: Host) -> None:
    unit = unit_of("any", "0000000000")  # a stand-in for one of the role vllm's, which is not on this host
    path = f"/run/systemd/system/{unit}"
    host.check_output(f"printf '[Service]\\nExecStart=/bin/true\\n' > {path} && systemctl daemon-reload")
    after = host.check_output(f"systemctl show --property=After --value {unit}")
    host.check_output(f"rm {path} && systemctl daemon-reload")
    assert {"rackserve-gpu-nodes.service", "nvidia-persistenced.service"} <= set(after.split())
    started = host.run("systemctl start rackserve-gpu-nodes.service")
    assert started.rc == 0, started.stderr  # a host without a GPU has no node to be made
    assert host.check_output("systemctl is-failed rackserve-gpu-nodes.service || true") == "inactive"


def test_an_interrupted_image_is_made_by_the_next_run(host: Host, play: Play) -> None:
    host.check_output(f"touch -d '2020-01-01' /boot/initrd.img-{KERNEL}")
    assert "Update initramfs images older than the blacklist" in install(play)
    assert host.file("/root/update-initramfs.log").content_string == f"-u -k {KERNEL}\n" * 2


def test_the_gate_refuses_the_host_for_cuda_and_takes_it_for_its_cpu(host: Host, play: Play) -> None:
    cuda = {"stack_runtime": {"vllm": "0.32.0", "flavour": "cuda", "python": "3.11"}}
    said = refused(play, "playbooks/check_preflight.yml", stack_bundle_path=f"{VARS['driver_lab']}/old", **cuda)
    assert "GPU an NVIDIA GPU none on the PCI bus refused" in said
    assert f"580 or newer (CUDA 13 of vLLM 0.32.0) {OLD}, to be installed from the bundle refused" in said
    assert f"kernel headers those of {host.check_output('uname -r')}" in said
    fits = play("playbooks/check_preflight.yml", None, "--limit", "gpu1")
    assert fits.returncode == 0, fits.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nvidia_driver_gpu_required": True}, "an NVIDIA GPU none on the PCI bus refused"),
        ({"nvidia_driver_kernels": []}, "and the bundle has those of 6.1.0-56-amd64"),
        ({"nvidia_driver_vllm": "0.32.0"}, "580 or newer (CUDA 13 of vLLM 0.32.0)"),
        (
            {"nvidia_driver_version": "570.1.1"},
            "no driver 570.1.1 for Debian 12: the bundle has 535.261.03 proprietary",
        ),
        ({"nvidia_driver_modules": "open"}, "no driver open for Debian 12"),
        ({"nvidia_driver_verison": "1"}, "nvidia_driver_verison (is it nvidia_driver_version?)"),
        ({"nvidia_driver_extra_packages": ["datacenter-gpu-manager"]}, "is not among the bundle's packages"),
    ],
)
def test_what_cannot_be_installed_is_refused_before_anything_changes(
    host: Host, play: Play, change: dict[str, Any], said: str
) -> None:
    before = (versions(host), held(host))
    assert said in refused(play, **change)
    assert (versions(host), held(host)) == before


def test_a_pending_reboot_is_refused_without_consent_and_done_with_it(host: Host, play: Play) -> None:
    host.check_output("touch /run/reboot-required")
    assert "pending reboot none /run/reboot-required" in refused(play)
    assert host.file("/run/reboot-required").exists
    started = host.check_output("systemctl show --property=UserspaceTimestampMonotonic --value")
    install(play, nvidia_driver_reboot_allowed=True)
    assert not host.file("/run/reboot-required").exists
    assert host.check_output("systemctl show --property=UserspaceTimestampMonotonic --value") != started


def test_a_reboot_that_the_installation_asks_for_is_reported_and_ends_the_run_for_the_host(
    host: Host, play: Play
) -> None:
    host.check_output(f"touch /root/needs-reboot; touch -d '2020-01-01' /boot/initrd.img-{KERNEL}")
    said = refused(play)
    host.check_output("rm /root/needs-reboot")
    assert "gpu1 must be rebooted before its driver can serve: /run/reboot-required" in said
    assert "set nvidia_driver_reboot_allowed: true" in said
    host.check_output("rm /run/reboot-required")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a signing key of the site's own, its certificate, and a password's hash."""
    folder = tmp_path_factory.mktemp("mok")
    words = ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-outform", "DER"]
    words += ["-subj", "/CN=rackserve driver lab/", "-keyout", f"{folder}/key", "-out", f"{folder}/der"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "hash").write_text("$6$stand-in$hash\n", encoding="utf-8")
    return {
        "nvidia_driver_signing_key": f"{folder}/key",
        "nvidia_driver_signing_certificate": f"{folder}/der",
        "nvidia_driver_mok_hash_file": f"{folder}/hash",
    }


def test_a_newer_set_replaces_the_old_one_signed_by_the_sites_key(host: Host, play: Play, key: dict[str, str]) -> None:
    new = VARS["driver_lab"] + "/new"
    placed = play("playbooks/place_bundle.yml", {**VARS, "stack_bundle_path": new}, "--limit", "gpu1")
    assert placed.returncode == 0, placed.stdout
    install(play, stack_bundle_path=new, **key)
    assert f"nvidia-current/{NEW}, {KERNEL}, x86_64: installed" in status(host)
    assert OLD not in status(host)
    assert {name for name, version in versions(host).items() if version.startswith(OLD)} == set()
    assert host.check_output(f"modinfo -F signer {MODULE}") == "rackserve driver lab"
    assert "nvidia-smi" in held(host)
    private = host.file("/var/lib/rackserve/mok/mok.key")
    assert (private.user, private.mode) == ("root", 0o600)
    again = install(play, stack_bundle_path=new, **key)
    assert "changed=0" in again


def test_both_sets_are_kept_and_no_more(host: Host) -> None:
    assert set(host.check_output(f"ls {SETS}").split()) == {f"{OLD}-proprietary", f"{NEW}-proprietary", "record.json"}
    record = json.loads(host.file(f"{SETS}/record.json").content_string)
    assert (record["current"], record["previous"]) == (f"{NEW}-proprietary", f"{OLD}-proprietary")


def test_going_back_is_one_command_and_needs_no_old_bundle(host: Host, play: Play) -> None:
    new = VARS["driver_lab"] + "/new"
    install(play, stack_bundle_path=new, nvidia_driver_version=OLD)
    assert f"nvidia-current/{OLD}, {KERNEL}, x86_64: installed" in status(host)
    assert versions(host)["nvidia-smi"].startswith(OLD)
    assert "nvidia-smi" in held(host)


def package(folder: Path, name: str, version: str = "999.1-1", depends: str = "") -> None:
    """Make an empty package: a stand-in for a driver's, or for one that a publisher has put together wrongly."""
    control = folder / name / "DEBIAN/control"
    control.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", "Maintainer: nobody <nobody@localhost>"]
    lines += [f"Depends: {depends}"] if depends else []
    control.write_text("\n".join([*lines, "Description: stand-in", ""]), encoding="utf-8")
    subprocess.run(["dpkg-deb", "--build", folder / name, folder / "apt"], check=True, capture_output=True)


def ad_hoc(module: str, words: dict[str, object]) -> str:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible"),
            "gpu1",
            "-i",
            "molecule/inventory",
            "-m",
            module,
            "-a",
            json.dumps(words),
        ],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def stand_in_set(folder: Path, version: str, depends: str = "") -> dict[str, object]:
    """Bring a set of one empty package to the host, and return it as the role would name it."""
    (folder / version / "apt").mkdir(parents=True)
    package(folder / version, "linux-image-9.9.9-amd64")
    package(folder / version, "nvidia-stand-in", f"{version}-1", depends)
    carried = index_repository(folder / version / "apt")
    ad_hoc("ansible.builtin.copy", {"src": f"{folder}/{version}", "dest": "/root/stand-in/", "mode": "0644"})
    chosen = {"version": version, "flavour": "open", "path": f"/root/stand-in/{version}/apt", "packages": carried}
    return {**chosen, "names": ["nvidia-stand-in"], "install": ["nvidia-stand-in"], "kernels": []}


@pytest.fixture
def stand_in(host: Host) -> Iterator[Callable[[dict[str, object]], str]]:
    """Return a function that installs such a set, by the module itself and real apt; afterwards nothing is left."""
    yield lambda chosen: ad_hoc("rackserve_driver", {"set": chosen, "keep": "/root/kept"})
    host.run("apt-mark unhold nvidia-stand-in; dpkg --purge nvidia-stand-in; rm -rf /root/stand-in /root/kept")


@pytest.mark.parametrize(
    ("depends", "said"),
    [
        ("linux-image-9.9.9-amd64", "nothing was changed: to install driver 999.1, it would change the kernel"),
        ("", "CHANGED"),
    ],
    ids=["brings a kernel", "brings none"],
)
def test_a_set_that_would_bring_a_kernel_is_refused(
    host: Host, tmp_path: Path, stand_in: Callable[[dict[str, object]], str], depends: str, said: str
) -> None:
    before = versions(host)
    assert said in stand_in(stand_in_set(tmp_path, "999.1", depends))
    assert ("nvidia-stand-in" in versions(host)) != bool(depends)
    assert {name for name in versions(host) if name not in before} <= {"nvidia-stand-in"}


def test_sets_go_up_and_back_held_all_the_while_and_the_last_two_are_kept(
    host: Host, tmp_path: Path, stand_in: Callable[[dict[str, object]], str]
) -> None:
    for version in ("999.1", "999.2", "999.3"):
        assert "CHANGED" in stand_in(stand_in_set(tmp_path, version))
        assert versions(host)["nvidia-stand-in"] == f"{version}-1"
        assert "nvidia-stand-in" in held(host)
    assert set(host.check_output("ls /root/kept").split()) == {"999.2-open", "999.3-open", "record.json"}
    host.check_output("rm -rf /root/stand-in")
    kept = json.loads(host.file("/root/kept/999.2-open/set.json").content_string)
    assert "CHANGED" in stand_in(kept)
    assert versions(host)["nvidia-stand-in"] == "999.2-1"
    assert "nvidia-stand-in" in held(host)
    assert "SUCCESS" in stand_in(kept)
    record = json.loads(host.file("/root/kept/record.json").content_string)
    assert (record["current"], record["previous"]) == ("999.2-open", "999.3-open")


@pytest.fixture
def runfile() -> dict[str, str]:
    """Return the variables of a stand-in for NVIDIA's installer; the headers that it builds with came with the set."""
    installer = HERE / "files/installer.run"
    return {
        "nvidia_driver_source": "runfile",
        "nvidia_driver_version": "570.86.10",
        "nvidia_driver_modules": "open",
        "nvidia_driver_runfile": str(installer),
        "nvidia_driver_runfile_sha256": hashlib.sha256(installer.read_bytes()).hexdigest(),
    }


def test_an_installer_with_another_sha256_is_not_run(host: Host, play: Play, runfile: dict[str, str]) -> None:
    assert "and nvidia_driver_runfile_sha256 is 0000" in refused(
        play, **{**runfile, "nvidia_driver_runfile_sha256": "0" * 64}
    )
    assert not host.file("/root/installer.log").exists


def test_nvidias_installer_is_run_once(host: Host, play: Play, runfile: dict[str, str]) -> None:
    install(play, **runfile)
    assert f"nvidia/570.86.10, {KERNEL}, x86_64: installed" in status(host)
    (words,) = host.file("/root/installer.log").content_string.splitlines()
    assert {"--silent", "--dkms", f"--kernel-name={KERNEL}", "-m=kernel-open"} <= set(words.split())
    assert not host.file("/var/lib/rackserve/nvidia-installer.run").exists
    assert "changed=0" in install(play, **runfile)
    assert len(host.file("/root/installer.log").content_string.splitlines()) == 1


def test_removal_leaves_nothing_of_it(host: Host, play: Play) -> None:
    done = play("playbooks/remove_driver.yml", VARS, "--limit", "gpu1")
    assert done.returncode == 0, done.stdout
    left = [name for name in versions(host) if "nvidia" in name or name in ("libcuda1", "dkms")]
    assert left == []
    assert held(host) == set()
    for path in ("/etc/modprobe.d/rackserve-nvidia.conf", "/etc/apt/apt.conf.d/52rackserve-nvidia", SETS, MODULE):
        assert not host.file(path).exists
    assert not host.file("/var/lib/rackserve/mok").exists
    again = play("playbooks/remove_driver.yml", VARS, "--limit", "gpu1")
    assert "changed=0" in again.stdout
