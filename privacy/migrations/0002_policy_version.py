"""Published versions of the policy, which PostgreSQL keeps as they are."""

from __future__ import annotations

from django.db import migrations, models

REFUSE_CHANGES = """
CREATE FUNCTION privacy_policyversion_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'version % of the privacy policy is published: it cannot be changed or deleted', OLD.number
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER published_versions_stay BEFORE UPDATE OR DELETE ON privacy_policyversion
    FOR EACH ROW EXECUTE FUNCTION privacy_policyversion_refuse();
"""
ALLOW_CHANGES = """
DROP TRIGGER published_versions_stay ON privacy_policyversion;
DROP FUNCTION privacy_policyversion_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("privacy", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="PolicyVersion",
            fields=[
                ("number", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("published_at", models.DateTimeField()),
                ("document", models.JSONField()),
                ("canonical_text", models.TextField()),
                ("sha256", models.CharField(max_length=64)),
            ],
            options={"ordering": ["-number"]},
        ),
        migrations.RunSQL(REFUSE_CHANGES, ALLOW_CHANGES),
    ]
