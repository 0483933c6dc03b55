"""docs/operating.md says what the code does: metrics, reasons, events."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.drops import DROP_REASONS
from relay.version import VERSION
from relay.watching.metrics import METRICS, OTHER, label
from tests.relay.watching.scrape import OURS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs/operating.md").read_text()
# Constants that stand for a reason, where one is not written at the place itself.
INDIRECT = {"refusal", "limit"}


def rows(heading: str) -> Iterator[list[str]]:
    """The rows of the table whose first column is called so."""
    _, _, rest = DOCUMENT.partition(f"| {heading} |")
    lines = rest.splitlines()[2:]
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def modules() -> Iterator[ast.Module]:
    for path in sorted((ROOT / "relay").rglob("*.py")):
        if "migrations" not in path.parts:
            yield ast.parse(path.read_text())


def calls(name: str) -> Iterator[ast.Call]:
    for module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                function = node.func
                if name in (getattr(function, "id", ""), getattr(function, "attr", "")[1:]):
                    yield node


@pytest.mark.parametrize("heading", ["Metric", "Reason", "Event"])
def test_nothing_is_described_twice(heading: str) -> None:
    described = [row[0] for row in rows(heading)]
    assert len(described) > 10
    assert sorted(set(described)) == sorted(described)


def test_metrics_of_the_document_are_those_of_the_code() -> None:
    described = {name.strip("`"): (kind, labels) for name, kind, labels, _ in rows("Metric")}
    expected = {
        metric.name: (metric.kind, " ".join(f"`{each}`" for each in metric.labels))
        for metric in METRICS
    }
    assert described == expected
    assert len(expected) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith((OURS, "process_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_reasons_of_the_document_are_those_of_the_code() -> None:
    described = [reason.strip("`") for reason, _ in rows("Reason")]
    assert described == [*map(label, DROP_REASONS), OTHER]


def test_every_reason_in_the_code_is_in_the_list() -> None:
    """So that nothing is counted as another reason by mistake."""
    written: set[str] = set()
    for module in modules():
        constants = {
            target.id: node.value.value
            for node in ast.walk(module)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(module):
            if not isinstance(node, ast.AugAssign) or not isinstance(node.target, ast.Subscript):
                continue
            if ast.unparse(node.target.value).rpartition(".")[2] not in ("dropped", "_dropped"):
                continue
            key = node.target.slice
            if isinstance(key, ast.Constant):
                written.add(str(key.value))
            else:
                assert ast.unparse(key) in INDIRECT
                names = ("BITRATE", "NOT_MEDIA", "UNAUTHENTICATED_ANSWERS", "FAILURES")
                written |= {str(constants[name]) for name in names if name in constants}
    written |= {"bitrate", "not media"}  # of `core.gate`, which names them to `core.guard`
    assert written == set(DROP_REASONS)


def test_events_of_the_document_are_those_of_the_code() -> None:
    described = {event.strip("`"): level for event, level, _, _ in rows("Event")}
    logged: dict[str, str] = {}
    for call in calls("log"):
        event = call.args[0]
        names = [event] if not isinstance(event, ast.IfExp) else [event.body, event.orelse]
        level = next((each.value for each in call.keywords if each.arg == "level"), None)
        for name in names:
            assert isinstance(name, ast.Constant), f"an event has a fixed name: {ast.unparse(call)}"
            said = level.value if isinstance(level, ast.Constant) else "info"
            if level is None or isinstance(level, ast.Constant):
                assert logged.setdefault(str(name.value), str(said)) == said
            else:
                logged.setdefault(str(name.value), described.get(str(name.value), ""))
    assert described == logged
    assert len(described) >= 14


def test_alerts_ask_for_metrics_that_there_are() -> None:
    alerts = re.findall(r"expr: (.*)", DOCUMENT)
    assert len(alerts) == 3
    asked = set(re.findall(r"mindmore_relay_\w+", " ".join(alerts)))
    assert asked <= {metric.name for metric in METRICS}


def test_release_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
