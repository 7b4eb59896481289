"""A template is found in the inventory or with the model, and is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.errors import InputError
from rackserve.vllm import Instance, find_template

if TYPE_CHECKING:
    from pathlib import Path

REVISION = "0" * 40
CHAT = "{% for m in messages %}{% if not m.content %}{% continue %}{% endif %}{{ m.content }}{% endfor %}"
TRAINED = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


def on_host(tmp_path: Path, name: str | None) -> str | None:
    base = {"name": "a", "model": {"repo": "o/m", "revision": REVISION}, "max_num_seqs": 4, "max_model_len": 128}
    instance = Instance.model_validate({**base, "chat_template": name})
    found = find_template(instance, tmp_path / "site", {("o/m", REVISION): tmp_path / "model"}, "/hf")
    return found.on_host if found else None


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Give an inventory's folder, and a model with a template of its own beside it."""
    (tmp_path / "site/templates").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tool_use.jinja").write_text(CHAT)
    return tmp_path / "site"


@pytest.mark.parametrize("text", [CHAT, TRAINED], ids=["loop controls", "generation"])
def test_a_file_of_the_inventory_has_the_digest_of_its_text_as_name(text: str, site: Path) -> None:
    (site / "templates/t.jinja").write_text(text)
    first = on_host(site.parent, "templates/t.jinja")
    assert first is not None
    assert first.startswith("/etc/vllm/templates/")
    (site / "templates/t.jinja").write_text(text + "!")
    assert on_host(site.parent, "templates/t.jinja") != first


def test_a_file_of_the_model_stays_in_the_cache(site: Path) -> None:
    snapshot = f"/hf/hub/models--o--m/snapshots/{REVISION}"
    assert on_host(site.parent, "tool_use.jinja") == f"{snapshot}/tool_use.jinja"
    (site / "tool_use.jinja").write_text(CHAT)
    assert str(on_host(site.parent, "tool_use.jinja")).startswith("/etc/vllm/templates/")


def test_an_instance_without_one_uses_the_models_own(site: Path) -> None:
    assert on_host(site.parent, None) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"{% for m in messages %}",
            r": .*t\.jinja is not a valid Jinja2 template: line 1: Unexpected end of template",
        ),
        (b"\xff", r": .*t\.jinja cannot be read: .*save it as UTF-8"),
        (b" \n", r": .*t\.jinja is empty; leave chat_template out"),
        (None, r" is neither a file in the inventory's folder .*site nor one of o/m in the bundle"),
    ],
)
def test_what_is_no_template_is_refused(content: bytes | None, reason: str, site: Path) -> None:
    if content is not None:
        (site / "t.jinja").write_bytes(content)
    with pytest.raises(InputError, match=rf"^instance 'a': chat_template 't\.jinja'{reason}"):
        on_host(site.parent, "t.jinja")


def test_an_absolute_path_is_refused_since_it_would_not_be_copied(site: Path) -> None:
    with pytest.raises(InputError, match="is an absolute path; put the file into the inventory's folder"):
        on_host(site.parent, "/etc/vllm/t.jinja")
