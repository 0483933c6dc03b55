import billing.rating
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('accounts', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Invoice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('month', models.DateField(help_text='its first day')),
                ('status', models.CharField(choices=[('draft', 'Draft')], default='draft', max_length=16)),
                ('currency', models.CharField(default='EUR', editable=False, max_length=3)),
                ('metered_bytes', models.PositiveBigIntegerField()),
                ('amount_cents', models.PositiveBigIntegerField()),
                ('created_at', models.DateTimeField()),
                ('changed_at', models.DateTimeField()),
                ('organisation', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='invoices', to='accounts.organisation')),
            ],
            options={
                'ordering': ['-month', 'organisation'],
            },
        ),
        migrations.CreateModel(
            name='PriceBookVersion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('valid_from', models.DateTimeField(unique=True)),
                ('currency', models.CharField(default='EUR', editable=False, max_length=3)),
                ('price_per_gb', models.DecimalField(decimal_places=6, max_digits=12, verbose_name='price per GB (10^9 bytes)')),
                ('free_bytes_per_month', models.PositiveBigIntegerField(default=0)),
                ('counted_bytes', models.CharField(choices=[('client_sent', 'bytes sent to the TURN client'), ('client_received', 'bytes received from the TURN client'), ('client_both', 'bytes sent to and received from the TURN client')], default=billing.rating.CountedBytes['CLIENT_SENT'], max_length=16)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ['valid_from'],
                'constraints': [models.CheckConstraint(condition=models.Q(('price_per_gb__gte', 0)), name='price_is_not_negative')],
            },
        ),
        migrations.CreateModel(
            name='InvoiceLine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('description', models.CharField(max_length=300)),
                ('metered_bytes', models.PositiveBigIntegerField()),
                ('free_bytes', models.PositiveBigIntegerField()),
                ('price_per_gb', models.DecimalField(decimal_places=6, max_digits=12)),
                ('amount_cents', models.PositiveBigIntegerField()),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='lines', to='billing.invoice')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.project')),
                ('price', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.pricebookversion')),
            ],
            options={
                'ordering': ['project', 'price__valid_from'],
            },
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(fields=('organisation', 'month'), name='one_invoice_per_organisation_and_month'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('month__day', 1)), name='month_is_its_first_day'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'project', 'price'), name='one_line_per_project_and_price'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('free_bytes__lte', models.F('metered_bytes'))), name='free_bytes_are_metered'),
        ),
    ]
