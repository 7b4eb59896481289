"""Folders of models as public repositories have them: the names of their files, their config.json, and no weights.

Safetensors files have a real header and sparse data, so a folder of a large model takes a few kilobytes.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def write_safetensors(file: Path, *names: str, size: int = 1 << 20) -> None:
    """Write a whole file with one tensor of float16 a name, `size` bytes each."""
    entries = {
        name: {"dtype": "F16", "shape": [size // 2], "data_offsets": [n * size, (n + 1) * size]}
        for n, name in enumerate(names or (f"{file.stem}.weight",))
    }
    header = json.dumps(entries).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + len(entries) * size)


def write_bin(file: Path) -> None:
    """Write what torch.save makes: a zip archive."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")


def shards(count: int, stem: str = "model", ending: str = ".safetensors") -> list[str]:
    """Return the names of the shards of a model."""
    return [f"{stem}-{number:05}-of-{count:05}{ending}" for number in range(1, count + 1)]


@dataclass(frozen=True)
class Layout:
    """One repository.

    Attributes:
        config: config.json, without `architectures` and `model_type`; None for a repository that has none.
        weights: number of safetensors shards, or their names; several get an index.
        files: every other file by name; those of weights get their form, others some text.
        texts: files with the text or JSON that they have.
        template: file of the chat template; empty for none.
        use: fields of `Use`.
        releases: the first and the last release that serve it, of those that rackserve knows.
    """

    architecture: str
    model_type: str
    files: str = "tokenizer.json tokenizer_config.json special_tokens_map.json generation_config.json"
    weights: int | tuple[str, ...] = 1
    config: dict[str, Any] | None = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    template: str = "tokenizer_config.json"
    use: dict[str, Any] = field(default_factory=dict)
    first: str = "0.6.4.post1"
    last: str = "0.33.0"

    def write(self, folder: Path) -> Path:
        """Write the repository into a new folder, and return it."""
        folder.mkdir(parents=True)
        for name in self.files.split():
            write_file(folder / name)
        names = self.weights
        if isinstance(names, int):
            names = ("model.safetensors",) if names == 1 else tuple(shards(names)) if names else ()
        for name in names:
            write_safetensors(folder / name)
        if len(names) > 1 and names[0].startswith("model-"):
            write_index(folder / "model.safetensors.index.json", names)
        if self.config is not None:
            known = {"architectures": [self.architecture] if self.architecture else [], "model_type": self.model_type}
            write_json(folder / "config.json", {key: value for key, value in known.items() if value} | self.config)
        for name, content in self.texts.items():
            write_json(folder / name, content) if not isinstance(content, str) else (folder / name).write_text(content)
        if self.template == "tokenizer_config.json":
            path = folder / self.template
            write_json(path, json.loads(path.read_text()) | {"chat_template": "{{ messages }}"})
        elif self.template:
            (folder / self.template).write_text("{{ messages }}")
        return folder


def write_file(path: Path) -> None:
    """Write a file whose content does not matter, in the form that its name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".index.json"):
        ending = ".safetensors" if "safetensors" in path.name else ".bin"
        write_index(path, sorted(file.name for file in path.parent.glob(f"*{ending}")))
    elif path.suffix == ".safetensors":
        write_safetensors(path)
    elif path.suffix == ".bin":
        write_bin(path)
    elif path.suffix == ".json":
        write_json(path, {})
    else:
        path.write_text(f"content of {path.name}\n")


def write_index(path: Path, names: tuple[str, ...] | list[str]) -> None:
    """Write the index of shards, one tensor in each."""
    weight_map = {f"layer.{number}.weight": name for number, name in enumerate(names)}
    write_json(path, {"metadata": {"total_size": 1}, "weight_map": weight_map})


def write_json(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")
