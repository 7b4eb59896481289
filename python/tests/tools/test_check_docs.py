"""The check of the documentation, firing and silent."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

import check_docs

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """# Page

## The host's `disk`, again

One sentence.
Another, e.g. this one (see `a.md. B`, or vLLM 0.26.0. Both count).

- An item.
  Its second sentence.

1. A step.

| a table | may hold. Several sentences. |
|---|---|

```
A block. Of code.
```

See [above](#the-hosts-disk-again), [the web](https://example.com/x), `docs/page.md`, `roles/<role>/` and `python/`.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "python").mkdir()
    (tmp_path / "docs/page.md").write_text(PAGE)
    (tmp_path / "rules.yml").write_text("runbook: docs/page.md#the-hosts-disk-again\nother: https://x.y/docs/no.md\n")
    (tmp_path / "data.bin").write_bytes(b"\xff\xfe docs/none.md")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def findings(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert check_docs.main(["--root", str(root)]) == 1
    return capsys.readouterr().out.splitlines()


def test_a_good_page_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_docs.main(["--root", str(root)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("One. Two.", "22: sentence: 2 sentences in one line; give each a line of its own"),
        ("- `one`. **Two!** Three.", "22: sentence: 3 sentences in one line; give each a line of its own"),
        (f"{'long ' * 100}end", "22: length: 503 characters, at most "),
        ("[gone](other.md)", "link: other.md: that file does not exist"),
        ("[gone](page.md#nowhere)", "link: page.md#nowhere: that page has no such heading"),
        ("![gone](picture.svg)", "link: picture.svg: that file does not exist"),
        ("Made by `python/tools/none.py`.", "path: python/tools/none.py: that file does not exist"),
    ],
)
def test_a_bad_line_is_named(root: Path, capsys: pytest.CaptureFixture[str], line: str, finding: str) -> None:
    (root / "docs/page.md").write_text(f"{PAGE}\n{line}\n")
    [found] = findings(root, capsys)
    assert found.startswith(f"docs/page.md:{finding}")


@pytest.mark.parametrize(
    ("mention", "wrong"),
    [
        ("docs/none.md", "that file does not exist"),
        ("docs/page.md#nowhere", "that page has no such heading"),
    ],
)
def test_a_mention_that_leads_nowhere_is_named(
    root: Path, capsys: pytest.CaptureFixture[str], mention: str, wrong: str
) -> None:
    (root / "rules.yml").write_text(f"---\nrunbook: {mention}\n")
    assert findings(root, capsys) == [f"rules.yml:2: mention: {mention}: {wrong}"]


def test_repeated_headings_are_numbered() -> None:
    assert check_docs.anchors("# A b\n\n## A b\n\n## A b\n") == {"a-b", "a-b-1", "a-b-2"}


def test_the_length_of_a_link_s_target_does_not_count(root: Path) -> None:
    (root / "docs/page.md").write_text(f"# Page\n\nSee [this](https://example.com/{'x' * check_docs.LENGTH}).\n")
    assert check_docs.check_page(root, root / "docs/page.md") == []
