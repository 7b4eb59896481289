"""The tokenizer, and the chat template of a model that generates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rackserve.servable._snapshot import Finding, Use, architectures_of

if TYPE_CHECKING:
    from rackserve.servable._snapshot import Snapshot

# Any of these may be a tokenizer's vocabulary; which of them its class wants is left to vLLM.
_VOCABULARY: Final = re.compile(
    r"tokenizer\.json|tekken\.json|tokenizer\.model(\.v\d.*)?|tokenization_[^/]+\.py|vocab[^/]*|[^/]+\.tiktoken"
    r"|[^/]+\.(model|spm|bpe|codes)|(spiece|sentencepiece|source|target)[^/]*|encoder\.json|[^/]*tokenizer[^/]*\.(bin|pkl|vocab)"
    r"|[^/]*vocab\.(txt|json)|dict\.txt"
)
# Classes that read vocab.json together with merges.txt (transformers, VOCAB_FILES_NAMES of each).
_WITH_MERGES: Final = re.compile(r"(GPT2|Qwen2|Roberta|Bart|Whisper|CLIP|CodeGen|Longformer)Tokenizer(Fast)?")
_TAIL: Final = 64  # bytes
_NO_TEXT: Final = ("Terratorch", "PrithviGeoSpatialMAE")
# vLLM brings their templates, or builds their prompts in code (chat_templates/registry.py, tokenizers/).
_OWN_CHAT: Final = re.compile(
    r"blip-2|chameleon|clip|colpali|deepseek_(vl_v2|ocr2?|v3?2|v4.*)|florence2|fuyu|minicpm.*|paligemma|qwen|siglip2?"
    r"|unlimited.ocr|kimi_audio|whisper|gpt_oss"
)
_TOKENIZER_ADD: Final = (
    "add its files (tokenizer.json and tokenizer_config.json, or tokenizer.model, tekken.json, or vocab.json and "
    "merges.txt) to the model's files in bundle.yml and build the bundle again"
)


def tokenizer_findings(snapshot: Snapshot, config: dict[str, Any], use: Use | None) -> list[Finding]:
    """Return what is wrong with the tokenizer; one that the instance takes from elsewhere is not looked for."""
    if _needs_none(config, use or Use()):
        return []
    found = [name for name, size in snapshot.sizes.items() if size and _VOCABULARY.fullmatch(name.rpartition("/")[2])]
    if not found:
        return [Finding(f"it has no tokenizer; {_TOKENIZER_ADD}", refuses=use is not None)]
    if "tokenizer.json" in found and not _ends(snapshot, "tokenizer.json"):
        return [Finding("tokenizer.json is not whole: it is cut off at its end; fetch it again")]
    if code := _code_findings(snapshot, use):
        return code
    names = str(snapshot.json("tokenizer_config.json").get("tokenizer_class") or "")
    if found == ["vocab.json"] and not snapshot.has("merges.txt") and _WITH_MERGES.fullmatch(names):
        return [
            Finding(
                f"its tokenizer is {names}, which reads vocab.json and merges.txt, and merges.txt is missing; add it "
                "to the model's files in bundle.yml and build the bundle again"
            )
        ]
    return []


def _needs_none(config: dict[str, Any], use: Use) -> bool:
    """Return whether a folder is served without a tokenizer of its own."""
    elsewhere = use.role == "draft" or use.argument("tokenizer") or use.argument("skip-tokenizer-init")
    no_text = any(name.startswith(_NO_TEXT) for name in architectures_of(config))
    return bool(elsewhere) or "speculators_config" in config or no_text


def _ends(snapshot: Snapshot, name: str) -> bool:
    """Return whether a JSON object ends where its file does; such a file may have many megabytes."""
    with (snapshot.folder / name).open("rb") as stream:
        stream.seek(max(0, snapshot.sizes[name] - _TAIL))
        return stream.read().rstrip().endswith(b"}")


def _code_findings(snapshot: Snapshot, use: Use | None) -> list[Finding]:
    """Ask for the code of a tokenizer that only the repository's code reads: one without tokenizer.json."""
    named = snapshot.json("tokenizer_config.json").get("auto_map")
    value = named.get("AutoTokenizer") if isinstance(named, dict) else None
    first = next((item for item in value if item), None) if isinstance(value, list) else value
    if use is None or not isinstance(first, str) or "--" in first or snapshot.has("tokenizer.json"):
        return []
    file = f"{first.rpartition('.')[0].replace('.', '/')}.py"
    if not use.argument("trust-remote-code"):
        text = f"its tokenizer is code of its own ({file}), and extra_args.trust-remote-code is not set; "
        return [Finding(text + "whether vLLM has one of its own for it is known at the start", refuses=False)]
    if snapshot.has(file):
        return []
    add = "add it to the model's files in bundle.yml and build the bundle again"
    return [Finding(f"its tokenizer is code of its own, and {file} is missing; {add}")]


def template_findings(snapshot: Snapshot, config: dict[str, Any], use: Use | None) -> list[Finding]:
    """Say that chats will fail for want of a template: a base model still completes prompts, so it is not refused."""
    if use is None or use.role == "draft" or use.task != "generate" or use.chat_template:
        return []
    if use.argument("tokenizer") or str(use.argument("tokenizer-mode") or "auto") not in ("auto", "hf", "slow"):
        return []
    if _OWN_CHAT.fullmatch(str(config.get("model_type"))) or snapshot.has("params.json", "tekken.json"):
        return []
    if any(name.startswith("chat_template") or "additional_chat_templates/" in name for name in snapshot.sizes):
        return []
    for name in ("tokenizer_config.json", "processor_config.json"):
        if snapshot.json(name).get("chat_template"):
            return []
    return [
        Finding(
            "it has no chat template, so /v1/chat/completions will refuse every request and only /v1/completions will "
            "answer; if it is no base model, add chat_template.jinja to its files or set chat_template",
            refuses=False,
        )
    ]
