"""Record what a run of rackserve left on a host, and find what differs from it later.

Hosts have it as one file, the zipapp `host_state.pyz`, which needs Python 3.9 and its standard library; the module
`host_record` imports the same code. What is compared is declared by each role (`vars/owned.yml`) and stands in the
record, so that a host needs nothing but its record. It reads and never changes.

Files are compared by their digests, large ones and whole trees (models, runtimes, the bundle) by size, time and inode:
their digests are the work of the bundle's weekly verification. Root can alter the record; what is installed is proven
by signatures, not by it.
"""

from ._check import check, metrics, write_metrics
from ._commands import main
from ._compare import record_differs
from ._difference import KINDS, Difference
from ._host import Host, UnreadError, run_program
from ._record import RECORD, RecordError, complete, load, new_record, read_unowned, save

__all__ = [
    "KINDS",
    "RECORD",
    "Difference",
    "Host",
    "RecordError",
    "UnreadError",
    "check",
    "complete",
    "load",
    "main",
    "metrics",
    "new_record",
    "read_unowned",
    "record_differs",
    "run_program",
    "save",
    "write_metrics",
]
