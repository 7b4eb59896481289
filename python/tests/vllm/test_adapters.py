"""An adapter is served as its own files say, and refused with one sentence when they say otherwise."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.errors import InputError
from rackserve.vllm import (
    Instance,
    Sources,
    adapter_folders,
    config_of,
    parse_adapter,
    release_of,
    releases,
    validate_adapters,
    with_adapters,
)

if TYPE_CHECKING:
    from pathlib import Path

MODEL, ADAPTER = "0" * 40, "1" * 40
HOME = "/var/cache/huggingface"
LORA = {"name": "x", "repo": "o/x", "revision": ADAPTER}
ON_HOST = {"name": "y", "path": "/srv/y"}
NEWEST = release_of("0.33.0")


def instance(*lora: dict[str, Any], **changes: object) -> Instance:
    base = {"name": "a", "model": {"repo": "o/m", "revision": MODEL}, "max_num_seqs": 4, "max_model_len": 128}
    return Instance.model_validate({**base, "lora": list(lora), **changes})


def configuration(**changes: object) -> dict[str, Any]:
    return {"r": 8, "base_model_name_or_path": "o/m", "bias": "none", "modules_to_save": None, **changes}


def write_weights(path: Path, *names: str) -> None:
    entries = {
        name: {"dtype": "BF16", "shape": [1], "data_offsets": [2 * i, 2 * i + 2]} for i, name in enumerate(names)
    }
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2 * len(names)))


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Give a bundle with a model, one adapter for it, and a host with another one of rank 20."""
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    model.mkdir()
    adapter.mkdir()
    write_weights(model / "model.safetensors", "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight")
    (adapter / "adapter_config.json").write_text(json.dumps(configuration()))
    write_weights(
        adapter / "adapter_model.safetensors",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
    )
    return Sources({("o/m", MODEL): model, ("o/x", ADAPTER): adapter}, {"/srv/y": json.dumps(configuration(r=20))})


def with_configuration(sources: Sources, **changes: object) -> Sources:
    folder = sources.snapshots["o/x", ADAPTER]
    (folder / "adapter_config.json").write_text(json.dumps(configuration(**changes)))
    return sources


def test_adapters_that_fit_are_let_through(sources: Sources) -> None:
    assert validate_adapters(instance(LORA, ON_HOST), sources, NEWEST) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r": 1024}, "has rank 1024; vLLM 0.33.0 takes at most 512"),
        ({"rank_pattern": {"q_proj": 513}}, "has rank 513"),
        ({"base_model_name_or_path": "o/other"}, "is for o/other, the instance serves o/m"),
        ({"base_model_name_or_path": None}, "is for a model that it does not name"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save has lm_head, which vLLM does not serve"),
        ({"use_dora": True}, "use_dora is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"r": "many"}, "is not the configuration of a LoRA adapter"),
    ],
)
def test_an_adapter_that_vllm_would_not_serve_is_refused(
    changes: dict[str, Any], reason: str, sources: Sources
) -> None:
    (problem,) = validate_adapters(instance(LORA), with_configuration(sources, **changes), NEWEST)
    assert problem.startswith("instance 'a': adapter 'x'")
    assert reason in problem


def test_an_adapter_for_another_name_of_the_model_is_accepted_with_base(sources: Sources) -> None:
    other = with_configuration(sources, base_model_name_or_path="/home/me/m")
    assert validate_adapters(instance({**LORA, "base": "/home/me/m"}), other, NEWEST) == []


def test_an_adapter_that_the_bundle_or_the_host_lacks_is_refused_with_what_to_do(sources: Sources) -> None:
    absent = {**LORA, "revision": "2" * 40}
    (problem,) = validate_adapters(instance(absent), sources, NEWEST)
    assert f"o/x at {'2' * 40} is not in the bundle; add it to models in bundle.yml" in problem
    (problem,) = validate_adapters(instance({"name": "z", "path": "/srv/z"}), sources, NEWEST)
    assert "/srv/z/adapter_config.json is not on the host" in problem


def test_an_adapter_for_layers_that_the_model_lacks_is_refused(sources: Sources) -> None:
    folder = sources.snapshots["o/x", ADAPTER]
    write_weights(folder / "adapter_model.safetensors", "base_model.model.model.layers.0.mlp.w9.lora_A.weight")
    (problem,) = validate_adapters(instance(LORA), sources, NEWEST)
    assert "it changes w9, which o/m does not have" in problem
    (folder / "adapter_model.safetensors").unlink()
    (problem,) = validate_adapters(instance(LORA), sources, NEWEST)
    assert "has no adapter_model.safetensors" in problem


def test_a_rank_that_the_operator_limited_below_the_adapters_is_refused(sources: Sources) -> None:
    limited = instance(ON_HOST, extra_args={"max-lora-rank": 16})
    (problem,) = validate_adapters(limited, sources, NEWEST)
    assert "has rank 20; extra_args.max-lora-rank is 16; leave that out" in problem
    with pytest.raises(InputError, match=r"instance 'a' has an adapter of rank 20; extra_args\.max-lora-rank is 16"):
        with_adapters(limited, sources, NEWEST, HOME)


def test_adapters_are_folders_of_the_host_with_the_flags_that_they_need(sources: Sources) -> None:
    subject = with_adapters(instance(LORA, ON_HOST), sources, NEWEST, HOME)
    config = config_of(subject, NEWEST, flavour="cpu", engine="/s", shutdown_timeout=1)
    assert config["enable-lora"] is True
    assert config["lora-modules"] == [f"x={HOME}/hub/models--o--x/snapshots/{ADAPTER}", "y=/srv/y"]
    assert (config["max-lora-rank"], config["max-loras"], config["max-cpu-loras"]) == (32, 2, 2)


def test_an_instance_without_adapters_stays_as_it_is(sources: Sources) -> None:
    assert with_adapters(instance(), sources, NEWEST, HOME) == instance()


@pytest.mark.parametrize("version", releases())
@pytest.mark.parametrize(("rank", "allowed"), [(4, 8), (8, 8), (9, 16), (200, 256)])
def test_the_rank_is_the_smallest_that_the_release_takes(
    version: str, rank: int, allowed: int, sources: Sources
) -> None:
    subject = with_adapters(instance(LORA), with_configuration(sources, r=rank), release_of(version), HOME)
    assert subject.extra_args["max-lora-rank"] == allowed


def test_no_more_adapters_are_computed_at_once_than_requests(sources: Sources) -> None:
    many = [{**LORA, "name": f"x{n}"} for n in range(12)]
    extra = with_adapters(instance(*many), sources, NEWEST, HOME).extra_args
    assert (extra["max-loras"], extra["max-cpu-loras"]) == (4, 12)
    assert with_adapters(instance(*many, max_num_seqs=64), sources, NEWEST, HOME).extra_args["max-loras"] == 8


def test_what_is_no_adapter_is_named() -> None:
    with pytest.raises(InputError, match=r"^here is not the configuration of a LoRA adapter .*fetch it again"):
        parse_adapter("[]", "here")


def test_a_host_is_asked_about_the_operators_folders_only() -> None:
    one, other = instance(LORA, ON_HOST), instance(ON_HOST, name="b")
    assert adapter_folders([one.model_dump(), other.model_dump()]) == ["/srv/y"]


def test_a_host_is_not_asked_for_instances_that_are_refused_anyway() -> None:
    assert adapter_folders([{"name": "a", "lora": [ON_HOST]}]) == []
