"""Ask vLLM itself for the attention layers of known models, and for the longest request that it accepts.

Needs an environment that has vLLM 0.32.0 (its CPU build will do), torchvision for the models with images, and this
checkout's package on PYTHONPATH:

    export PYTHONPATH=python/src:python
    VENV/bin/python python/tools/ask_shapes.py record
    VENV/bin/python python/tools/ask_shapes.py mutate

`record` writes python/tests/capacity/vllm_shapes.json: of every file in python/tests/data/model_configs the layers that
vLLM's own class of the model builds, on torch's meta device, so that no weights are made. `mutate` changes, drops and
renames the keys of each of them and compares vLLM's answer with rackserve's; it exits with 1 where rackserve computes
another shape than vLLM.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity import ModelShape, NotComputedError, arithmetic_of, layout_of, longest_request, shape_of
from testing.known_models import model_configs

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASE: Final = "0.32.0"
ANSWERS: Final = Path(__file__).parents[1] / "tests" / "capacity" / "vllm_shapes.json"
_SECONDS: Final = 120
_KINDS: Final = {
    "FullAttentionSpec": "full",
    "MLAAttentionSpec": "latent",
    "SlidingWindowSpec": "sliding",
    "ChunkedLocalAttentionSpec": "chunked",
}
_LIMIT: Final = re.compile(
    r"greater than the derived max_model_len \(.*?=(\S+) or model_max_length=(\S+) in", re.DOTALL
)
_CLASS: Final = """
from transformers import AutoConfig, PretrainedConfig

class {name}(PretrainedConfig):
    model_type = {kind!r}
    attribute_map = {renamed!r}
    tie_word_embeddings = False

    def __init__(self, **given):
        for key in ("llm_config", "text_config", "vision_config"):
            if isinstance(given.get(key), dict):
                inner = dict(given[key])
                kind = inner.pop("model_type", "")
                try:
                    given[key] = AutoConfig.for_model(kind, **inner)
                except (KeyError, ValueError):
                    given[key] = PretrainedConfig(**inner)
        for key, value in given.items():
            if key not in ("torch_dtype", "rope_scaling"):
                setattr(self, key, value)
        super().__init__(**given)
"""


class Vllm:
    """vLLM's own reading of a config.json."""

    def __init__(self) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.torch = importlib.import_module("torch")
        fake = self.torch.library.register_fake
        self.torch.library.register_fake = lambda name, *rest, **more: (  # of a torchvision built for a GPU
            (lambda made: made) if str(name).startswith("torchvision") else fake(name, *rest, **more)
        )
        registry = importlib.import_module("vllm.model_executor.models.registry")
        vars(registry)["_run_in_subprocess"] = lambda call: call()  # a process for each model takes 20 s
        vars(importlib.import_module("time"))["sleep"] = lambda _: None  # between its tries to read a config.json
        self.parallel = importlib.import_module("vllm.distributed.parallel_state")
        self.arguments = importlib.import_module("vllm.engine.arg_utils").EngineArgs
        self.current = importlib.import_module("vllm.config").set_current_vllm_config
        self.build = importlib.import_module("vllm.model_executor.model_loader.utils").initialize_model
        self.ready = False

    def ask(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return layers, heads and the longest request; or what vLLM says when it refuses the model."""
        signal.alarm(_SECONDS)
        try:
            return self._ask({key: value for key, value in config.items() if key != "quantization_config"})
        except (Exception, SystemExit) as refused:  # noqa: BLE001 - whatever a model's class raises
            return {"refused": f"{type(refused).__name__}: {' '.join(str(refused).split())[:160]}"}
        finally:
            signal.alarm(0)

    def _ask(self, config: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="model") as name:
            folder = Path(name)
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            _write_class(folder, config)
            engine = self.arguments(
                model=name, skip_tokenizer_init=True, load_format="dummy", enforce_eager=True, trust_remote_code=True
            ).create_engine_config()
            with self.current(engine):
                self._groups()
                self.torch.set_default_dtype(engine.model_config.dtype)
                self._model(engine)
            layers = engine.compilation_config.static_forward_context.values()
            specs = [
                layer.get_kv_cache_spec(engine)
                for layer in layers
                if hasattr(layer, "get_kv_cache_spec") and not getattr(layer, "kv_sharing_target_layer_name", None)
            ]
            read = engine.model_config.model_arch_config
            return {
                "layers": [[*kind, len(list(same))] for kind, same in groupby(_kind(spec) for spec in specs if spec)],
                "heads": read.total_num_attention_heads,
                "longest": _longest(engine.model_config),
            }

    def _model(self, engine: Any) -> None:  # noqa: ANN401 - vLLM's own
        try:
            with self.torch.device("meta"):
                self.build(engine)
        except (NotImplementedError, RuntimeError) as wrong:
            if "meta" not in str(wrong):
                raise
            engine.compilation_config.static_forward_context.clear()
            engine.compilation_config.static_all_moe_layers.clear()
            self.build(engine)

    def _groups(self) -> None:
        if not self.ready:
            self.parallel.init_distributed_environment(1, 0, "tcp://127.0.0.1:29719", 0, "gloo")
            self.ready = True
        self.parallel.destroy_model_parallel()
        self.parallel.initialize_model_parallel(1, 1)


def ours(config: dict[str, Any]) -> dict[str, Any]:
    """Return rackserve's answer in the same words; `not computed` with the reason when it has none."""
    try:
        shape = shape_of(config)
        layout = layout_of(shape, arithmetic_of(RELEASE), device="cuda", batched_tokens=8192)
    except NotComputedError as why:
        return {"not computed": str(why)}
    kinds = [_own_kind(shape, kind.name.lower(), layout.window) for kind in shape.kv_layers]
    return {
        "layers": [[*kind, len(list(same))] for kind, same in groupby(kinds)],
        "heads": shape.heads,
        "longest": longest_request(shape, arithmetic_of(RELEASE)),
    }


def _own_kind(shape: ModelShape, kind: str, window: int) -> tuple[str, int, int, int]:
    if shape.latent:
        return "latent", 1, shape.latent.kv_lora_rank + shape.latent.rope_dim, 0
    return kind, shape.kv_heads, shape.head_size, 0 if kind == "full" else window


def _kind(spec: Any) -> tuple[str, int, int, int]:  # noqa: ANN401 - vLLM's own
    window = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None) or 0
    name = type(spec).__name__
    return _KINDS.get(name, name), getattr(spec, "num_kv_heads", 0), getattr(spec, "head_size", 0), window


