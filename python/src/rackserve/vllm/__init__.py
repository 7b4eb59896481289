"""vLLM instances: their schema, the releases of vLLM, and the files that the units read."""

from rackserve.vllm._adapters import Sources, adapter_folders, parse_adapter, validate_adapters, with_adapters
from rackserve.vllm._chat_templates import find_template
from rackserve.vllm._compatibility import validate_release
from rackserve.vllm._config import cli_args, config_of, dtype_for, environment_of, parser_of
from rackserve.vllm._files import reason_of
from rackserve.vllm._gate_cases import gate_case_problems, gate_cases_of, parse_gate_cases
from rackserve.vllm._instances import Instance, Task, parse_instances
from rackserve.vllm._models import model_findings
from rackserve.vllm._plan import HostOptions, HostPlan, HostState, host_plan
from rackserve.vllm._probe_settings import golden_identity, probe_settings
from rackserve.vllm._references import snapshots_of
from rackserve.vllm._releases import Release, known_paths, release_of, releases
from rackserve.vllm._resolve import adapter_sources, resolve_paths
from rackserve.vllm._units import engine_address, listener_of, start_plan, timer_of

__all__ = [
    "HostOptions",
    "HostPlan",
    "HostState",
    "Instance",
    "Release",
    "Sources",
    "Task",
    "adapter_folders",
    "adapter_sources",
    "cli_args",
    "config_of",
    "dtype_for",
    "engine_address",
    "environment_of",
    "find_template",
    "gate_case_problems",
    "gate_cases_of",
    "golden_identity",
    "host_plan",
    "known_paths",
    "listener_of",
    "model_findings",
    "parse_adapter",
    "parse_gate_cases",
    "parse_instances",
    "parser_of",
    "probe_settings",
    "reason_of",
    "release_of",
    "releases",
    "resolve_paths",
    "snapshots_of",
    "start_plan",
    "timer_of",
    "validate_adapters",
    "validate_release",
    "with_adapters",
]
