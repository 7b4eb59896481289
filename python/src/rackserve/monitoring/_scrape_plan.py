"""Prometheus's scrape jobs, their files of targets, and the files with their secrets. Exposed as filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from rackserve._schema import Converting, sentences
from rackserve.errors import InputError
from rackserve.monitoring._scrape_jobs import INTERVAL, parse_jobs
from rackserve.monitoring._values import is_address, seconds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_HOST: Final = {"host": "host"}
# The labels of the targets of each job, and the key of the inventory's target that has the value.
_LABELS: Final[Mapping[str, Mapping[str, str]]] = {
    "prometheus": {},
    "alertmanager": {},
    "vllm": {**_HOST, "vllm_instance": "instance", "model": "model", "release": "release"},
    "node": _HOST,
    "nginx": _HOST,
    "edge": _HOST,
    "gpu": _HOST,
}
_CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {"vllm": {"scrape_interval": "5s"}}


class _Address(Converting):
    """Address of a target. Other keys of an item are ignored: the edge reads the same instances."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    address: str = Field(description="Address of the host.")
    port: int = Field(description="Port of the metrics.")

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if not is_address(address := f"{self.address}:{self.port}"):
            raise ValueError(f"{address!r} is not host:port; set address and port like 10.0.0.11 and 9100")
        return self


class Target(_Address):
    """One exporter of a host."""

    host: str = Field(description="Name of the host, for the label `host`.")


class VllmTarget(Target):
    """One vLLM instance."""

    instance: str = Field(description="Name of the instance, for the label `vllm_instance`.")
    model: str = Field(description="First served name of the model, for the label `model`.")
    release: str = Field(description="vLLM version of the host, for the label `release`.")


@dataclass(frozen=True)
class ScrapePlan:
    """The files of the role prometheus.

    Attributes:
        configs: the items of scrape_configs.
        targets: the content of each file of targets, by job.
        secrets: files of the controller, by their path on the host.
    """

    configs: list[dict[str, Any]]
    targets: dict[str, list[dict[str, Any]]]
    secrets: dict[str, str]


def scrape_plan(
    fleet: Mapping[str, Sequence[Mapping[str, Any]]],
    site_jobs: Sequence[object],
    *,
    target_dir: str,
    secret_dir: str,
    inventory: Path,
) -> ScrapePlan:
    """Return the scrape jobs and their files.

    Args:
        fleet: targets of rackserve's own jobs, by job.
        site_jobs: prometheus_scrape_jobs.
        target_dir: directory of the files of targets on the host.
        secret_dir: directory of the jobs' secrets on the host.
        inventory: directory that paths of the controller are relative to.

    Raises:
        InputError: naming the job or target and what is wrong with it.
    """
    configs: list[dict[str, Any]] = []
    targets: dict[str, list[dict[str, Any]]] = {}
    secrets: dict[str, str] = {}
    for name, labels in _LABELS.items():
        targets[name] = [_group(name, number, target, labels) for number, target in enumerate(fleet[name], start=1)]
        configs.append({"job_name": name, **_CONFIGS.get(name, {})})
    for job in parse_jobs(site_jobs, reserved=_LABELS):
        placed = {kind: f"{secret_dir}/{job.job_name}.{kind}" for kind in job.files()}
        for kind, path in job.files().items():
            if not (inventory / path).is_file():
                raise InputError(
                    f"prometheus_scrape_jobs: job {job.job_name}: {kind}_src: {inventory / path} is not a file on the "
                    "controller; correct the path, which is absolute or relative to the inventory"
                )
            secrets[placed[kind]] = str(inventory / path)
        targets[job.job_name] = job.groups()
        configs.append(job.config(placed))
    for config in configs:
        config["file_sd_configs"] = [{"files": [f"{target_dir}/{config['job_name']}.yml"]}]
    return ScrapePlan(configs, targets, secrets)


def _group(job: str, number: int, target: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    model = VllmTarget if job == "vllm" else Target if labels else _Address
    try:
        read = model.model_validate(target)
    except ValidationError as wrong:
        found = "; ".join(sentences(wrong, model))
        raise InputError(f"prometheus_{job}_targets: target {number}: {found}") from None
    return {
        "targets": [f"{read.address}:{read.port}"],
        "labels": {label: str(getattr(read, key)) for label, key in labels.items()},
    }


def unsettled_targets(answer: Mapping[str, Any], targets: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the differences between Prometheus's targets and a plan; none once it has read every file of targets.

    Args:
        answer: of /api/v1/targets. A first scrape is waited for in jobs with the usual interval or a shorter one.
        targets: of the plan.
    """
    active, dropped = answer["data"]["activeTargets"], answer["data"]["droppedTargets"]
    wanted = {f"{job} {address}" for job, groups in targets.items() for group in groups for address in group["targets"]}
    read = {f"{t['discoveredLabels']['job']} {t['discoveredLabels']['__address__']}" for t in [*active, *dropped]}
    waiting = [
        f"{target['scrapePool']} {target['scrapeUrl']}"
        for target in active
        if target["health"] == "unknown" and seconds_of(target["scrapeInterval"]) <= seconds_of(INTERVAL)
    ]
    return [
        *(f"{name} is not read yet" for name in sorted(wanted - read)),
        *(f"{name} is not in the inventory" for name in sorted(read - wanted)),
        *(f"{name} is not scraped yet" for name in sorted(waiting)),
    ]
