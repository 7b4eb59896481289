"""Types of preflight: a host's facts, the inventory's specification of it, and the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rackserve.preflight._driver import DriverRequest
from rackserve.preflight._rows import notes, refused, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.gpu import GpuFacts
    from rackserve.preflight._rows import Row


@dataclass(frozen=True)
class HostFacts:
    """The facts of the module host_facts."""

    euid: int
    distribution: str
    release: str
    architecture: str
    pythons: Mapping[str, str]
    free_bytes: Mapping[str, int]
    stored_bytes: int
    releases: Sequence[str]
    floor: Mapping[str, Any]
    adapters: Mapping[str, str | None]
    drivers: Sequence[Mapping[str, Any]] = ()
    vllm_uid: int | None = None
    removes_ipc: bool = False


@dataclass(frozen=True)
class HostSpec:
    """The inventory's specification of one host; `instances` is empty on a host that serves no model.

    Attributes:
        site: the inventory's folder.
        driver_source: where the GPUs' driver comes from: `preinstalled`, `bundle` or `runfile`.
        driver_version: of the driver to install; empty takes the bundle's.
        driver_modules: flavour of its kernel modules; empty leaves it to the bundle.
        driver_reboot_allowed: the host may be rebooted for it.
        driver_signed: its modules are signed with a key of the site.
    """

    instances: Sequence[dict[str, Any]]
    vllm: str
    flavour: str
    python: str
    serves: bool
    store: str
    releases: str
    downgrade_reason: str
    cpu_kvcache_gib: int
    site: str
    driver_source: Literal["preinstalled", "bundle", "runfile"] = "preinstalled"
    driver_version: str = ""
    driver_modules: str = ""
    driver_reboot_allowed: bool = False
    driver_signed: bool = False

    @property
    def driver(self) -> DriverRequest:
        """The requested driver."""
        return DriverRequest(
            self.driver_source, self.driver_version, self.driver_modules, self.driver_reboot_allowed, self.driver_signed
        )


@dataclass(frozen=True)
class Host:
    """A host as it was read.

    Attributes:
        facts: of the module host_facts.
        gpus: of the module rackserve_gpu_facts; None on a host that serves no model.
        peers: the same by host, of every host with the same instances, including its own.
    """

    name: str
    facts: HostFacts
    gpus: GpuFacts | None = None
    peers: Mapping[str, GpuFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class PreflightResult:
    """The result for one host: problems of inventory and bundle, and the table of the host's requirements."""

    problems: Sequence[str]
    rows: Sequence[Row]

    @property
    def fits(self) -> bool:
        """Whether the host may be changed."""
        return not self.problems and not refused(self.rows)

    @property
    def text(self) -> str:
        """The whole result: one problem a line, and the table where a row refuses the host."""
        table = [table_of(self.rows)] if refused(self.rows) else []
        return "\n".join([*self.problems, *table])

    @property
    def notes(self) -> list[str]:
        """What refuses nothing and must be told; a table that refuses the host has it already."""
        return [] if refused(self.rows) else notes(self.rows)
