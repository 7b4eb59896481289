"""Capacity of an instance in tokens and requests: weights, KV cache and the other uses of a GPU's memory."""

from rackserve.capacity._arithmetic import DEFAULT_RELEASE, Arithmetic, arithmetic_of
from rackserve.capacity._config import read_shape, shape_of
from rackserve.capacity._kv import KV_DTYPES, KvCapacity, KvLayout, capacity_of, layout_of
from rackserve.capacity._memory import GIB, Budget, Term
from rackserve.capacity._picture import bar, parts_of, svg
from rackserve.capacity._plan import Plan, Remedy, Settings, longest_request, plan, remedies
from rackserve.capacity._preflight import CapacityRequest, plan_of, validate_capacity
from rackserve.capacity._shape import Attention, ModelShape, NotComputedError
from rackserve.capacity._weights import Source, Weights, weights_of

__all__ = [
    "DEFAULT_RELEASE",
    "GIB",
    "KV_DTYPES",
    "Arithmetic",
    "Attention",
    "Budget",
    "CapacityRequest",
    "KvCapacity",
    "KvLayout",
    "ModelShape",
    "NotComputedError",
    "Plan",
    "Remedy",
    "Settings",
    "Source",
    "Term",
    "Weights",
    "arithmetic_of",
    "bar",
    "capacity_of",
    "layout_of",
    "longest_request",
    "parts_of",
    "plan",
    "plan_of",
    "read_shape",
    "remedies",
    "shape_of",
    "svg",
    "validate_capacity",
    "weights_of",
]
