"""The scrape jobs of a site, as its inventory has them.

Keys and meaning: https://prometheus.io/docs/prometheus/2.42/configuration/configuration/#scrape_config
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rackserve.errors import InputError
from rackserve.monitoring._client import HttpClient
from rackserve.monitoring._values import is_address, seconds_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_VARIABLE: Final = "prometheus_scrape_jobs"
INTERVAL: Final = "15s"  # global.scrape_interval of prometheus.yml.j2
# Errors whose value is not shown: an unknown key may hold a password.
_SILENT: Final = {"extra_forbidden", "missing", "value_error"}


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


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    targets: Annotated[list[_Target], Field(min_length=1)]
    labels: dict[_LabelName, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keeps_its_job(self) -> _Group:
        if "job" in self.labels:
            raise ValueError("the label job is always the job_name; remove it")
        return self


class Job(HttpClient):
    """One scrape job of a site."""

    # As a file of targets is called.
    job_name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")]
    static_configs: list[_Group]
    scrape_interval: _Duration = INTERVAL
    scrape_timeout: _Duration | None = None
    metrics_path: Annotated[str, Field(pattern=r"^/\S*$")] = "/metrics"
    scheme: Literal["http", "https"] = "http"
    params: dict[str, list[str]] = Field(default_factory=dict)
    honor_labels: bool = False
    sample_limit: Annotated[int, Field(ge=0)] = 0
    relabel_configs: list[dict[str, Any]] = Field(default_factory=list)
    metric_relabel_configs: list[dict[str, Any]] = Field(default_factory=list)

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
        """Return what scrape_configs has of it, without targets; `placed` is as in `HttpClient.http_config`."""
        others = {"static_configs", *HttpClient.model_fields}
        return self.model_dump(exclude=others, exclude_defaults=True) | self.http_config(dict(placed))

    def groups(self) -> list[dict[str, Any]]:
        """Return its targets, as a file of targets has them."""
        return [group.model_dump() for group in self.static_configs]


def parse_jobs(raw: Sequence[object], reserved: Collection[str]) -> list[Job]:
    """Return the scrape jobs of a site.

    Args:
        raw: as the inventory has them.
        reserved: names that none may have.

    Raises:
        InputError: naming the job and the first thing that is wrong with it.
    """
    found: list[Job] = []
    for number, item in enumerate(raw, start=1):
        name = item.get("job_name", f"number {number}") if isinstance(item, dict) else f"number {number}"
        try:
            job = Job.model_validate(item)
        except ValidationError as bad:
            raise InputError(f"{_VARIABLE}: job {name}: {_reason(bad)}") from None
        if job.job_name in reserved:
            raise InputError(f"{_VARIABLE}: job {name}: rackserve has a job of this name; choose another job_name")
        if job.job_name in {other.job_name for other in found}:
            raise InputError(f"{_VARIABLE}: job {name}: two jobs have this name; give each its own job_name")
        found.append(job)
    return found


def _reason(bad: ValidationError) -> str:
    first = bad.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    value = "" if first["type"] in _SILENT else f" (found {first['input']!r})"
    if first["type"] == "extra_forbidden":
        return f"{key} is not a known key; roles/prometheus/README.md lists them, secrets are files"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}{value}" if key else f"{message}{value}"
