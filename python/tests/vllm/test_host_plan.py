"""A host's plan has every file of its instances, and everything that the inventory no longer has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rackserve.bundle._manifest import Manifest, Model
from rackserve.errors import InputError
from rackserve.gpu import Gpu
from rackserve.vllm import HostOptions, HostPlan, HostState, host_plan
from rackserve.vllm._chat_templates import FOLDER_ON_HOST
from rackserve.vllm._files import CONFIG, GENERATION_TEMPLATES, LIB, File
from testing.model_folders import Layout

ROLE = Path(__file__).parents[3] / "roles" / "vllm"
REVISION = "0" * 40
BUS, UUID = "0000:10:00.0", f"GPU-{'0' * 36}"
T4 = Gpu.model_validate({"bus_id": BUS, "device_id": "1eb8", "index": 3, "uuid": UUID, "capability": [7, 5]})
MANIFEST = Manifest("site", 1, None, (), (Model("o/m", REVISION, "models/m", 1),), (), (), None, ())
UNITS = Path("/etc/systemd/system")


def instance(name: str = "a", **changes: Any) -> dict[str, Any]:
    model = {"repo": "o/m", "revision": REVISION, "served_names": ["m"]}
    return {"name": name, "model": model, "max_num_seqs": 1, "max_model_len": 8, **changes}


def plan(*raw: dict[str, Any], host: HostState | None = None, bundle: Path = Path("/none"), **changes: Any) -> HostPlan:
    options = {
        "vllm": "0.32.0",
        "release": "0.32.0-0123",
        "templates": ROLE / "templates",
        "flavour": "cpu",
        "listen_address": "10.0.0.5",
        "allowed_clients": ["10.0.0.9", "10.0.0.5"],
        "cpu_kvcache_gib": 2,
        "shutdown_timeout": "60",
        "start_timeout": "600",
        "serial_starts": "no",
        "memory_max": "95%",
        "root": "/opt/vllm",
        "hf_home": "/hf",
        "site": "/none",
        **changes,
    }
    return host_plan(raw, HostOptions.model_validate(options), MANIFEST, bundle, host or HostState())


def files_of(found: HostPlan) -> list[File]:
    return [*found.units, *found.dropins, *found.arguments, *found.settings]


def test_every_instance_has_its_files_once() -> None:
    found = plan(instance("a"), instance("b"))
    files = files_of(found)
    paths = [*(file.path for file in files), *found.links]
    assert len(set(paths)) == len(paths) == 4 + 2 * (2 + 1 + 5 + 4)
    assert {str(Path(path).parent) for path in paths} | {CONFIG} <= {CONFIG, str(UNITS), *found.folders}
    secret = [file.path for file in files if file.mode == "0600"]
    assert secret == [f"{one.generation}/engine.env" for one in found.instances]
    assert [file.validate is not None for file in found.arguments] == [True, True]


def test_every_template_of_the_role_is_printed_and_every_printed_one_exists() -> None:
    printed = {file.template for file in files_of(plan(instance()))}
    there = {str(path.relative_to(ROLE / "templates")) for path in (ROLE / "templates").rglob("*.j2")}
    assert printed == there
    assert set(GENERATION_TEMPLATES) <= there


def digest(raw: dict[str, Any] | None = None, **changes: Any) -> str:
    return plan(raw or instance(), **changes).instances[0].digest


@pytest.mark.parametrize(
    "changes",
    [
        {"vllm": "0.26.0"},
        {"release": "0.32.0-4567"},
        {"root": "/srv/vllm"},
        {"flavour": "cuda"},
        {"cpu_kvcache_gib": 4},
        {"shutdown_timeout": 10},
        {"start_timeout": 10},
        {"memory_max": "50%"},
        {"hf_home": "/cache"},
        {"raw": instance(max_num_seqs=2)},
        {"raw": instance(extra_args={"seed": 1})},
        {"raw": instance(prefix_caching=False)},
        {"raw": instance("b")},
        {"raw": {**instance(), "model": {"repo": "o/m", "revision": REVISION, "served_names": ["n"]}}},
    ],
    ids=str,
)
def test_all_that_an_engine_is_started_with_names_its_generation(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest() == digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"listen_address": "10.0.0.6"},
        {"allowed_clients": []},
        {"serial_starts": "yes"},
        {"site": "/elsewhere"},
        {"raw": instance(port=8009)},
    ],
    ids=str,
)
def test_what_only_the_entry_reads_leaves_the_generation_as_it_is(changes: dict[str, Any]) -> None:
    assert digest(**changes) == digest()


def test_another_instance_leaves_the_generation_as_it_is() -> None:
    assert plan(instance(), instance("b")).instances[0].digest == digest()


def test_another_template_of_a_unit_is_another_generation(tmp_path: Path) -> None:
    shutil.copytree(ROLE / "templates", tmp_path / "t")
    assert digest(templates=tmp_path / "t") == digest()
    (tmp_path / "t/engine.service.j2").write_text("[Service]\n")
    assert digest(templates=tmp_path / "t") != digest()


def test_the_proxy_finds_the_live_engine_through_links() -> None:
    found = plan(instance())
    (one,) = found.instances
    joined = next(file for file in found.settings if file.path.endswith("join.conf"))
    assert joined.data == {"engine": f"{CONFIG}/a/current/engine.sock", "unit": ""}
    assert found.links[f"{one.generation}/engine.sock"] == one.engine == f"/run/vllm-a.{one.digest}/api.sock"
    of_proxy = found.links[f"{UNITS}/vllm-proxy@a.service.d/20-live.conf"]
    assert of_proxy == f"{CONFIG}/a/current/join.conf"
    assert len(joined.data["engine"]) < 108, "sun_path of unix(7)"


def test_a_template_asks_for_nothing_that_its_data_lacks() -> None:
    found = plan(instance(), flavour="cuda")
    for file in (file for file in files_of(found) if file.template != "engine.env.j2"):
        text = (ROLE / "templates" / file.template).read_text()
        asked = {part.split()[0].split("}")[0].split(")")[0] for part in text.split("__vllm_item.data.")[1:]}
        assert asked <= set(file.data) | {"config", "vllm"}, file.template


def test_the_roles_own_folders_are_those_of_the_plan() -> None:
    own = {name: yaml.safe_load((ROLE.parent / name / "vars" / "main.yml").read_text()) for name in ("vllm", "stack")}
    assert own["stack"]["__stack_instance_dir"] == CONFIG
    assert own["stack"]["__stack_lib"] == LIB
    assert own["vllm"]["__vllm_template_dir"] == FOLDER_ON_HOST
    assert own["vllm"]["__vllm_unit_dir"] == str(UNITS)


def test_all_parts_of_an_instance_agree_on_where_its_engine_listens() -> None:
    for version, address in (("0.32.0", "/run/vllm-a.{}/api.sock"), ("0.6.4.post1", "127.0.0.1:8000")):
        found = plan(instance(), vllm=version)
        (one,) = found.instances
        assert one.engine == one.probe["engine"] == address.format(one.digest)
        assert one.engine in (one.config.get("uds"), f"{one.config.get('host')}:{one.config.get('port')}")


def test_an_engine_without_a_socket_is_joined_in_its_namespace() -> None:
    found = plan(instance(), vllm="0.6.4.post1")
    joined = next(file for file in found.settings if file.path.endswith("join.conf"))
    assert joined.data == {"engine": "127.0.0.1:8000", "unit": found.instances[0].unit}


def test_an_engine_gets_its_gpus_as_its_release_reads_them() -> None:
    for version, expected in (("0.32.0", UUID), ("0.22.1", "3")):
        (one,) = plan(instance(gpus=[BUS]), flavour="cuda", vllm=version, host=HostState(gpus=[T4])).instances
        assert one.environment["CUDA_VISIBLE_DEVICES"] == expected
        assert one.config["dtype"] == "float16"
    (blind,) = plan(instance(gpus=[BUS]), flavour="cuda").instances
    assert (blind.config["dtype"], blind.environment["CUDA_VISIBLE_DEVICES"]) == ("auto", BUS)


def test_only_a_gpu_host_gives_its_engines_gpus() -> None:
    for flavour in ("cpu", "cuda"):
        unit = next(file for file in plan(instance(), flavour=flavour).settings if file.template == "engine.service.j2")
        assert unit.data["on_gpus"] == (flavour == "cuda")


def test_arguments_of_the_command_line_are_checked_with_the_file() -> None:
    found = plan(instance(), vllm="0.6.4.post1")
    command = found.arguments[0].validate or ""
    assert command.startswith("/opt/vllm/releases/0.32.0-0123/bin/python -I -B ")
    assert command.endswith(f"--unit {found.instances[0].unit} --user vllm %s o/m --served-model-name m")


@pytest.mark.parametrize("limit", ["95%", "99.5%", "200G", "infinity", "34359738368"])
def test_the_memory_of_an_instance_has_a_limit(limit: str) -> None:
    unit = next(file for file in plan(instance(), memory_max=limit).settings if file.template == "engine.service.j2")
    assert unit.data["memory_max"] == limit


@pytest.mark.parametrize("limit", ["", "200 GB", "lots", "-1", "95%\nExecStart=/bin/true"])
def test_a_limit_that_systemd_does_not_read_is_refused(limit: str) -> None:
    with pytest.raises(InputError, match=r"vllm_memory_max is .*; set a share"):
        plan(instance(), memory_max=limit)


def test_times_of_the_units_follow_from_those_of_the_inventory() -> None:
    found = plan(instance())
    unit, listener = found.settings[3], found.units[0]
    assert (unit.data["stop_timeout"], unit.data["start_limit_sec"]) == (90, 5 * (600 + 90 + 60))
    assert listener.data["clients"] == ["10.0.0.5", "10.0.0.9"]


def test_instances_of_one_gpu_start_one_after_the_other() -> None:
    found = plan(
        instance("a", gpus=[0], gpu_memory_utilization=0.4), instance("b", gpus=[0], gpu_memory_utilization=0.4)
    )
    assert [one.after for one in found.instances] == [[], ["a"]]
    orders = [file.data["after"] for file in found.dropins if file.template.startswith("vllm@.service.d")]
    assert orders == [[], [found.instances[0].unit]]


def test_what_the_inventory_no_longer_has_is_removed() -> None:
    assert plan(instance(), host=HostState(written=["a", "old"])).removed == [{"name": "old"}]
    assert plan(instance(), host=HostState(written=["a"])).removed == []


def test_a_chat_template_of_the_inventory_is_copied_and_kept(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    found = plan(instance(chat_template="t.jinja"), site=str(tmp_path))
    ((path, source),) = found.chat_templates.items()
    assert source == str(tmp_path / "t.jinja")
    assert found.instances[0].config["chat-template"] == path
    before = found.instances[0].digest
    (tmp_path / "t.jinja").write_text("{{ messages }}!")
    assert plan(instance(chat_template="t.jinja"), site=str(tmp_path)).instances[0].digest != before


def test_adapters_are_read_in_the_bundle_and_on_the_host() -> None:
    lora = [{"name": "x", "path": "/srv/x"}]
    text = json.dumps({"r": 20, "base_model_name_or_path": "o/m", "bias": "none"})
    (one,) = plan(instance(lora=lora), host=HostState(adapters={"/srv/x": text})).instances
    assert (one.config["max-lora-rank"], one.config["lora-modules"]) == (32, ["x=/srv/x"])
    with pytest.raises(InputError, match="is not on the host"):
        plan(instance(lora=lora))


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        ([], {}, "vllm_instances is empty; define at least one instance"),
        ([instance(max_num_seqs=0)], {}, "vllm_instances: instance 'a': max_num_seqs"),
        ([instance(extra_args={"swap-space": 4})], {}, "vllm_instances: instance 'a': extra_args.swap-space is 4"),
        ([instance()], {"vllm": "0.1.0"}, "vLLM 0.1.0 is not a release that rackserve knows"),
        ([instance(chat_template="gone.jinja")], {}, "chat_template 'gone.jinja' is neither"),
    ],
)
def test_what_cannot_be_served_is_refused(raw: list[dict[str, Any]], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(*raw, **options)


def test_what_a_model_lacks_refuses_the_plan_or_is_a_note_of_it(tmp_path: Path) -> None:
    Layout("LlamaForCausalLM", "llama", template="").write(tmp_path / "models/m")
    (note,) = plan(instance(), bundle=tmp_path).notes
    assert note.startswith("instance 'a': o/m: it has no chat template, so /v1/chat/completions will refuse every")
    assert plan(instance(task="embed"), bundle=tmp_path).notes == []
    (tmp_path / "models/m/model.safetensors").unlink()
    with pytest.raises(InputError, match="instance 'a': o/m: it has no weights"):
        plan(instance(), bundle=tmp_path)


def test_a_checkpoint_has_to_fit_the_gpu_of_the_plan(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "fp8"}}
    Layout("LlamaForCausalLM", "llama", config=config).write(tmp_path / "models/m")
    cuda: dict[str, Any] = {"flavour": "cuda", "bundle": tmp_path, "host": HostState(gpus=[T4])}
    assert plan(instance(gpus=[3]), vllm="0.32.0", **cuda).notes == []
    with pytest.raises(InputError, match=r"vLLM 0\.10\.2 wants compute capability 8\.0 or more, and the GPU has 7\.5"):
        plan(instance(gpus=[3]), vllm="0.10.2", **cuda)
