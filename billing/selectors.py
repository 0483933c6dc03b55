"""What is read of billing: invoices, and an organisation's figures of today and this month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from accounts.models import Organisation, Project, User
from accounts.permissions import Permission
from accounts.selectors import organisations_for
from billing.models import Invoice
from billing.periods import Month, billing_zone, day_starts_at
from relay.selectors import UsageSum, sessions_open_count, usage_sum

NOTHING = UsageSum(0, 0)


@dataclass(frozen=True)
class ProjectFigures:
    """What one project relayed this month."""

    project: Project
    month: UsageSum


@dataclass(frozen=True)
class Figures:
    """An organisation at a glance.

    Attributes:
        sessions_now: allocations of its projects.
        today, month: what they relayed since midnight and the first, by the billing time zone.
        cost_cents: of this month so far; None for those who may not see it.
        projects: all of its projects.
    """

    organisation: Organisation
    sessions_now: int
    today: UsageSum
    month: UsageSum
    cost_cents: int | None
    projects: list[ProjectFigures]


def figures_for(*, user: User, now: datetime) -> list[Figures]:
    """The figures of each organisation whose projects `user` may see."""
    paying = set(
        organisations_for(user=user, permission=Permission.BILLING_READ).values_list(
            "pk", flat=True
        )
    )
    return [
        _figures(organisation, now, with_cost=organisation.pk in paying)
        for organisation in organisations_for(user=user, permission=Permission.PROJECTS_READ)
    ]


def invoices_for(*, user: User, month: Month | None = None) -> QuerySet[Invoice]:
    """The invoices that `user` may see, newest first; those of one month if it is given."""
    invoices = Invoice.objects.filter(
        organisation__in=organisations_for(user=user, permission=Permission.BILLING_READ)
    ).select_related("organisation")
    return invoices.filter(month=month.first_day) if month else invoices


def _figures(organisation: Organisation, now: datetime, *, with_cost: bool) -> Figures:
    month = Month.of(now)
    today = day_starts_at(now.astimezone(billing_zone()).date())
    by_project = usage_sum(
        organisation=organisation, starts_at=month.starts_at, ends_at=month.ends_at
    )
    of_today = usage_sum(organisation=organisation, starts_at=today, ends_at=now)
    cost = None
    if with_cost:
        invoice = Invoice.objects.filter(organisation=organisation, month=month.first_day).first()
        cost = invoice.amount_cents if invoice else 0
    return Figures(
        organisation=organisation,
        sessions_now=sessions_open_count(organisation=organisation),
        today=_total(of_today),
        month=_total(by_project),
        cost_cents=cost,
        projects=[
            ProjectFigures(project, by_project.get(project.pk, NOTHING))
            for project in organisation.projects.all()
        ],
    )


def _total(by_project: dict[int, UsageSum]) -> UsageSum:
    return UsageSum(
        client_sent_bytes=sum(part.client_sent_bytes for part in by_project.values()),
        client_received_bytes=sum(part.client_received_bytes for part in by_project.values()),
    )
