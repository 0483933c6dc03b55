"""The conformance documents: every row names tests, and every test that they name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "docs" / "conformance.md"
DOCUMENTS = sorted((ROOT / "docs" / "conformance").glob("*.md"))
BASE = re.compile(r"`(tests/relay/[a-z/]*)`")  # said above each table
STANDARDS = (
    *("8489", "8656", "6062", "6156", "8016", "5780", "7635", "7443", "7064", "7065", "7983"),
    *("9443", "5769", "uberti"),
)
CODE = re.compile(r"`([^`]+)`")
CELLS = re.compile(r"(?<!\\)\|")
ABOVE = "the same"  # as in the row above
# Here the whole module is about what the row says; everywhere else a row names its tests.
WHOLE = {
    *("interop/test_browser.py", "interop/test_webrtc.py", "transports/test_proxy_protocol.py"),
    *("unit/test_refusals.py", "unit/test_replacement.py"),
    *("control/test_ledger.py", "control/test_messages.py", "control/test_outages.py"),
    *("watching/test_metrics.py", "watching/test_observation.py"),
    *("watching/test_server.py", "watching/test_watchdog.py"),
}


@cache
def names_in(path: Path) -> set[str]:
    """The names of a module's tests."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def rows(document: Path) -> Iterator[list[str]]:
    """The cells of every row of a document's tables, without their heads."""
    lines = document.read_text().splitlines()
    for number, line in enumerate(lines):
        is_head = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if line.startswith("|") and not line.startswith("|---") and not is_head:
            yield [cell.strip() for cell in CELLS.split(line)[1:-1]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_test_that_a_row_names_exists(document: Path) -> None:
    base = BASE.search(document.read_text())
    found = list(rows(document))
    assert base and found
    for cells in found:
        if cells[-1].startswith(ABOVE):
            continue
        path: Path | None = None
        named = CODE.findall(cells[-1])
        assert named, cells
        for name in named:
            module, _, test = name.partition("::")
            path = ROOT / base[1] / module if module else path
            assert path is not None and path.exists(), name
            assert not test or test in names_in(path), name


def test_row_names_its_tests_unless_a_whole_module_is_about_it() -> None:
    bare: set[str] = set()
    for document in DOCUMENTS:
        base = BASE.search(document.read_text())
        assert base
        for cells in rows(document):
            named = [] if cells[-1].startswith(ABOVE) else CODE.findall(cells[-1])
            bare |= {base[1] + name for name in named if "::" not in name}
    assert bare == {f"tests/relay/{name}" for name in WHOLE}


def test_index_leads_to_every_document_and_every_standard() -> None:
    text = INDEX.read_text()
    assert {
        ROOT / "docs" / name for name in re.findall(r"\((conformance/[a-z-]+\.md)\)", text)
    } == set(DOCUMENTS)
    for standard in STANDARDS:
        assert standard in text
