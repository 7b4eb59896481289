"""Every message that the documentation quotes is one that the source can write."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import pytest
import yaml
from pydantic_core._pydantic_core import list_all_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
# What a template fills in.
GAP = "\x00"
# What a quotation leaves open: "…", a name in capitals, an example in quotes, a number, a path or a repository.
_NAMES = "DAY|DIR|FILE|HOST|KEY|NAME|PATH|REASON|REPO|REVISION|[A-Z]"
OPEN = re.compile(rf"…|'[^']*'|\S*\b(?:{_NAMES})\b\S*|\S*\d\S*|\S*\w/\w\S*")
# Where one message is put into another.
SEAM = re.compile(r": |; | \(")


def quoted(page: str) -> Iterator[str]:
    """Yields the messages of a page: first cells of tables headed `message`, spans with "…", blocks ```message."""
    yield from re.findall(r"```message\n(.*?)\n```", page, re.DOTALL)
    page = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    for table in re.findall(r"(?m)^\| message \|.*\n\|-.*\n((?:\|.*\n)+)", page):
        for row in table.splitlines():
            yield from re.findall(r"`([^`]+)`", row.split(" | ")[0])
    prose = "\n".join(line for line in page.splitlines() if not line.startswith("|"))
    yield from (span for span in re.findall(r"`([^`]+)`", prose) if "…" in span and len(span.split()) > 2)


def _python(tree: ast.AST, known: Mapping[str, ast.expr]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text):
                yield text
            case ast.JoinedStr():
                yield _text(node, known)
            case ast.FunctionDef():
                yield from (_text(inner, {**known, **_local(node)}) for inner in ast.walk(node) if _is_text(inner))


def _is_text(node: ast.AST) -> TypeGuard[ast.JoinedStr]:
    return isinstance(node, ast.JoinedStr)


def _constants(tree: ast.AST) -> dict[str, ast.expr]:
    """Returns the constants of a module, which have names in capitals."""
    return {name: value for name, value in _assigned(tree) if name.isupper() and isinstance(value, ast.Constant)}


def _local(function: ast.FunctionDef) -> dict[str, ast.expr]:
    """Returns the texts that a function puts into others by a name, such as a label."""
    return {name: value for name, value in _assigned(function) if _is_text(value)}


def _assigned(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value


def _text(value: ast.expr, known: Mapping[str, ast.expr]) -> str:
    match value:
        case ast.Constant(value=text):
            return str(text)
        case ast.JoinedStr(values=values):
            return "".join(_text(inner, known) for inner in values)
        case ast.FormattedValue(value=ast.Name(id=name)) if name in known:
            return _text(known[name], {key: text for key, text in known.items() if key != name})
    return GAP


def _scalars(value: object) -> Iterator[str]:
    match value:
        case str():
            yield re.sub(r"{{.*?}}|{%.*?%}|{problems}", GAP, value, flags=re.DOTALL)
            yield from re.findall(r"'([^']{8,})'", value)
        case dict():
            for inner in value.values():
                yield from _scalars(inner)
        case list():
            for inner in value:
                yield from _scalars(inner)


@cache
def source() -> str:
    """Returns every text that the project can write, one a line."""
    texts: list[str] = [error["message_template_python"] for error in list_all_errors()]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "python/src").rglob("*.py")]
    known = {name: value for tree in trees for name, value in _constants(tree).items()}
    texts.extend(text for tree in trees for text in _python(tree, known))
    for path in (*(ROOT / "roles").glob("*/tasks/*.yml"), *(ROOT / "python/src/rackserve/data").glob("*.yml")):
        texts.extend(_scalars(yaml.safe_load(path.read_text(encoding="utf-8"))))
    for path in (ROOT / "roles").rglob("*.lua"):
        text = re.sub(r"\"\s*\.\.\s*\"", "", path.read_text(encoding="utf-8"))
        texts.extend(re.sub(r"\"\s*\.\..*?\.\.\s*\"", GAP, line) for line in text.splitlines())
    return "\n".join(" ".join(text.split()) for text in texts)


def unknown(message: str, texts: str) -> list[str]:
    """Returns the parts of a message that no text has; the message itself when it leaves everything open."""
    parts = [part.strip() for part in SEAM.split(" ".join(message.split()))]
    spoken = [part for part in parts if len(re.findall(r"\w{2,}\S*(?:\s|$)", OPEN.sub(" ", part))) > 1]
    return [part for part in spoken if not _is_written(part, texts)] if spoken else [message]


def _is_written(part: str, texts: str) -> bool:
    """Tells whether a text has the part, read as a pattern; or the part is an example of what a text makes."""
    literals = [re.escape(piece.strip()) for piece in OPEN.split(part) if piece.strip()]
    if re.search(r"[^\n]{0,90}?".join(literals), texts):
        return True
    pieces = (piece for text in texts.splitlines() for piece in SEAM.split(text) if GAP in piece)
    return any(
        re.fullmatch(".+".join(map(re.escape, piece.split(GAP))), part)
        for piece in pieces
        if len(re.findall(r"\w{2,}", piece)) > 2  # one of fewer words would make anything
    )


MESSAGES = [(page, message) for page in PAGES for message in quoted(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    ("page", "message"), MESSAGES, ids=lambda value: value.stem if isinstance(value, Path) else None
)
def test_a_quoted_message_is_in_the_source(page: Path, message: str) -> None:
    assert unknown(message, source()) == [], f"{page.name} quotes what nothing writes"


def test_the_troubleshooting_page_is_read() -> None:
    assert sum(page.name == "troubleshooting.md" for page, _ in MESSAGES) > 30


PAGE = """# Page

| message | do |
|---|---|
| `disk PATH has N GB free`, `no such model` | Free it. |

| seen | means |
|---|---|
| `of another program` | no |

Then `it is version … of NAME` appears, `a command with options` does not.

```message
instance 'chat': GPU 3 is gone
```

```
a block of something else …
```
"""


def test_what_is_quoted() -> None:
    assert set(quoted(PAGE)) == {
        "disk PATH has N GB free",
        "no such model",
        "it is version … of NAME",
        "instance 'chat': GPU 3 is gone",
    }


def _texts(template: str) -> str:
    tree = ast.parse(template)
    return "\n".join(_python(tree, _constants(tree)))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ('raise Refused(f"disk {path} has {free} GB free; free more")', "disk PATH has N GB free"),
        ('LIMIT = 3\nfail(f"at most {LIMIT} of them " f"for {name!r}")', "at most 3 of them for 'chat'"),
        (
            'fail(f"extra_args.{key} is {value!r}, which {version} does not have: {why}")',
            "extra_args.a is b, which c does not have",
        ),
        ('text = f"{label}: {why}"\nwhy = "the key is unknown"', "instance 'N': the key is unknown"),
    ],
)
def test_a_message_that_the_source_writes_is_found(template: str, message: str) -> None:
    assert unknown(message, _texts(template)) == []


@pytest.mark.parametrize(
    "message", ["disk PATH has N MB free", "the disk is full", "N GB …", "disk PATH … gone for good"]
)
def test_a_message_that_the_source_does_not_write_is_named(message: str) -> None:
    assert unknown(message, _texts('raise Refused(f"disk {path} has {free} GB free; free more")')) == [message]
