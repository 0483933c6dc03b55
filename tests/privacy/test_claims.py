"""A claim that says it is proven names tests, and they say so themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.policy import claims
from privacy.policy.claims import Status, claims_load

ROOT = Path(__file__).resolve().parents[2]


def marked_tests() -> Iterator[tuple[str, str]]:
    """(claim, node id) of every test that carries `@pytest.mark.claim`, read from the sources."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and ast.unparse(decorator.func) == "pytest.mark.claim"
                ):
                    for argument in decorator.args:
                        yield ast.literal_eval(argument), f"{path.relative_to(ROOT)}::{node.name}"


def test_every_test_of_a_proven_claim_exists_and_is_marked_with_it() -> None:
    stated = {(claim, test) for claim, entry in claims_load().items() for test in entry.tests}
    assert stated - set(marked_tests()) == set()


def test_every_mark_names_a_claim() -> None:
    assert {claim for claim, _ in marked_tests()} - set(claims_load()) == set()


def test_nothing_is_said_twice() -> None:
    marks = list(marked_tests())
    assert sorted(marks) == sorted(set(marks))
    for claim, entry in claims_load().items():
        assert sorted(entry.tests) == sorted(set(entry.tests)), claim


def test_proven_claim_without_a_test_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claims.toml"
    path.write_text('[S-1]\ntext = "It is so."\nstatus = "proven"\n')
    monkeypatch.setattr(claims, "CLAIMS_PATH", path)
    with pytest.raises(ValueError, match="a proven claim has tests"):
        claims_load.__wrapped__()


def test_each_status_is_used_as_explained() -> None:
    assert {entry.status for entry in claims_load().values()} == set(Status)
