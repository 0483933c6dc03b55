"""Rules that no linter sees: foreign keys, file sizes, signals, what is loaded and documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent
# Highest first: a model points only at its own app and at lower ones.
FLOORS = ["mindmore", "billing", "relay", "accounts", "privacy"]
USER_APP = settings.AUTH_USER_MODEL.split(".")[0]
LINES_MAX = 500
DJANGO_SIGNALS = "django.db.models.signals"


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if "migrations" not in path.parts:
                yield path


def loaded_by(statement: str) -> set[str]:
    """What a fresh Python has loaded after `statement`."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_foreign_keys_point_down() -> None:
    wrong = []
    for model in apps.get_models():
        app = model._meta.app_label
        for field in model._meta.get_fields():
            related = field.related_model
            if app not in FLOORS or not field.concrete or related is None:
                continue
            assert not isinstance(related, str)
            target = related._meta.app_label
            if target in (app, USER_APP) or target not in FLOORS:
                continue
            if FLOORS.index(target) < FLOORS.index(app):
                wrong.append(f"{model._meta.label}.{field.name} -> {related._meta.label}")
    assert wrong == []


def test_core_loads_no_framework_and_no_io() -> None:
    code = (
        "import sys; before = set(sys.modules); import relay.core.turn;"
        "print(*({'django', 'asyncio', 'socket', 'ssl', 'random'} & set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_supervisor_loads_no_django_application() -> None:
    loaded = loaded_by("import mindmore.up")
    assert not loaded & {"django.apps", "django.conf", "celery", "psycopg2", "redis", "asyncio"}


def test_beat_loads_no_django_application() -> None:
    assert "django.db.models" not in loaded_by(
        "import mindmore.beat; mindmore.beat.app.conf.timezone"
    )


def test_modules_stay_readable_in_one_sitting() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in modules(*FLOORS, "tests")
    }
    assert {name: count for name, count in lines.items() if count > LINES_MAX} == {}


def test_our_apps_are_not_wired_by_signals() -> None:
    wired = [
        str(path.relative_to(ROOT))
        for path in modules(*FLOORS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module == DJANGO_SIGNALS or "receiver" in {name.name for name in node.names})
    ]
    assert wired == []


@pytest.mark.parametrize("document", ["README.md"])
def test_every_variable_is_in_the_table_of_the_environment(document: str) -> None:
    source = "\n".join(path.read_text() for path in modules("mindmore"))
    read = set(re.findall(r'"((?:MINDMORE_[A-Z_]+|DATABASE_URL|REDIS_URL))"', source))
    table = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / document).read_text(), re.MULTILINE))
    assert table == read - {"MINDMORE_READY_FD"}


def test_lock_files_are_hashed_and_name_no_registry() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        pins = re.findall(r"^[a-z0-9].*==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text
        assert "--index-url" not in text
