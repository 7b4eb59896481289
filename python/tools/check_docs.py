"""Checks the form of every Markdown page, and every reference to one.

Rules:
    sentence   a line of prose holds one sentence, so that a diff shows the sentence that changed.
    length     a line of prose has 200 characters at most, link targets not counted. Tables, headings and code are free.
    link       a relative link leads to a file that exists, and its anchor to a heading of that page.
    path       a path of the repository in code exists.
    mention    `docs/….md` in any file leads to a page, and an anchor behind it to a heading of that page.

    python python/tools/check_docs.py   # exit 1 names every finding
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

LENGTH: Final = 200
_MARKDOWN: Final = MarkdownIt("commonmark").enable("table")
_ABBREVIATIONS: Final = ("e.g.", "i.e.", "etc.", "vs.", "No.")
_END: Final = re.compile(r"[.!?][*\"')”]*\s+(?=[A-Z0-9\x01\[*\"(“])")
_OPAQUE: Final = re.compile(r"`[^`]*`|(?<=\])\([^)]*\)")
_TARGET: Final = re.compile(r"(?<=\])\([^)]*\)")
_PATH: Final = re.compile(r"(?:docs|inventory|molecule|playbooks|python|roles)/[\w./-]*")
_MENTION: Final = re.compile(r"(?<![\w./-])(docs/[\w./-]+\.md)(?:#([\w-]+))?")


def sentences(line: str) -> int:
    """Counts the sentences of a line; what is in code, in a link's target or in brackets ends none."""
    masked = _OPAQUE.sub(lambda found: "\x01" * len(found.group()), line)
    count, start = 1, 0
    for end in _END.finditer(masked):
        before = masked[start : end.end()]
        if before.rstrip().endswith(_ABBREVIATIONS) or any(before.count(a) > before.count(b) for a, b in ("()", "[]")):
            continue
        count, start = count + 1, end.end()
    return count


def slug(heading: str) -> str:
    """Returns the anchor that GitHub gives a heading, without the number of a repeated one."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in {"text", "code_inline"})


def anchors(text: str) -> set[str]:
    """Returns the anchors of a page."""
    tokens = _MARKDOWN.parse(text)
    found: dict[str, int] = {}
    names = set()
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            name = slug(_plain(inline))
            names.add(f"{name}-{found[name]}" if name in found else name)
            found[name] = found.get(name, 0) + 1
    return names


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of all paragraphs, in lists too, with their numbers."""
    tokens = _MARKDOWN.parse(text)
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "paragraph_open" and inline.map:
            yield from enumerate(inline.content.split("\n"), start=inline.map[0] + 1)


def _links(text: str) -> Iterator[str]:
    for token in _MARKDOWN.parse(text):
        for child in token.children or []:
            target = child.attrGet({"link_open": "href", "image": "src"}.get(child.type, ""))
            if isinstance(target, str) and not re.match(r"[a-z]+:", target):
                yield target


def _paths(text: str) -> Iterator[str]:
    for token in _MARKDOWN.parse(text):
        for child in token.children or []:
            if child.type == "code_inline" and _PATH.fullmatch(child.content):
                yield child.content


def _leads_nowhere(page: Path, anchor: str) -> str | None:
    """Returns what is wrong with a reference, or None."""
    if not page.exists():
        return "that file does not exist"
    if anchor and page.suffix == ".md" and anchor not in anchors(page.read_text(encoding="utf-8")):
        return "that page has no such heading"
    return None


def check_page(root: Path, page: Path) -> list[str]:
    """Checks one Markdown page.

    Args:
        root: The repository.
        page: The page.

    Returns:
        The findings, each with the number of its line where it has one.
    """
    text = page.read_text(encoding="utf-8")
    found = []
    for number, line in _prose(text):
        if sentences(line) > 1:
            found.append(f"{number}: sentence: {sentences(line)} sentences in one line; give each a line of its own")
        if (length := len(_TARGET.sub("", line))) > LENGTH:
            found.append(f"{number}: length: {length} characters, at most {LENGTH}; make two sentences of it")
    for link in _links(text):
        path, _, anchor = link.partition("#")
        wrong = _leads_nowhere(page.parent / path if path else page, anchor)
        if wrong:
            found.append(f"link: {link}: {wrong}")
    found += [f"path: {path}: that file does not exist" for path in _paths(text) if not (root / path).exists()]
    return found


def check_mentions(root: Path, file: Path) -> list[str]:
    """Checks the mentions of pages in a file.

    Args:
        root: The repository.
        file: The file.

    Returns:
        The findings; none for a file that is not text.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    found = []
    for mention in _MENTION.finditer(text):
        wrong = _leads_nowhere(root / mention[1], mention[2] or "")
        if wrong:
            found.append(f"{text.count(chr(10), 0, mention.start()) + 1}: mention: {mention[0]}: {wrong}")
    return found


def _files(root: Path) -> list[Path]:
    """Lists what git tracks or would track, without links, and without tests, which fail by themselves."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    kept = (root / name for name in sorted(set(names)) if name and not name.startswith("python/tests/"))
    return [path for path in kept if path.is_file() and not path.is_symlink()]


def main(argv: list[str] | None = None) -> int:
    """Checks every page and every file.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        0 when all is well, 1 otherwise.
    """
    parser = argparse.ArgumentParser(description="Checks the Markdown pages and the references to them.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the repository")
    args = parser.parse_args(argv)
    failed = False
    for file in _files(args.root):
        for finding in [
            *(check_page(args.root, file) if file.suffix == ".md" else []),
            *check_mentions(args.root, file),
        ]:
            failed = True
            print(f"{file.relative_to(args.root)}:{finding}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
