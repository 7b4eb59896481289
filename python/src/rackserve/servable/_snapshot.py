"""A model's folder: the names and sizes of its files, and its JSON files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_READ_WHOLE: Final = (".json", ".model", ".tiktoken", ".txt", ".jinja", ".py")
_POINTER_LIMIT: Final = 1024  # bytes; Git LFS's specification


@dataclass(frozen=True)
class Finding:
    """One sentence about a folder; one that does not refuse is worth telling the operator."""

    text: str
    refuses: bool = True


@dataclass(frozen=True)
class Use:
    """What an instance does with the model; the fields of `vllm_instances`, and of its host.

    Attributes:
        role: `model` of the instance, the `draft` of speculative decoding, or a `tokenizer` of another model.
        chat_template: whether the instance has one of its own.
        extra_args: flags of `vllm serve` by their long names.
        capability: the oldest compute capability of its GPUs; None on a CPU, or when it is not known.
    """

    task: str = "generate"
    role: Literal["model", "draft", "tokenizer"] = "model"
    quantization: str | None = None
    chat_template: bool = False
    extra_args: Mapping[str, Any] = field(default_factory=dict)
    capability: tuple[int, int] | None = None

    def argument(self, name: str) -> Any:  # noqa: ANN401 - whatever the operator wrote
        """Return the value of a flag; a mapping may be written as one, as JSON, or by dotted names."""
        value = self.extra_args.get(name)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError:
                return value
        dotted = {k.removeprefix(f"{name}."): v for k, v in self.extra_args.items() if k.startswith(f"{name}.")}
        return {**(value if isinstance(value, dict) else {}), **dotted} if dotted else value

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Return what `hf-overrides` replaces in config.json."""
        value = self.argument("hf-overrides")
        return value if isinstance(value, dict) else {}


def architectures_of(config: Mapping[str, Any]) -> list[str]:
    """Return the architectures that a config.json names; a lone one may stand there without a list."""
    found = config.get("architectures")
    return [name for name in ([found] if isinstance(found, str) else found or ()) if isinstance(name, str) and name]


def prefers_mistral(version: str | None) -> bool:
    """Return whether a release takes Mistral's own files where they lie beside others (default_loader.py)."""
    return version not in (None, "0.6.4.post1", "0.10.2")


class BadFileError(Exception):
    """A file of the folder cannot be read as what its name says."""


@dataclass(frozen=True)
class Snapshot:
    """The files of one repository at one commit."""

    folder: Path

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file by its path in the folder, in the order of the paths."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}

    def has(self, *names: str) -> bool:
        """Return whether it has one of these files."""
        return any(name in self.sizes for name in names)

    def top(self, *endings: str) -> list[str]:
        """Return the files with one of these endings that lie in no sub-folder."""
        return [name for name in self.sizes if "/" not in name and name.endswith(endings)]

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON object; an empty one where the folder has no such file.

        Raises:
            BadFileError: when it is something else.
        """
        if name not in self.sizes:
            return {}
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as wrong:
            raise BadFileError(f"{name} is not JSON ({wrong}); fetch it again") from wrong
        if not isinstance(found, dict):
            raise BadFileError(f"{name} is a JSON {type(found).__name__} instead of an object; fetch it again")
        return found

    def is_pointer(self, name: str) -> bool:
        """Return whether a file is a Git LFS pointer instead of the content that it stands for."""
        size = self.sizes[name]
        return 0 < size <= _POINTER_LIMIT and (self.folder / name).read_bytes().startswith(_POINTER)

    def pointers(self) -> list[str]:
        """Return the pointers among the files of configuration and tokenizer; vLLM may not load some of the weights."""
        return [name for name in self.top(*_READ_WHOLE) if self.is_pointer(name)]

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter in PEFT's format, and no model; some adapters come with their model's config."""
        weights = [name for name in self.top(".safetensors", ".bin") if not name.startswith(("adapter_", "training_"))]
        return self.has("adapter_config.json") and not weights


def shorten(names: list[str]) -> str:
    """Return names as one phrase, with the first few and the number of the others."""
    shown = 4
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