def _longest(model: Any) -> int | None:  # noqa: ANN401 - vLLM's own
    try:
        model.get_and_verify_max_len(1 << 40)
    except ValueError as refused:
        found = _LIMIT.search(str(refused))
        if found is None:
            raise
        return max(int(float(found[1])), 0 if found[2] == "None" else int(float(found[2])))
    return None


def _write_class(folder: Path, config: dict[str, Any]) -> None:
    """Write a class for a configuration that comes with its own code: it keeps what the file says."""
    reference = (config.get("auto_map") or {}).get("AutoConfig")
    if reference:
        module, name = reference.split(".")
        renamed = {"num_hidden_layers": "num_layers"} if "exaone" in module else {}
        text = _CLASS.format(name=name, kind=config["model_type"], renamed=renamed)
        (folder / f"{module}.py").write_text(text, encoding="utf-8")


def mutations(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the same configuration with one key dropped, renamed, halved or doubled; the language model's keys only."""
    path = next((key for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), None)
    text = config[path] if path else config
    for key, value in text.items():
        if key in ("architectures", "model_type", "torch_dtype", "auto_map", "dtype") or isinstance(value, dict | str):
            continue
        rest = {name: other for name, other in text.items() if name != key}
        changes = {"dropped": rest, "renamed": {**rest, f"{key}_count": value}}
        if isinstance(value, bool):
            changes["turned"] = {**rest, key: not value}
        else:
            changes["null"] = {**rest, key: None}
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            changes["doubled"], changes["halved"] = {**rest, key: 2 * value}, {**rest, key: value // 2}
        for what, changed in changes.items():
            yield f"{key} {what}", {**config, path: changed} if path else changed


def record(vllm: Vllm, names: list[str]) -> bool:
    """Write vLLM's answers: for every known configuration, or for these and what was there of others."""
    configs = model_configs()
    earlier = json.loads(ANSWERS.read_text(encoding="utf-8")) if names else {}
    answers = {name: earlier[name] for name in configs if name in earlier and name not in names}
    for name in names or configs:
        answers[name] = vllm.ask(configs[name])
        print(name, json.dumps(answers[name]), flush=True)
    lines = [f"  {json.dumps(name)}: {json.dumps(answers[name])}" for name in sorted(answers)]
    ANSWERS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return True


def mutate(vllm: Vllm, names: list[str]) -> bool:
    """Compare vLLM's answers with rackserve's for every change of every known configuration."""
    counts = {"agree": 0, "not computed": 0, "refused by vLLM": 0, "DIFFER": 0}
    for name, config in model_configs().items():
        if names and name not in names:
            continue
        for what, changed in mutations(config):
            answer = ours(changed)
            if "not computed" in answer:
                counts["not computed"] += 1
                continue
            said = vllm.ask(changed)
            if answer["longest"] is None:  # no length is claimed
                said.pop("longest", None)
                answer.pop("longest")
            verdict = "refused by vLLM" if "refused" in said else "agree" if said == answer else "DIFFER"
            counts[verdict] += 1
            if verdict != "agree":
                print(f"{verdict}: {name}: {what}: vLLM {json.dumps(said)}; rackserve {json.dumps(answer)}", flush=True)
        print(name, counts, flush=True)
    return not counts["DIFFER"]


def main() -> int:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "mutate"))
    parser.add_argument("names", nargs="*", help="configurations to ask about (all)")
    args = parser.parse_args()
    vllm = Vllm()
    act = record if args.command == "record" else mutate
    return 0 if act(vllm, args.names) else 1


def _late(*_: object) -> None:
    raise TimeoutError(f"no answer within {_SECONDS} s")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _late)
    sys.exit(main())
