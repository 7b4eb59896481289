"""The rules of the role prometheus, and every series that there is for them and for the dashboards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from rackserve.programs import host_metrics
from rackserve.programs.host_state import metrics
from rackserve.programs.vllm_probe import Record, exposition
from rackserve.vllm import releases

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/prometheus"
EXPORTERS = ROOT / "python/tests/data/exporter_metrics"
VERIFICATION = ROOT / "roles/bundle/templates/rackserve-bundle-verify.service.j2"
SUFFIXES = ("", "_bucket", "_count", "_sum")


def plain(path: Path) -> str:
    """Return a rule file; of a template, what its loops leave once, with its variables as numbers."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".j2":
        return text
    return re.sub(r"\{\{.*?\}\}", "1m", re.sub(r"(?m)^\{%.*%\}\n|^\{\{.*\n", "", text))


FILES = [*sorted((ROLE / "files/rules").glob("*.yml")), ROLE / "templates/limits.yml.j2"]
RULES: list[dict[str, Any]] = [
    rule for path in FILES for group in yaml.safe_load(plain(path))["groups"] for rule in group["rules"]
]
LIMITS = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__prometheus_limits"]


def recorded() -> set[str]:
    """Return the names of the recording rules."""
    ratios = ("ttft_late", "edge_ttft_late", "edge_errors", "itl_late")
    windows = {f"rackserve:{what}:ratio{span}" for what in ratios for span in ("5m", "30m", "1h", "6h")}
    plain_names = {rule["record"] for rule in RULES if "record" in rule and not rule["record"].endswith("1m")}
    return windows | plain_names | {f"rackserve:limit:{key}" for key in LIMITS}


def known_series() -> set[str]:
    """Return every exposed series: vLLM's releases, the exporters, the probe and the hosts' own metrics."""
    vllm = {name + end for release in releases().values() for name in release.metrics.values() for end in SUFFIXES}
    vllm |= {name for release in releases().values() for name in release.steps}
    exporters = {line for path in EXPORTERS.glob("*.txt") for line in path.read_text(encoding="utf-8").split("\n")}
    probe = {line.split("{")[0] for line in exposition("a", "m", Record()).splitlines()}
    bundle = set(re.findall(r"rackserve_bundle_\w+(?= %)", VERIFICATION.read_text(encoding="utf-8")))
    drift = set(re.findall(r"(?m)^\w+", metrics({"differences": [], "unread": {}}, "", 0)))
    return vllm | exporters | probe | bundle | drift | host_metrics.names() | recorded() | {"up"}
