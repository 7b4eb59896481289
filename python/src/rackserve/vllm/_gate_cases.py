"""`vllm_gate_cases`: questions of the site, and what a new engine has to answer before it gets traffic."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from rackserve._schema import Strict, parse_items
from rackserve.ansible.module_utils.rackserve_json_schema import unsupported
from rackserve.errors import InputError
from rackserve.vllm._instances import parse_instances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rackserve.vllm._instances import Instance


def _supported(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    problems = unsupported(schema) if schema is not None else []
    if problems:
        raise ValueError("; ".join(problems))
    return schema


class NumberExpected(Strict):
    """A number in the answer; the last one counts."""

    value: float = Field(description="The number.")
    tolerance: float = Field(default=0.0, ge=0, description="How far the answer's number may be from it.")


class ToolCallExpected(Strict):
    """A call of one of the case's tools."""

    name: str = Field(min_length=1, description="Name of the function.")
    json_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the arguments; unset takes the tool's `parameters`."
    )

    _schema = field_validator("json_schema")(_supported)


class EmbeddingExpected(Strict):
    """A vector that is near a reference."""

    file: str | None = Field(
        default=None, description="File in the inventory's folder with the reference, a JSON list of numbers."
    )
    text: str | None = Field(
        default=None, min_length=1, description="Text whose vector, of the same engine, is the reference."
    )
    cosine: float = Field(default=0.99, gt=0, le=1, description="Least cosine of the two vectors.")

    @model_validator(mode="after")
    def _one_reference(self) -> EmbeddingExpected:
        if (self.file is None) is (self.text is None):
            raise ValueError("the reference is either `file` or `text`; set one of them")
        if self.file is not None and (not self.file or self.file.startswith("/") or ".." in self.file.split("/")):
            raise ValueError(f"the reference's file is a path inside the inventory's folder (found {self.file!r})")
        return self


class Expected(Strict):
    """What an answer has to fulfil; each expectation that is set has to hold."""

    contains: str | None = Field(default=None, min_length=1, description="Text that the answer contains.")
    regex: str | None = Field(
        default=None, min_length=1, description="Regular expression of Python that some part of the answer matches."
    )
    number: NumberExpected | None = Field(default=None, description="The last number of the answer.")
    json_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema that the answer fits, with the keywords of docs/reference/gates.md."
    )
    tool_call: ToolCallExpected | None = Field(default=None, description="Call of a tool.")
    embedding: EmbeddingExpected | None = Field(default=None, description="Vector near a reference.")

    _schema = field_validator("json_schema")(_supported)

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as wrong:
            raise ValueError(f"this is no regular expression: {wrong}") from None
        return value

    @model_validator(mode="after")
    def _something(self) -> Expected:
        names = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if not names:
            raise ValueError(f"nothing is expected; set one of {', '.join(type(self).model_fields)}")
        if self.embedding is not None and len(names) > 1:
            raise ValueError("embedding stands alone: a vector has no text; make two cases of it")
        return self


class Message(Strict):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: str = Field(description="What is said.")


