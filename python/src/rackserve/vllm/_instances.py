"""`vllm_instances`: the schema of the input, and the typed instances."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from rackserve._schema import Strict, parse_items
from rackserve.errors import InputError
from rackserve.gpu import stable_name
from rackserve.vllm._extra_args import Extra, joined, validate_extra_args

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT_BASE: Final = 8000
_GPU: Final = re.compile(r"(GPU|MIG)-[0-9a-fA-F-]{36}|([0-9a-fA-F]{4}){1,2}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
Task = Literal["generate", "embed", "score"]
_REPO: Final = r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$"
_COMMIT: Final = r"^[0-9a-f]{40}$"


class ModelRef(Strict):
    """A model by repository and commit, and the names that clients use for it."""

    repo: str = Field(pattern=_REPO, description="Repository of the model, `owner/name`; the bundle must carry it.")
    revision: str = Field(pattern=_COMMIT, description="Full commit of the repository, 40 hex digits.")
    served_names: list[str] = Field(
        default=[], description="Names that clients put into `model`; an empty list takes the repository."
    )


class Lora(Strict):
    """A LoRA adapter: a repository and commit of the bundle, or a host's folder.

    `base` is the same model under another name, such as its quantized copy.
    """

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$", description="Name that clients put into `model` for the adapter."
    )
    path: str | None = Field(
        default=None,
        pattern=r"^/[^\s=]+$",
        description="Directory of the adapter on the host, for an adapter that the bundle does not carry.",
    )
    repo: str | None = Field(
        default=None, pattern=_REPO, description="Repository of the adapter, for an adapter of the bundle."
    )
    revision: str | None = Field(
        default=None, pattern=_COMMIT, description="Full commit of that repository, 40 hex digits."
    )
    base: str | None = Field(
        default=None,
        description="Model that the adapter's own configuration names, where it is not the instance's repository.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Lora:
        if (self.path is None) is (self.repo is None) or (self.repo is None) is not (self.revision is None):
            raise ValueError(
                f"adapter {self.name!r} has to have either repo and revision, which the bundle carries, or path, a "
                "folder on the host"
            )
        return self


class Instance(Strict):
    """One vLLM server."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        description="Name of the instance and of its units: lower-case letters, digits and dashes.",
    )
    model: ModelRef = Field(description="Model of the instance.")
    task: Task = Field(
        default="generate",
        description="Task of the model: `generate` text, `embed` texts as vectors, or `score` pairs (a cross-encoder).",
    )
    max_num_seqs: int = Field(ge=1, description="Requests that are generated at the same time; further ones wait.")
    max_model_len: int = Field(ge=1, description="Maximum length of prompt and answer together, in tokens.")
    port: int = Field(
        default=0, ge=0, le=65535, description=f"Listen port; 0 takes the lowest free one from {PORT_BASE}."
    )
    gpus: list[int | str] = Field(
        default=[],
        description="GPUs by index (as nvidia-smi counts), UUID or PCI address (`0000:3b:00.0`); the same kind of name "
        "for all instances of a host.",
    )
    tensor_parallel_size: int | None = Field(
        default=None, ge=1, description="GPUs that share every layer; unset takes all of `gpus`."
    )
    api_server_count: int | None = Field(
        default=None,
        ge=1,
        description="Processes that accept requests; more than one hides the `process_*` metrics, unset takes vLLM's "
        "default.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Type of the weights and activations."
    )
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Ratio of the GPU's memory that the instance may use, above 0 and below 1; unset takes the "
        "release's default, 0.90 up to 0.10.2 and 0.92 after it.",
    )
    quantization: Literal["awq", "gptq", "fp8"] | None = Field(
        default=None, description="Quantization of the weights; unset takes what the model's configuration names."
    )
    kv_cache_dtype: str | None = Field(
        default=None, description="Type of the KV cache, one that the release has; unset takes vLLM's default."
    )
    lora: list[Lora] = Field(
        default=[],
        description="LoRA adapters, each with `repo` and `revision`, or with `path`; see docs/how-to/lora.md.",
    )
    tool_call_parser: str | None = Field(
        default=None,
        description="Parser of tool calls, one that the release has; `none` turns tool calls off, unset takes the "
        "parser of a known model, else none.",
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template, a file in the inventory's directory or one of the model's files; unset takes the "
        "model's own.",
    )
    prefix_caching: bool = Field(
        default=True, description="Whether prompts with the same beginning share the KV cache of it."
    )
    extra_args: dict[str, Extra] = Field(
        default={}, description="Other flags of `vllm serve` and their values, by long name without leading dashes."
    )

    @field_validator("gpus")
    @classmethod
    def _each_gpu_once(cls, value: list[int | str]) -> list[int | str]:
        for gpu in value:
            if isinstance(gpu, int) and gpu < 0:
                raise ValueError(f"{gpu} is not a GPU; indexes count from 0")
            if isinstance(gpu, str) and not _GPU.fullmatch(gpu):
                raise ValueError(
                    f"{gpu!r} is not a GPU; give an index, a UUID as `nvidia-smi -L` prints it, or a PCI address "
                    "such as 0000:3b:00.0"
                )
        if len({stable_name(str(gpu)) for gpu in value}) < len(value):
            raise ValueError("a GPU is named twice; name each once")
        return value

    @field_validator("chat_template")
    @classmethod
    def _template_inside(cls, value: str | None) -> str | None:
        if value is not None and (not value or ".." in value.split("/")):
            raise ValueError("a template is a path inside the inventory's folder, or the name of a file of the model")
        return value

    @model_validator(mode="after")
    def _only_what_generates_calls_tools(self) -> Instance:
        if self.task != "generate" and self.tool_call_parser not in (None, "none"):
            raise ValueError(
                f"task is {self.task!r}, and only a model that generates calls tools; drop tool_call_parser"
            )
        return self

    @model_validator(mode="after")
    def _extra_args_carried(self) -> Instance:
        problems = validate_extra_args(self.name, self.extra_args) or self._golden_problems()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _golden_problems(self) -> list[str]:
        """Refuse fewer log-probabilities than the probe asks for (programs/vllm_probe.py, ask_golden)."""
        most, asked = self.extra_args.get("max-logprobs"), 5 if self.lora else 1
        if self.task != "generate" or not isinstance(most, int) or most < 0 or most >= asked:
            return []
        return [f"extra_args.max-logprobs is {most!r}, and the probe compares {asked}; set {asked} or more"]

    @model_validator(mode="after")
    def _every_gpu_works(self) -> Instance:
        workers = self.tensor_parallel
        for key in ("pipeline-parallel-size", "data-parallel-size", "prefill-context-parallel-size"):
            size = str(self.extra_args.get(key, 1))
            workers *= int(size) if size.isdecimal() else 1
        if self.gpus and workers != len(self.gpus):
            raise ValueError(
                f"tensor_parallel_size makes {workers} workers and gpus names {len(self.gpus)}; name as many GPUs, or "
                "leave tensor_parallel_size out"
            )
        return self

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share every layer; all of the instance's by default."""
        return self.tensor_parallel_size or len(self.gpus) or 1

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names that clients may use; the repository's when none is given."""
        return tuple(self.model.served_names) or (self.model.repo,)

    @property
    def flags(self) -> dict[str, Extra]:
        """The extra arguments as they are written for vLLM; see `joined`."""
        return joined(self.extra_args)

    @property
    def snapshots(self) -> frozenset[tuple[str, str]]:
        """Repository and commit of everything that the bundle must carry for it: the model and its adapters."""
        adapters = {(adapter.repo, adapter.revision) for adapter in self.lora if adapter.repo and adapter.revision}
        return frozenset({(self.model.repo, self.model.revision), *adapters})


