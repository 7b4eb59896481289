"""The scrape jobs of a site, as its inventory has them.

Keys and meaning: https://prometheus.io/docs/prometheus/2.42/configuration/configuration/#scrape_config
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from rackserve._schema import Strict, sentences
from rackserve.errors import InputError
from rackserve.monitoring._client import HttpClient
from rackserve.monitoring._values import is_address, seconds_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_VARIABLE: Final = "prometheus_scrape_jobs"
INTERVAL: Final = "15s"  # global.scrape_interval of prometheus.yml.j2
# Errors whose value may be shown: an unknown key or a target may hold a password.
_SHOWN: Final = {"literal_error", "string_pattern_mismatch", "string_type", "greater_than_equal", "bool_type"}


def _duration(text: str) -> str:
    seconds_of(text)
    return text


def _without_password(target: str) -> str:
    if re.search(r"[\s@]", target):
        raise ValueError("it contains a blank or an @; a user and a password go into username and password_src")
    return target


_Duration = Annotated[str, AfterValidator(_duration)]
_Target = Annotated[str, Field(min_length=1), AfterValidator(_without_password)]
_LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class Group(Strict):
    """Targets with the same labels."""

    targets: list[_Target] = Field(
        min_length=1, description="Targets as host:port; with `relabel_configs` any text without blanks."
    )
    labels: dict[_LabelName, str] = Field(default={}, description="Labels of these targets, except `job`.")

    @model_validator(mode="after")
    def _keeps_its_job(self) -> Group:
        if "job" in self.labels:
            raise ValueError("the label job is always the job_name; remove it")
        return self


class Job(HttpClient):
    """One scrape job of a site."""

    # Also the name of its file of targets.
    job_name: str = Field(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$",
        description="Name of the job: letters, digits, `_`, `.` and `-`; rackserve's own jobs are `prometheus`, "
        "`alertmanager`, `vllm`, `node`, `nginx`, `edge` and `gpu`.",
    )
    static_configs: list[Group] = Field(description="Targets of the job, and their labels.")
    scrape_interval: _Duration = Field(default=INTERVAL, description="Time between two scrapes.")
    scrape_timeout: _Duration | None = Field(
        default=None, description="Time that a scrape may take; unset is 10s, or the interval where that is shorter."
    )
    metrics_path: str = Field(default="/metrics", pattern=r"^/\S*$", description="Path of the metrics.")
    scheme: Literal["http", "https"] = Field(default="http", description="Protocol of the targets.")
    params: dict[str, list[str]] = Field(default={}, description="Parameters of the URL; never a secret.")
    honor_labels: bool = Field(default=False, description="Whether labels of the target win over those of the job.")
    sample_limit: int = Field(
        default=0, ge=0, description="Samples of a scrape above which it is rejected; 0 sets no limit."
    )
    relabel_configs: list[dict[str, Any]] = Field(
        default=[], description="Relabelling of the targets, as in Prometheus's configuration."
    )
    metric_relabel_configs: list[dict[str, Any]] = Field(
        default=[], description="Relabelling of the samples, as in Prometheus's configuration."
    )

    @model_validator(mode="after")
    def _can_be_scraped(self) -> Job:
        if self.scrape_timeout and seconds_of(self.scrape_timeout) > seconds_of(self.scrape_interval):
            raise ValueError(
                f"scrape_timeout {self.scrape_timeout} is longer than scrape_interval {self.scrape_interval}; "
                "set a shorter timeout or a longer interval"
            )
        # Relabelling makes an address of anything: so do the jobs of blackbox_exporter and snmp_exporter.
        wrong = [target for group in self.static_configs for target in group.targets if not is_address(target)]
        if wrong and not self.relabel_configs:
            raise ValueError(f"target {wrong[0]!r} is not host:port; write it like 10.0.0.40:9100")
        return self

    def config(self, placed: Mapping[str, str]) -> dict[str, Any]:
        """Return its item of scrape_configs, without targets; `placed` is as in `HttpClient.http_config`."""
        others = {"static_configs", *HttpClient.model_fields}
        return self.model_dump(exclude=others, exclude_defaults=True) | self.http_config(dict(placed))

    def groups(self) -> list[dict[str, Any]]:
        """Return its targets, as a file of targets has them."""
        return [group.model_dump() for group in self.static_configs]


def parse_jobs(raw: Sequence[object], reserved: Collection[str]) -> list[Job]:
    """Return the scrape jobs of a site.

    Args:
        raw: as the inventory has them.
        reserved: names that are not allowed.

    Raises:
        InputError: naming the job and all that is wrong with it.
    """
    found: list[Job] = []
    for number, item in enumerate(raw, start=1):
        name = item.get("job_name", f"number {number}") if isinstance(item, dict) else f"number {number}"
        try:
            job = Job.model_validate(item)
        except ValidationError as bad:
            said = "; ".join(f"job {name}: {sentence}" for sentence in sentences(bad, Job, shown=_SHOWN))
            raise InputError(f"{_VARIABLE}: {said}") from None
        if job.job_name in reserved:
            raise InputError(f"{_VARIABLE}: job {name}: rackserve has a job of this name; choose another job_name")
        if job.job_name in {other.job_name for other in found}:
            raise InputError(f"{_VARIABLE}: job {name}: two jobs have this name; give each its own job_name")
        found.append(job)
    return found
