"""One key sends twenty times what it may; another sees no refusal, and what it costs it is printed."""

from __future__ import annotations

import asyncio
import json
import shlex
import ssl
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxy_cost import turn
from rackserve.bench import Level, Load, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

    from testing.fleet import Gpus

LIMIT, TIMES, ROUNDS = 10, 20, 5
LOAD = Load(levels=(16.0,), requests=12, output_tokens=32)
CODE = shlex.quote((Path(__file__).parent / "flood.py").read_text(encoding="utf-8"))


@contextmanager
def flood(host: Host, address: str) -> Iterator[dict[str, Any]]:
    """Have a host flood the edge; what it was told is there when the block is left."""
    sent = f"printf rsk-flooding | exec python3 -c {CODE} {address} {LIMIT * TIMES} 30 > /run/told"
    told: dict[str, Any] = {}
    host.check_output(f"systemd-run --quiet --unit=flood bash -c {shlex.quote(sent)}")
    time.sleep(2)
    try:
        yield told
    finally:
        host.run("systemctl kill --signal=TERM flood")
        host.run("for _ in $(seq 40); do test -s /run/told && break; sleep 0.5; done")
        told |= json.loads(host.check_output("cat /run/told"))


@pytest.mark.usefixtures("paced")
def test_another_key_sees_no_refusal(gpus: Gpus, network: str, authority: Path) -> None:
    context = ssl.create_default_context(cafile=authority)
    edge = Target("the edge", f"https://{network}.21", "paced", "rackserve.lab", context, "rsk-many")

    def measured() -> Level:
        """Ask; a request that is refused is an error."""
        return asyncio.run(turn(edge, LOAD)).level

    pairs, floods = [], []
    for number in range(ROUNDS):
        first = measured() if number % 2 else None
        with flood(gpus["gpu1"], f"{network}.21") as told:
            flooded = measured()
        floods.append(told)
        pairs.append((first or measured(), flooded))
    for what in ("ttft_ms", "itl_ms", "e2e_ms"):
        quiet, under = ([getattr(pair[way], what).p95 for pair in pairs] for way in (0, 1))
        ratios = [two / one for one, two in zip(quiet, under, strict=True)]
        print(
            f"{what} p95: {statistics.median(quiet):.1f} and {statistics.median(under):.1f} under the flood,", end=" "
        )
        print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print("requests of the other key:", [[level.sent for level in pair] for pair in pairs], "floods:", floods)
    for told in floods:
        assert told["sent"] / told["seconds"] > 0.9 * LIMIT * TIMES, "it is the flood that it should be"
        assert told["told"]["429"] > 0.8 * told["sent"]
