"""One page about one run of a site: what the site is, what changed, every verdict, capacity and latency."""

from rackserve.report._bundle import describe_bundle
from rackserve.report._capacity import describe_capacity
from rackserve.report._file import refuse_target, write_page
from rackserve.report._page import render
from rackserve.report._record import find_record, read_run
from rackserve.report._site import SiteCollector, describe_hosts, describe_instances
from rackserve.report._types import (
    BundleFacts,
    CapacityFacts,
    HostRow,
    InstanceRow,
    RunFacts,
    SiteReport,
)

__all__ = [
    "BundleFacts",
    "CapacityFacts",
    "HostRow",
    "InstanceRow",
    "RunFacts",
    "SiteCollector",
    "SiteReport",
    "describe_bundle",
    "describe_capacity",
    "describe_hosts",
    "describe_instances",
    "find_record",
    "read_run",
    "refuse_target",
    "render",
    "write_page",
]
