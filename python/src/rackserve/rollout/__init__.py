"""Rollouts: which hosts are changed when, so that every model keeps an instance in rotation. Nothing is asked here."""

from rackserve.rollout._drivers import driver_hosts, driver_labels
from rackserve.rollout._gates import gates_after, gates_before, generations_before, previous_plan
from rackserve.rollout._input import AtEdge, HostState, InstanceState, RolloutInput, parse_input
from rackserve.rollout._observe import observed_hosts
from rackserve.rollout._plan import rollout_plan
from rackserve.rollout._retire import Retirement, inventory_lines, retire_problems, retired_record, retirement
from rackserve.rollout._steps import batch_size, parse_steps
from rackserve.rollout._types import How, Problem, RolloutPlan, Row

__all__ = [
    "AtEdge",
    "HostState",
    "How",
    "InstanceState",
    "Problem",
    "Retirement",
    "RolloutInput",
    "RolloutPlan",
    "Row",
    "batch_size",
    "driver_hosts",
    "driver_labels",
    "gates_after",
    "gates_before",
    "generations_before",
    "inventory_lines",
    "observed_hosts",
    "parse_input",
    "parse_steps",
    "previous_plan",
    "retire_problems",
    "retired_record",
    "retirement",
    "rollout_plan",
]
