"""What goes off by itself: said in the plan, and refuses nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rackserve.vllm._config import parser_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release

# Where a model keeps its chat templates (transformers, utils/hub.py and tokenization_utils_base.py).
_TEMPLATES: Final = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_TOOLS: Final = re.compile(r"\btools\b")


def tool_notices(
    instances: Sequence[Instance], release: Release, snapshots: Mapping[tuple[str, str], Path], site: Path
) -> list[str]:
    """Return a sentence for each instance whose model is told of tools and whose calls would come as text.

    Args:
        instances: as the inventory has them.
        release: which vLLM.
        snapshots: folder on the controller of every repository and commit that the bundle has.
        site: the inventory's folder.
    """
    return [
        f"instance {instance.name!r}: tool calls of {instance.model.repo} come as text, because no parser is known for "
        f"it; set tool_call_parser to {_advice(instance, release)}, or to none"
        for instance in instances
        if instance.task == "generate"
        and instance.tool_call_parser is None
        and parser_of(instance, release) is None
        and _offers_tools(instance, snapshots.get((instance.model.repo, instance.model.revision)), site)
    ]


def _offers_tools(instance: Instance, model: Path | None, site: Path) -> bool:
    """Return whether the instance's chat template has a place for tools; false where there is none to read."""
    if instance.chat_template is not None:
        own = site / instance.chat_template
        places = [own if own.is_file() or model is None else model / instance.chat_template]
    else:
        places = [model / name for name in _TEMPLATES] if model else []
    return any(_TOOLS.search(_text(place)) for place in places)


def _text(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _advice(instance: Instance, release: Release) -> str:
    """Return the parser of the model that this one seems to be a copy of, else where parsers are listed."""
    likely = release.likely_parser(instance.model.repo)
    if likely:
        parser, model = likely
        return f"{parser}, if it is a copy of {model}"
    return "the one that its model card names"
