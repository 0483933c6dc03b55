from __future__ import annotations

from django.apps import AppConfig

from mindmore.celery import app as celery_app

__all__ = ["MindmoreConfig", "celery_app"]


class MindmoreConfig(AppConfig):
    """Loads Celery together with Django, so that `shared_task` finds it.

    Not in `mindmore/__init__.py`: the supervisor (`manage.py up`) stays small by loading neither.
    """

    name = "mindmore"
