"""Who holds a host, and who changed what: the locks of runs, and their signed records."""

from rackserve.history._holder import Liveness, liveness, new_run_id, this_process
from rackserve.history._present import KEY, RUN_DIR, HeldLock, PresentRun, begin, present
from rackserve.history._records import Run, digest_of, merge, selected, site_lines, write_record
from rackserve.history._sign import fingerprint
from rackserve.history._text import describe, refusal, refusals, span

__all__ = [
    "KEY",
    "RUN_DIR",
    "HeldLock",
    "Liveness",
    "PresentRun",
    "Run",
    "begin",
    "describe",
    "digest_of",
    "fingerprint",
    "liveness",
    "merge",
    "new_run_id",
    "present",
    "refusal",
    "refusals",
    "selected",
    "site_lines",
    "span",
    "this_process",
    "write_record",
]
