"""A host, what its site wants of it, and a bundle that has just that: each test changes one thing."""

from __future__ import annotations

from typing import Any

from rackserve.bundle import Entry, Manifest, Model, Repository, Runtime
from rackserve.preflight import HostFacts, HostSpec

REVISION = "0" * 40
GB = 10**9
MANIFEST = Manifest(
    name="lab",
    version=4,
    expires=None,
    runtimes=(Runtime("0.32.0-abc", "0.32.0", "cpu", "3.11", "locks/l.txt", "0" * 64, "wheels/w"),),
    models=(Model("o/m", REVISION, f"models/o--m/{REVISION}", 5),),
    repositories=(Repository("12", "apt/debian-12", {"nginx": "1"}),),
    drivers=(),
    controller=None,
    files=(
        Entry("apt/debian-12/Packages", GB, "0" * 64),
        Entry("wheels/w/a.whl", GB, "1" * 64),
        Entry("locks/l.txt", 1, "0" * 64),
        Entry(f"models/o--m/{REVISION}/config.json", 5, "0" * 64),
    ),
)
INSTANCE: dict[str, Any] = {
    "name": "a",
    "model": {"repo": "o/m", "revision": REVISION},
    "max_num_seqs": 1,
    "max_model_len": 8,
}
WANTED = HostSpec(
    (INSTANCE,),
    *("0.32.0", "cpu", "3.11"),
    serves=True,
    store="/s",
    releases="/r",
    downgrade_reason="",
    cpu_kvcache_gib=1,
    site="/site",
)
FIT = HostFacts(
    0, "debian", "12", "x86_64", {"3.11": "/usr/bin/python3.11"}, {"/s": 9 * GB, "/r": 9 * GB}, 0, (), {}, {}
)