class GateCase(Strict):
    """One question of the site, and what has to come back."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the case in the gate's line.")
    expect: Expected = Field(description="What the answer has to fulfil.")
    model: str | None = Field(
        default=None, description="Served name or adapter that is asked; unset asks every instance of the task."
    )
    instance: str | None = Field(default=None, description="Instance that is asked; unset asks all that fit.")
    prompt: str | None = Field(default=None, min_length=1, description="The question, or the text to embed.")
    messages: list[Message] = Field(default=[], description="A chat, in place of `prompt`.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    tools: list[dict[str, Any]] = Field(default=[], description="Tools as OpenAI's API takes them.")

    @property
    def task(self) -> str:
        """The task of the instances that can answer it."""
        return "embed" if self.expect.embedding else "generate"

    @model_validator(mode="after")
    def _asks_once(self) -> GateCase:
        if (self.prompt is None) is (not self.messages):
            raise ValueError("the question is either `prompt` or `messages`; set one of them")
        if self.expect.embedding and (self.messages or self.tools):
            raise ValueError("an embedding is made of a `prompt` alone; drop messages and tools")
        return self

    @model_validator(mode="after")
    def _tools_fit(self) -> GateCase:
        functions = {}
        for tool in self.tools:
            function = tool.get("function") if tool.get("type") == "function" else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise ValueError(f"a tool has type: function and function.name (found {tool!r})")  # noqa: TRY004 - pydantic's
            functions[function["name"]] = function
        wanted = self.expect.tool_call
        if wanted and wanted.name not in functions:
            known = ", ".join(sorted(functions)) or "none"
            raise ValueError(f"expect.tool_call names {wanted.name!r}, and the tools are: {known}; add it to tools")
        if wanted and wanted.json_schema is None:
            problems = unsupported(functions[wanted.name].get("parameters", {}))
            if problems:
                raise ValueError(f"the parameters of {wanted.name!r} cannot be the schema: {'; '.join(problems)}")
        return self


def parse_gate_cases(raw: Sequence[dict[str, Any]], site: Path) -> tuple[GateCase, ...]:
    """Check `vllm_gate_cases`.

    Args:
        raw: the input.
        site: the inventory's folder, where reference vectors are.

    Raises:
        InputError: naming every wrong case and key, the value found and what is allowed.
    """
    parsed, problems = parse_items(raw, GateCase, "case")
    problems += [
        f"case {name!r} is there {n} times; give each its own name"
        for name, n in Counter(case.name for case in parsed).items()
        if n > 1
    ]
    for case in parsed:
        try:
            _reference(case, site)
        except ValueError as wrong:
            problems.append(f"case {case.name!r}: {wrong}")
    if problems:
        raise InputError("vllm_gate_cases: " + "; ".join(problems))
    return tuple(parsed)


def _reference(case: GateCase, site: Path) -> list[float]:
    """Return the reference vector of a case; empty where it has none of its own.

    Raises:
        ValueError: when the file cannot be used.
    """
    if case.expect.embedding is None or case.expect.embedding.file is None:
        return []
    path = site / case.expect.embedding.file
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise ValueError(f"the reference {path} cannot be read ({wrong}); write a JSON list of numbers there") from None
    numbers = found if isinstance(found, list) else []
    if not any(numbers) or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
        raise ValueError(f"the reference {path} is no JSON list of numbers that are not all 0; write one")
    return [float(one) for one in numbers]


def gate_case_problems(
    raw: Sequence[dict[str, Any]], site: Path, fleet: Sequence[Sequence[dict[str, Any]]]
) -> list[str]:
    """Return what is wrong with `vllm_gate_cases`, also that a case names what no host serves.

    Args:
        raw: the input.
        site: the inventory's folder.
        fleet: `vllm_instances` of every host.
    """
    try:
        cases = parse_gate_cases(raw, site)
    except InputError as wrong:
        return [str(wrong)]
    instances = [one for host in fleet for one in parse_instances(host)]
    return [
        f"vllm_gate_cases: case {case.name!r} is for {_meant(case)}, and there is no such instance that "
        f"{'embeds' if case.task == 'embed' else 'generates'}; there are {_names(instances)}"
        for case in cases
        if (case.model or case.instance) and not any(_fits(case, instance) for instance in instances)
    ]


def _meant(case: GateCase) -> str:
    parts = [f"{key} {value!r}" for key, value in (("model", case.model), ("instance", case.instance)) if value]
    return " and ".join(parts)


def _names(instances: Sequence[Instance]) -> str:
    names = {f"{one.name} ({', '.join([*one.served_names, *(lora.name for lora in one.lora)])})" for one in instances}
    return ", ".join(sorted(names)) or "none"


def _fits(case: GateCase, instance: Instance) -> bool:
    names = {*instance.served_names, *(adapter.name for adapter in instance.lora)}
    return (
        case.task == instance.task
        and case.instance in (None, instance.name)
        and (case.model is None or case.model in names)
    )


def gate_cases_of(
    raw: Sequence[dict[str, Any]], instances: Sequence[dict[str, Any]], name: str, site: Path
) -> list[dict[str, Any]]:
    """Return the cases of one instance, as the module `vllm_gates` takes them.

    Args:
        raw: `vllm_gate_cases`.
        instances: `vllm_instances` of the host.
        name: the instance's.
        site: the inventory's folder.

    Raises:
        InputError: as `parse_gate_cases`.
    """
    instance = next(one for one in parse_instances(instances) if one.name == name)
    found = []
    for case in parse_gate_cases(raw, site):
        if not _fits(case, instance):
            continue
        row = case.model_dump(exclude_none=True, exclude={"instance"})
        if case.expect.embedding and case.expect.embedding.file:
            row["expect"]["embedding"]["vector"] = _reference(case, site)
        wanted = case.expect.tool_call
        if wanted and wanted.json_schema is None:
            tool = next(one["function"] for one in case.tools if one["function"]["name"] == wanted.name)
            row["expect"]["tool_call"]["json_schema"] = tool.get("parameters", {})
        found.append(row)
    return found
