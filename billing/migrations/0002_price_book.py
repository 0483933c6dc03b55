"""The first price, and a trigger: what was once in the price book stays as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from django.db import migrations

FIRST_PRICE = {
    "valid_from": datetime(2000, 1, 1, tzinfo=UTC),
    "price_per_gb": Decimal("0.05"),
    "free_bytes_per_month": 0,
    "counted_bytes": "client_sent",
}
FREEZE = """
    CREATE FUNCTION billing_pricebookversion_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'a version of the price book is never changed or deleted: add another'
            USING ERRCODE = 'integrity_constraint_violation';
    END
    $$;
    CREATE TRIGGER billing_pricebookversion_frozen
        BEFORE UPDATE OR DELETE ON billing_pricebookversion
        FOR EACH ROW EXECUTE FUNCTION billing_pricebookversion_refuse_change();
"""
THAW = """
    DROP TRIGGER billing_pricebookversion_frozen ON billing_pricebookversion;
    DROP FUNCTION billing_pricebookversion_refuse_change();
"""


def first_price_add(apps, schema_editor):
    apps.get_model("billing", "PriceBookVersion").objects.create(**FIRST_PRICE)


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_invoices")]

    operations = [
        migrations.RunPython(first_price_add, migrations.RunPython.noop),
        migrations.RunSQL(FREEZE, THAW),
    ]
