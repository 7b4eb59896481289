"""Instances serve under their names, and an inventory that changes changes them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from testing.generations import INSTANCES, engine_unit, generation

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

PORTS = {"tiny": 8000, "tiny-without-prefix-cache": 8001}

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {"repo": "rackserve/tiny-random-llama", "revision": "d88aadc75415c0ec9d71cb4d2a82c133e537634f"},
    "max_model_len": 256,
    "max_num_seqs": 2,
}
PARSE = "/opt/vllm/current/bin/python -I -B /usr/local/lib/rackserve/parse_arguments.py --unit u --user vllm "


def journal(host: Host, name: str) -> str:
    return host.run(f"journalctl --no-pager --output=cat --lines=30 --unit='vllm@{name}.*'").stdout


def ask(host: Host, name: str, address: str = "") -> str:
    address = address or host.check_output("hostname -I").split()[0]
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 2, "ignore_eos": True})
    code = (
        "import sys, urllib.request as u;"
        f"r = u.Request('http://{address}:{PORTS[name]}/v1/completions', sys.stdin.buffer.read(),"
        " {'Content-Type': 'application/json'}); print(u.urlopen(r, timeout=60).read().decode())"
    )
    return host.run(f"echo '{body}' | python3 -c \"{code}\"").stdout


@pytest.mark.parametrize("name", PORTS)
def test_an_instance_generates_under_its_served_name(host: Host, name: str) -> None:
    answer = ask(host, name)
    assert answer, journal(host, name)
    assert json.loads(answer)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(("name", "on"), [("tiny", "True"), ("tiny-without-prefix-cache", "False")])
def test_the_prefix_cache_is_as_the_inventory_says(host: Host, name: str, on: str) -> None:
    found = host.check_output(
        f"journalctl --no-pager --output=cat --unit='vllm@{name}.*' | grep -o 'enable_prefix_caching=[A-Za-z]*'"
    )
    assert set(found.split()) == {f"enable_prefix_caching={on}"}


def test_an_instance_that_is_not_in_the_inventory_is_gone(host: Host) -> None:
    assert host.check_output(f"ls {INSTANCES}").split() == sorted(PORTS)
    assert host.check_output("find /etc/systemd -name '*@retired.*'") == ""
    assert host.check_output("systemctl list-units --all --plain --no-legend '*@retired.*'") == ""


@pytest.mark.parametrize("name", PORTS)
def test_the_environment_is_for_root_alone(host: Host, name: str) -> None:
    file = host.file(f"{INSTANCES}/{name}/current/engine.env")
    assert (file.user, file.mode) == ("root", 0o600)


def test_check_mode_waits_for_no_instance_that_it_did_not_start(host: Host, play: Play) -> None:
    instance = {**TINY, "name": "later"}
    done = play("molecule/vllm/converge.yml", {"vllm_instances": [instance], "vllm_start_timeout": 30}, "--check")
    assert done.returncode == 0, done.stdout[-2000:]
    assert not host.file(f"{INSTANCES}/later").exists


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", ""),
        ("no-such-flag: true", "u: vLLM 0.32.0 refuses its arguments: unrecognized arguments: --no-such-flag"),
        ("max-num-batched-tokens: many", "argument --max-num-batched-tokens: invalid"),
        ("max-model: 99999", "u: vLLM 0.32.0 misreads its arguments: --max-model is no full name of a flag, which"),
        ("device-memory-utilization: 0.1", ""),
        ("no-enable-prefix-caching: true", "--no-enable-prefix-caching sets --enable-prefix-caching to False, and"),
        (
            "allowed-media-domains: [x, --ssl-keyfile, /x]",
            "the value of --allowed-media-domains sets --ssl-keyfile too",
        ),
    ],
    ids=[
        "as written",
        "a flag that nobody has",
        "a value that is no number",
        "a prefix",
        "another name of a flag that a CPU host is not given",
        "a negation",
        "a flag among values",
    ],
)
def test_vllms_own_parser_refuses_what_it_does_not_take(host: Host, more: str, said: str) -> None:
    read = host.run(f"{{ cat {INSTANCES}/tiny/current/engine.yaml; echo '{more}'; }} >/run/tried && {PARSE} /run/tried")
    assert read.rc == (1 if said else 0), read.stderr
    assert said in read.stderr if said else not read.stderr


def test_a_refused_argument_changes_no_file_and_restarts_nothing(host: Host, play: Play) -> None:
    state = (
        f"find {INSTANCES} -type f -exec sha256sum {{}} + -o -type l -printf '%p %l\\n' | sort; ls /etc/systemd/system;"
        f" systemctl show --property=MainPID --value {engine_unit('tiny')};"
        f" find /opt/vllm/releases -newer {INSTANCES}/tiny/current/engine.yaml -not -type l | head"
    )
    before = host.check_output(state)
    done = play("molecule/vllm/converge.yml", {"vllm_instances": [{**TINY, "extra_args": {"seed": "many"}}]})
    words = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "nothing was restarted on gpu1" in words, words[-3000:]
    refused = r"vllm@tiny\.[0-9a-f]{10}\.service: vLLM 0\.32\.0 refuses its arguments: argument --seed: invalid"
    assert re.search(refused, words), words[-3000:]
    assert host.check_output(state) == before


def test_a_flag_of_another_release_is_refused_before_anything_is_written(play: Play) -> None:
    done = play("molecule/vllm/converge.yml", {"vllm_instances": [{**TINY, "extra_args": {"swap-space": 4}}]})
    words = " ".join(done.stdout.split())
    assert "extra_args.swap-space is 4, which vLLM 0.32.0 does not have: it went after 0.10.2" in words, words[-3000:]
    assert "changed=0" in words


def test_a_play_whose_instance_cannot_start_fails_and_leaves_it_stopped(host: Host, play: Play) -> None:
    instance = {**TINY, "extra_args": {"tokenizer": "/nowhere"}}
    done = play("molecule/vllm/converge.yml", {"vllm_instances": [instance], "vllm_start_timeout": 30})
    words = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "stopped on gpu1: tiny; fix the cause" in words
    assert "/nowhere" in words.rpartition("Its last lines:")[2]
    assert host.run(f"systemctl is-active {engine_unit('tiny')}").stdout.strip() in {"inactive", "failed"}
    assert generation(host, "tiny", "previous") not in {"", generation(host, "tiny")}
    assert host.check_output(f"ls {INSTANCES}").split() == ["tiny"]
