"""A bare Debian without a network becomes a controller from the bundle alone, and provisions a host from it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from rackserve._paths import program_file
from rackserve.bundle import read_trust, split
from rackserve.programs.verify_bundle import VERIFIER
from testing.lab import BUNDLE, FOLDER, INVENTORY, NAME, PREFIX

if TYPE_CHECKING:
    from testinfra.host import Host

MEDIA = "/media/usb"
UNPACKED = "/srv/bundle"
SITE = "/root/site"
RACKSERVE = "/opt/rackserve/.venv/bin/rackserve"
GPU1 = f"{PREFIX}.11"
TINY = {
    "name": "tiny",
    "model": {"repo": "rackserve/tiny-random-llama", "revision": "d88aadc75415c0ec9d71cb4d2a82c133e537634f"},
    "max_model_len": 256,
    "max_num_seqs": 2,
    "extra_args": {"enforce-eager": True},
}


def left_lab() -> dict[str, int]:
    argv = [str(Path(sys.executable).with_name("rackserve")), "lab", "status", "--name", NAME, "--json"]
    shown = json.loads(subprocess.check_output(argv))
    return {host["name"]: host["packets_left_lab"] for host in shown["hosts"]}


def send(host: Host, path: Path, into: str) -> None:
    ssh = ["ssh", "-F", host.backend.ssh_config, "edge1", f"mkdir -p {into} && tar -C {into} -x --strip-components=1"]
    pack = ["tar", "-C", str(path.parent), "-c", path.name]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
        subprocess.run(ssh, stdin=packed.stdout, check=True)
    assert packed.returncode == 0


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what an operator carries over: the bundle in parts, the verifier and the public key by another way."""
    folder = tmp_path_factory.mktemp("media")
    split(BUNDLE, 650_000_000, folder / "usb")
    (folder / "apart").mkdir()
    (folder / "apart/signers").write_text(read_trust(INVENTORY / "trust.yml").signers)
    shutil.copyfile(program_file(VERIFIER), folder / "apart" / VERIFIER)
    return folder


def test_the_machine_is_bare(host: Host) -> None:
    assert host.run("python3 -m pip --version").rc != 0
    assert host.run("python3 -m venv --help >/dev/null && python3 -m ensurepip --version").rc != 0
    assert host.check_output("ip route show default") == ""


def test_it_unpacks_the_bundle_that_was_signed_and_no_other(host: Host, media: Path) -> None:
    send(host, media / "usb", MEDIA)
    send(host, media / "apart", "/root/apart")
    unpack = f"python3 /root/apart/{VERIFIER} unpack {MEDIA} {UNPACKED} --signers /root/apart/%s"
    host.check_output("sed 's/AAAA[^ ]*/AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAA/' /root/apart/signers >/root/apart/others")
    assert "which is not a trusted key" in host.run(unpack % "others").stderr
    assert not host.file(UNPACKED).exists
    host.check_output(unpack % "signers")


def test_it_becomes_a_controller(host: Host) -> None:
    host.check_output(f"sh {UNPACKED}/controller/bootstrap.sh")
    assert "usage: rackserve" in host.check_output(f"{RACKSERVE} --help")


def test_it_takes_the_bundle_in(host: Host) -> None:
    host.check_output(f"{RACKSERVE} init {SITE}")
    key = re.sub(r"^.*?(ssh-ed25519 \S+).*$", r"\1", read_trust(INVENTORY / "trust.yml").signers.strip())
    files = {
        "trust.yml": {"signers": [{"name": "lab", "key": key}]},
        "hosts.yml": {"vllm_hosts": {"hosts": {"gpu1": None}}},
        "group_vars/vllm_hosts/vllm.yml": {"vllm_instances": [TINY], "vllm_allowed_clients": []},
        "group_vars/all/zz_rack.yml": {"stack_addresses": {"gpu1": GPU1}, "ansible_user": "root"},
    }
    for name, content in files.items():
        text = yaml.safe_dump(content, width=1000)
        host.check_output(f"cat >{SITE}/{name} <<'EOF'\n{text}EOF")
    imported = json.loads(host.check_output(f"{RACKSERVE} bundle import --json -i {SITE} {MEDIA}"))
    assert imported["signer"] == "lab"


def test_it_provisions_a_host_until_a_token_comes_out(host: Host) -> None:
    send(host, FOLDER / "ssh", "/root/.ssh")
    host.check_output(f"rm -f /root/.ssh/config && ssh-keyscan -t ed25519 {GPU1} >/root/.ssh/known_hosts 2>/dev/null")
    applied = host.run(f"{RACKSERVE} apply --json -i {SITE}")
    assert applied.rc == 0, applied.stdout[-3000:] + applied.stderr[-3000:]
    again = json.loads(host.check_output(f"{RACKSERVE} apply --json -i {SITE}"))
    assert [row["changed"] for row in again["hosts"]] == [0]


def test_not_one_packet_was_sent_elsewhere(host: Host) -> None:
    del host
    assert {name: left_lab()[name] for name in ("edge1", "gpu1")} == {"edge1": 0, "gpu1": 0}
