"""Chat templates of instances: files of the inventory, copied to hosts, or files of the model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension

from rackserve.errors import InputError
from rackserve.vllm._adapters import snapshot_on_host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jinja2.parser import Parser

    from rackserve.vllm._instances import Instance

FOLDER_ON_HOST: Final = "/etc/vllm/templates"


class _Generation(Extension):
    """The block `generation` of transformers (utils/chat_template_utils.py), which only training uses."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own way

    def parse(self, parser: Parser) -> Any:  # noqa: ANN401 - jinja2's nodes
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


@dataclass(frozen=True)
class Template:
    """Where a template is: on the controller, and on the hosts."""

    source: Path
    on_host: str


def find_template(
    instance: Instance, site: Path, snapshots: Mapping[tuple[str, str], Path], hf_home: str
) -> Template | None:
    """Return an instance's template; None for an instance that uses the model's own.

    Args:
        instance: as the inventory has it.
        site: the inventory's folder.
        snapshots: folder on the controller of every repository and commit that the bundle has.
        hf_home: HF_HOME of the services.

    Raises:
        InputError: when it is not found, or not a valid template.
    """
    name, model = instance.chat_template, instance.model
    mine, models = find_own(instance, site), snapshots.get((model.repo, model.revision))
    if name is None or mine is not None:
        return mine
    if models is not None and (models / name).is_file():
        _checked(models / name, _label(instance))
        return Template(models / name, f"{snapshot_on_host(hf_home, model.repo, model.revision)}/{name}")
    raise InputError(
        f"{_label(instance)} is neither a file in the inventory's folder {site} nor one of {model.repo} in the bundle; "
        "put it there, or leave chat_template out for the model's own"
    )


def find_own(instance: Instance, site: Path) -> Template | None:
    """Return an instance's template if it is a file of the inventory.

    On a host its name is the digest of its text, so a changed text is a changed argument and restarts the instance
    like any other.

    Raises:
        InputError: when it is given by an absolute path, or not a valid template.
    """
    name = instance.chat_template
    if name is None:
        return None
    if name.startswith("/"):
        raise InputError(
            f"{_label(instance)} is an absolute path; put the file into the inventory's folder {site} and name it "
            "from there"
        )
    if not (site / name).is_file():
        return None
    digest = hashlib.sha256(_checked(site / name, _label(instance)).encode()).hexdigest()
    return Template(site / name, f"{FOLDER_ON_HOST}/{digest[:16]}.jinja")


def _label(instance: Instance) -> str:
    return f"instance {instance.name!r}: chat_template {instance.chat_template!r}"


def _checked(path: Path, label: str) -> str:
    """Return a template's text, validated: vLLM would start without an error and fail every chat."""
    try:
        text = path.read_text(encoding="utf-8")
        Environment(extensions=["jinja2.ext.loopcontrols", _Generation], autoescape=False).parse(text)  # noqa: S701
    except TemplateSyntaxError as wrong:
        raise InputError(
            f"{label}: {path} is not a valid Jinja2 template: line {wrong.lineno}: {wrong.message}; mend it"
        ) from wrong
    except (OSError, UnicodeDecodeError) as wrong:
        raise InputError(f"{label}: {path} cannot be read: {wrong}; save it as UTF-8") from wrong
    if not text.strip():
        raise InputError(f"{label}: {path} is empty; leave chat_template out for the model's own")
    return text
