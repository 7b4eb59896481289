"""Clients of an edge that count everything: mixed requests, each answer read to its end and judged, each one noted.

They know no retry. What they note is one JSON line a request, from which a summary and a picture are made.
"""

from testing.traffic._answers import Reason, Verdict, judge
from testing.traffic._clients import Target, run_clients
from testing.traffic._record import Record, read_records, upstreams
from testing.traffic._requests import Asked, Kind, Mix, mixed
from testing.traffic._summary import Summary, summarise

__all__ = [
    "Asked",
    "Kind",
    "Mix",
    "Reason",
    "Record",
    "Summary",
    "Target",
    "Verdict",
    "judge",
    "mixed",
    "read_records",
    "run_clients",
    "summarise",
    "upstreams",
]
