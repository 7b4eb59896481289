"""The data of a report; the page only lays it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackserve.bench import BenchResult
    from rackserve.capacity import Plan
    from rackserve.checks import CheckResult
    from rackserve.doctor import Finding
    from rackserve.run import HostStats, TaskChange, TaskFailure


@dataclass(frozen=True)
class HostRow:
    """One host: its groups, and its installed versions."""

    name: str
    address: str
    roles: tuple[str, ...]
    system: str = ""
    bundle: str = ""
    releases: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    driver: str = ""


@dataclass(frozen=True)
class InstanceRow:
    """One instance; lengths are tokens, `max_num_seqs` is requests at once."""

    host: str
    name: str
    model: str
    revision: str
    served_names: tuple[str, ...]
    device: str
    release: str
    state: str
    health: str
    max_model_len: int
    max_num_seqs: int


@dataclass(frozen=True)
class BundleFacts:
    """The bundle that the site is installed from.

    Attributes:
        digest: sha256 of its manifest, in hex.
        signer: name in trust.yml; `fingerprint` is of their key, as ssh-keygen writes it.
        audit: result of the search for known vulnerabilities.
        problem: why it cannot be used; the other fields are empty then.
    """

    problem: str = ""
    name: str = ""
    version: int = 0
    expires: str = ""
    digest: str = ""
    files: int = 0
    size: int = 0
    signer: str = ""
    fingerprint: str = ""
    audit: str = ""
    runtimes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFacts:
    """A run of the site's playbook, as its record has it.

    Attributes:
        name: of the record.
        seconds: from its start to its end.
        check: it ran in check mode.
    """

    name: str
    playbook: str
    started: str
    seconds: int
    limit: str
    check: bool
    ok: bool
    hosts: tuple[HostStats, ...]
    changes: tuple[TaskChange, ...]
    problems: tuple[TaskFailure, ...]

    @property
    def changed(self) -> int:
        """Tasks that changed a host, each host counted."""
        return sum(host.changed for host in self.hosts)


@dataclass(frozen=True)
class CapacityFacts:
    """The capacity of an instance: the places where it runs, and the plan, or why there is none."""

    where: tuple[str, ...]
    plan: Plan | None
    problem: str = ""


@dataclass(frozen=True)
class SiteReport:
    """Everything that is on a page, its date aside.

    Attributes:
        versions: tools and their versions.
        run: None where no run of the site is on record.
        examined: hosts that the doctor checked.
        bench: None where none was asked for, or where it failed: `bench_problem` says why.
    """

    site: str
    versions: Mapping[str, str]
    hosts: tuple[HostRow, ...]
    instances: tuple[InstanceRow, ...]
    bundle: BundleFacts
    run: RunFacts | None
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    examined: int
    capacity: tuple[CapacityFacts, ...] = ()
    bench: BenchResult | None = None
    bench_problem: str = ""
    limit: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def verdicts(self) -> dict[str, bool | None]:
        """Whether each part is good; None where it was not checked."""
        benched = None if self.bench is None and not self.bench_problem else bool(self.bench and self.bench.ok)
        fits = [bool(one.plan.fits) for one in self.capacity if one.plan]
        return {
            "verify": bool(self.checks) and all(check.ok for check in self.checks),
            "doctor": self.examined > 0 and not self.findings,
            "run": None if self.run is None else self.run.ok,
            "bundle": not self.bundle.problem,
            "capacity": all(fits) if fits else None,
            "bench": benched,
        }

    @property
    def ok(self) -> bool:
        """Whether no part that was checked has failed."""
        return all(verdict is not False for verdict in self.verdicts.values())