def parse_instances(raw: Sequence[dict[str, Any]], port_base: int = PORT_BASE) -> tuple[Instance, ...]:
    """Check a host's `vllm_instances` and give every instance its port.

    An instance without `port` gets the lowest free one from `port_base`, in the order of the list.

    Raises:
        InputError: naming every wrong instance and key, the value found and what is allowed.
    """
    parsed, problems = parse_items(raw, Instance, "instance")
    problems += [f"instance name {name!r} is used {n} times; give each its own" for name, n in _twice(parsed, "name")]
    problems += [
        f"port {port} is used by {n} instances ({', '.join(i.name for i in parsed if i.port == port)}); "
        "give each its own, or leave `port` out"
        for port, n in _twice(parsed, "port")
        if port
    ]
    problems += _name_clashes(parsed)
    if problems:
        raise InputError("vllm_instances: " + "; ".join(problems))
    return _with_ports(parsed, port_base)


def _name_clashes(instances: Sequence[Instance]) -> list[str]:
    """Return adapter names that are ambiguous; two copies of an instance may share one."""
    found = []
    for instance in instances:
        for name, n in Counter(adapter.name for adapter in instance.lora).items():
            if n > 1:
                found.append(f"instance {instance.name!r} has {n} adapters of the name {name!r}; give each its own")
        for other in instances:
            theirs = {adapter.name: (adapter, other.model) for adapter in other.lora}
            for adapter in instance.lora:
                what = f"instance {instance.name!r}: the adapter's name {adapter.name!r} is also "
                if adapter.name in other.served_names:
                    found.append(f"{what}a served name of instance {other.name!r}; rename the adapter")
                elif theirs.get(adapter.name, (adapter, instance.model)) != (adapter, instance.model) and (
                    instance.name < other.name
                ):
                    found.append(f"{what}that of another adapter, of instance {other.name!r}; rename one")
    return found


def _twice(instances: Sequence[Instance], key: str) -> list[tuple[Any, int]]:
    return [(value, n) for value, n in Counter(getattr(i, key) for i in instances).items() if n > 1]


def _with_ports(instances: Sequence[Instance], port_base: int) -> tuple[Instance, ...]:
    taken = {instance.port for instance in instances}
    free = (port for port in range(port_base, 65536) if port not in taken)
    return tuple(i if i.port else i.model_copy(update={"port": next(free)}) for i in instances)
