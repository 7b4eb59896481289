"""Whether a release implements a model: its architecture, and the code that the repository brings for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rackserve.servable._facts import releases_of, since_when
from rackserve.servable._snapshot import Finding, architectures_of, prefers_mistral

if TYPE_CHECKING:
    from rackserve.servable._facts import Facts
    from rackserve.servable._snapshot import Snapshot, Use

# vLLM replaces one of these endings by another to find the model that it converts (config/model.py,
# _SUFFIX_TO_DEFAULTS; models/registry.py, _normalize_arch).
_ENDINGS: Final = (
    "ForCausalLM",
    "ForConditionalGeneration",
    "ChatModel",
    "LMHeadModel",
    "ForTextEncoding",
    "EmbeddingModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForAudioClassification",
    "ForImageClassification",
    "ForVideoClassification",
    "ClassificationModel",
    "ForRewardModeling",
    "RewardModel",
    "Model",
)
# transformers' get_relative_imports (dynamic_module_utils.py) fetches these too.
_BESIDE: Final = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)
_OTHERS_CODE: Final = "--"  # of `owner/name--module.Class`


def architecture_findings(
    snapshot: Snapshot, config: dict[str, Any], version: str, facts: Facts, use: Use | None
) -> list[Finding]:
    """Return why a release cannot serve the architecture, and what the repository's own code needs.

    An architecture that only transformers has may be served through it, so that is told and not refused.
    """
    if use is not None and (use.role == "draft" or use.argument("config-format") or use.argument("hf-config-path")):
        return []
    if "speculators_config" in config or (snapshot.has("params.json") and prefers_mistral(version)):
        return []  # another configuration than this one decides
    names = architectures_of(config)
    if not names or not snapshot.has("config.json"):
        return []
    code = _classes_of(config)
    found = []
    native = any(_in(facts.architectures, name, facts) for name in names)
    through = [name for name in names if _in(facts.transformers, name, facts)]
    if not native:
        found += _unknown(names, through, version, facts, own_code=any(key.startswith("AutoModel") for key in code))
    if not any(finding.refuses for finding in found):
        if native or through:
            code = {key: value for key, value in code.items() if key == "AutoConfig"}
        found += _code_findings(snapshot, config, code, facts, use)
    return found


def _in(has: frozenset[str], name: str, facts: Facts) -> bool:
    """Return whether an architecture is among some, itself or as one that vLLM converts; 0.6.4 converts none."""
    stems = [name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)]
    converted = any(stem + ending in has for stem in stems for ending in _ENDINGS)
    return name in has or (bool(facts.transformers) and converted)


def _unknown(names: list[str], through: list[str], version: str, facts: Facts, *, own_code: bool) -> list[Finding]:
    name = names[0]
    if through:
        text = f"its architecture {through[0]} is not one of vLLM {version}'s own; transformers has it, and whether it "
        return [Finding(text + "can be served through that is known at the start", refuses=False)]
    has = releases_of("architectures", name)
    instead = f"set stack_runtime.vllm to {' or '.join(has)}" if has else "serve another model, or a newer vLLM"
    what = f"its architecture {name} is not one that vLLM {version} serves"
    if name in facts.gone:
        return [Finding(f"{what}: it went after {facts.gone[name]}; {instead}")]
    if name in facts.plugins:
        return [Finding(f"{what} without the plugin {facts.plugins[name]}; {instead}")]
    if own_code and facts.transformers:
        text = f"{what} itself; the repository's own code is used, and whether vLLM can is known at the start"
        return [Finding(text, refuses=False)]
    return [Finding(f"{what}{': ' + since_when(has) if has else ''}; {instead}")]


def _classes_of(config: dict[str, Any]) -> dict[str, str]:
    """Return `auto_map` with one class for each key; a pair of tokenizers is slow and fast."""
    found = config.get("auto_map")
    if not isinstance(found, dict):
        return {}
    classes: dict[str, str] = {}
    for key, value in found.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and "." in item:
                classes.setdefault(str(key), item)
    return classes


def _code_findings(
    snapshot: Snapshot, config: dict[str, Any], code: dict[str, str], facts: Facts, use: Use | None
) -> list[Finding]:
    """Ask for the code of the repository, where it would be run.

    Without trust-remote-code transformers takes the configuration that it knows itself; with it, the repository's.

    Args:
        snapshot: the model's folder.
        config: its config.json.
        code: the classes of `auto_map` that the release has none of its own for.
        facts: of the release.
        use: the instance; None where it is not known.
    """
    if not code:
        return []
    needed = any(key.startswith("AutoModel") for key in code) or config.get("model_type") not in facts.model_types
    missing = _missing_code(snapshot, code)
    if use is not None and use.argument("trust-remote-code"):
        return missing if needed else [Finding(finding.text, refuses=False) for finding in missing]
    if not needed:
        return []
    text = f"it needs code of its own ({_file(next(iter(code.values())))}); read that code, then set "
    told = Finding(text + "extra_args.trust-remote-code: true, or serve another model", refuses=use is not None)
    return [told, *(missing if use is None else ())]


def _missing_code(snapshot: Snapshot, code: dict[str, str]) -> list[Finding]:
    elsewhere = sorted({value.partition(_OTHERS_CODE)[0] for value in code.values() if _OTHERS_CODE in value})
    here = sorted({_file(value) for value in code.values() if _OTHERS_CODE not in value})
    found = [
        Finding(
            f"auto_map names code of the repository {repo}, which offline nothing finds; put that code beside "
            "config.json, and write the class without the repository into auto_map"
        )
        for repo in elsewhere
    ]
    if missing := _not_there(snapshot, here):
        found.append(
            Finding(
                f"auto_map names {', '.join(missing)}, and the folder has no such file; add it to the model's files in "
                "bundle.yml and build the bundle again"
            )
        )
    return found


def _not_there(snapshot: Snapshot, names: list[str]) -> list[str]:
    """Return the code files that the folder lacks, those too that others import from beside them."""
    seen, missing = set(names), []
    while names:
        name = names.pop()
        if not snapshot.has(name):
            missing.append(name)
            continue
        text = (snapshot.folder / name).read_text(encoding="utf-8", errors="replace")
        beside = {f"{name.rpartition('/')[0]}/{module}.py".lstrip("/") for module in _BESIDE.findall(text)}
        names += sorted(beside - seen)
        seen |= beside
    return sorted(missing)


def _file(reference: str) -> str:
    """Return the file of `module.Class`, or of `owner/name--module.Class`."""
    module = reference.rpartition(_OTHERS_CODE)[2].rpartition(".")[0]
    return f"{module.replace('.', '/')}.py"
