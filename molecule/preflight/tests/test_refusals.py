"""Wrong input stops the whole run with one clear message, and no host has changed by a byte.

The hosts are bare, so that a task of any other role would show.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from testing.lab import BUNDLE, INVENTORY, NAME, PREFIX, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOSTS = ("gpu1", "gpu2", "edge1")
STATE = (
    # The probe writes what it saw every ten seconds.
    "{ find /etc /opt /usr/local /var/lib/rackserve -xdev -path /var/lib/rackserve/probe -prune -o"
    " -printf '%p %s %m %U %T@\\n' | sort;"
    " dpkg-query --show; } | sha256sum"
)
INSTANCE: dict[str, Any] = {
    "name": "a",
    "model": {"repo": "rackserve/tiny-random-llama", "revision": "d88aadc75415c0ec9d71cb4d2a82c133e537634f"},
    "max_num_seqs": 1,
    "max_model_len": 64,
}
LORA = {"name": "x", "repo": "rackserve/smollm2-lora-one", "revision": "9f9e967e15782fcd85373ea1ca93dea3b9643b38"}
SMALL = "/run/small"


def states() -> dict[str, str]:
    shown = {name: command("rackserve", "lab", "ssh", "--name", NAME, name, "--", STATE) for name in HOSTS}
    assert all(answer.returncode == 0 for answer in shown.values())
    return {name: answer.stdout for name, answer in shown.items()}


def bundle_copy(into: Path) -> Path:
    shutil.copytree(BUNDLE.resolve(), into, copy_function=os.link)
    return into


def without_a_wheel(folder: Path) -> dict[str, Any]:
    next(bundle_copy(folder).glob("wheels/*/torch-*.whl")).unlink()
    return {"stack_bundle_path": str(folder)}


def with_a_flipped_byte(folder: Path) -> dict[str, Any]:
    path = next(bundle_copy(folder).glob("models/*/*/config.json"))
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.unlink()
    path.write_bytes(data)
    return {"stack_bundle_path": str(folder)}


def nobody_at(address: str) -> Callable[[Path], dict[str, Any]]:
    prefix = address.rsplit(".", 1)[0]
    return lambda _: {
        "stack_addresses": {"gpu1": f"{prefix}.11", "gpu2": address, "edge1": f"{prefix}.21"},
        "ansible_ssh_timeout": 5,
    }


CASES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "unknown key": (lambda _: {"vllm_instances": [{**INSTANCE, "max_seqs": 1}]}, "unknown key 'max_seqs' (found 1)"),
    "same port twice": (
        lambda _: {"vllm_instances": [{**INSTANCE, "port": 8000}, {**INSTANCE, "name": "b", "port": 8000}]},
        "port 8000 is used by 2 instances (a, b)",
    ),
    "model not in the bundle": (
        lambda _: {"vllm_instances": [{**INSTANCE, "model": {"repo": "o/other", "revision": "0" * 40}}]},
        "o/other at 0000000000000000000000000000000000000000 is not in the bundle",
    ),
    "adapter of another model": (
        lambda _: {"vllm_instances": [{**INSTANCE, "lora": [LORA]}]},
        "adapter 'x' is for HuggingFaceTB/SmolLM2-135M-Instruct, the instance serves rackserve/tiny-random-llama",
    ),
    "adapter not in the bundle": (
        lambda _: {"vllm_instances": [{**INSTANCE, "lora": [{**LORA, "revision": "0" * 40}]}]},
        "rackserve/smollm2-lora-one at 0000000000000000000000000000000000000000 is not in the bundle",
    ),
    "chat template nowhere": (
        lambda _: {"vllm_instances": [{**INSTANCE, "chat_template": "none.jinja"}]},
        "chat_template 'none.jinja' is neither a file in the inventory's folder",
    ),
    "wheel missing": (without_a_wheel, "is missing"),
    "tampered file": (with_a_flipped_byte, "config.json was altered"),
    "wrong Python": (
        lambda _: {"stack_runtime": {"vllm": "0.32.0", "flavour": "cpu", "python": "3.12"}},
        "/usr/bin/python3.12 not on the host refused",
    ),
    "CUDA without a GPU": (
        lambda _: {
            "stack_runtime": {"vllm": "0.32.0", "flavour": "cuda", "python": "3.11"},
            "vllm_instances": [{**INSTANCE, "gpus": [0]}],
        },
        "GPU an NVIDIA GPU none on the PCI bus refused",
    ),
    "too little disk": (lambda _: {"stack_vllm_root": SMALL}, f"disk {SMALL}"),
    "host unreachable": (nobody_at(f"{PREFIX}.99"), f"{PREFIX}.99 port 22"),
    "not root": (lambda _: {"ansible_user": "plain"}, "cannot be read as root by user plain"),
    "a role's variable misspelt": (lambda _: {"nginx_burts": 1}, "unknown variable(s) nginx_burts"),
    "a shared variable misspelt": (
        lambda _: {"stack_verify_expct": "Paris"},
        "unknown variable(s) stack_verify_expct (is it stack_verify_expect?)",
    ),
}


@pytest.fixture(scope="module")
def before() -> Iterator[dict[str, str]]:
    """Prepare what two cases need on a host, a small filesystem and a user who is not root; return the states then."""
    for name in HOSTS:
        prepare = (
            f"mkdir -p {SMALL} && mount -t tmpfs -o size=1m tmpfs {SMALL};"
            " useradd --create-home --shell /bin/bash plain;"
            " install -D -m 600 -o plain /root/.ssh/authorized_keys /home/plain/.ssh/authorized_keys;"
            " chown plain /home/plain/.ssh"
        )
        assert command("rackserve", "lab", "ssh", "--name", NAME, name, "--", prepare).returncode == 0
    yield states()
    for name in HOSTS:
        command("rackserve", "lab", "ssh", "--name", NAME, name, "--", f"umount {SMALL}; userdel --remove plain")


@pytest.mark.parametrize(("make", "message"), CASES.values(), ids=CASES)
def test_a_wrong_input_is_refused_and_changes_nothing(
    tmp_path: Path, before: dict[str, str], make: Callable[[Path], dict[str, Any]], message: str
) -> None:
    variables = json.dumps(make(tmp_path / "bundle"))
    done = command("ansible-playbook", "site.yml", "-i", str(INVENTORY), "-e", variables)
    words = " ".join(f"{done.stdout} {done.stderr}".split())
    assert done.returncode != 0
    assert " ".join(message.split()) in words, words[-3000:]
    assert "changed=1" not in done.stdout
    assert states() == before


def test_the_right_input_is_not_refused() -> None:
    done = command("ansible-playbook", "playbooks/check_preflight.yml", "-i", str(INVENTORY))
    assert done.returncode == 0, done.stdout
