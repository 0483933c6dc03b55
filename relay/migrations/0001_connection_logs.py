import django.db.models.deletion
from django.db import migrations, models

from relay.partitioned import CreatePartitionedModel


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('accounts', '0001_initial'),
    ]

    operations = [
        CreatePartitionedModel(
            name='PeerFlow',
            partition_by='session_started_at',
            fields=[
                ('pk', models.CompositePrimaryKey('node', 'boot', 'allocation', 'peer_address', 'peer_port', 'session_started_at', blank=True, editable=False, primary_key=True, serialize=False)),
                ('node', models.CharField(max_length=64)),
                ('boot', models.CharField(max_length=64)),
                ('allocation', models.PositiveBigIntegerField()),
                ('peer_address', models.GenericIPAddressField()),
                ('peer_port', models.IntegerField()),
                ('session_started_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='QuarantinedRecord',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('reason', models.CharField(choices=[('malformed', 'not a record'), ('contradiction', 'same key as an earlier record, other content'), ('future', 'more than 5 minutes in the future'), ('past', 'more than a year in the past'), ('unknown_project', 'names a project that does not exist')], max_length=16)),
                ('node', models.CharField(max_length=64)),
                ('boot', models.CharField(max_length=64)),
                ('payload', models.JSONField()),
                ('received_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'ordering': ['-received_at', '-pk'],
            },
        ),
        CreatePartitionedModel(
            name='AuthenticationEvent',
            partition_by='occurred_at',
            fields=[
                ('pk', models.CompositePrimaryKey('node', 'boot', 'number', 'occurred_at', blank=True, editable=False, primary_key=True, serialize=False)),
                ('node', models.CharField(max_length=64)),
                ('boot', models.CharField(max_length=64)),
                ('number', models.PositiveBigIntegerField()),
                ('occurred_at', models.DateTimeField()),
                ('client_address', models.GenericIPAddressField()),
                ('client_port', models.IntegerField()),
                ('transport', models.CharField(choices=[('udp', 'UDP'), ('tcp', 'TCP'), ('tls', 'TLS'), ('dtls', 'DTLS')], max_length=4)),
                ('outcome', models.CharField(max_length=32)),
                ('project', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.project')),
            ],
            options={
                'indexes': [models.Index(models.F('project'), models.F('occurred_at'), name='authentication_of_project')],
            },
        ),
        CreatePartitionedModel(
            name='Session',
            partition_by='started_at',
            fields=[
                ('pk', models.CompositePrimaryKey('node', 'boot', 'allocation', 'started_at', blank=True, editable=False, primary_key=True, serialize=False)),
                ('node', models.CharField(max_length=64)),
                ('boot', models.CharField(max_length=64)),
                ('allocation', models.PositiveBigIntegerField()),
                ('started_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(null=True)),
                ('client_address', models.GenericIPAddressField()),
                ('client_port', models.IntegerField()),
                ('transport', models.CharField(choices=[('udp', 'UDP'), ('tcp', 'TCP'), ('tls', 'TLS'), ('dtls', 'DTLS')], max_length=4)),
                ('client_received_bytes', models.PositiveBigIntegerField(default=0)),
                ('client_sent_bytes', models.PositiveBigIntegerField(default=0)),
                ('peer_received_bytes', models.PositiveBigIntegerField(default=0)),
                ('peer_sent_bytes', models.PositiveBigIntegerField(default=0)),
                ('project', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='sessions', to='accounts.project')),
            ],
            options={
                'indexes': [models.Index(models.F('project'), models.F('started_at'), name='session_of_project'), models.Index(models.F('project'), condition=models.Q(('ended_at', None)), name='session_open_of_project'), models.Index(models.F('node'), models.F('boot'), condition=models.Q(('ended_at', None)), name='session_open_of_boot')],
            },
        ),
        migrations.CreateModel(
            name='UsageHour',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField()),
                ('client_received_bytes', models.PositiveBigIntegerField()),
                ('client_sent_bytes', models.PositiveBigIntegerField()),
                ('peer_received_bytes', models.PositiveBigIntegerField()),
                ('peer_sent_bytes', models.PositiveBigIntegerField()),
                ('is_rated', models.BooleanField(default=False)),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='usage_hours', to='accounts.project')),
            ],
            options={
                'indexes': [models.Index(models.F('project'), condition=models.Q(('is_rated', False)), name='usage_hour_not_rated')],
                'constraints': [models.UniqueConstraint(fields=('project', 'hour'), name='one_row_per_project_and_hour')],
            },
        ),
        CreatePartitionedModel(
            name='UsageRecord',
            partition_by='session_started_at',
            fields=[
                ('pk', models.CompositePrimaryKey('node', 'boot', 'allocation', 'sequence', 'session_started_at', blank=True, editable=False, primary_key=True, serialize=False)),
                ('node', models.CharField(max_length=64)),
                ('boot', models.CharField(max_length=64)),
                ('allocation', models.PositiveBigIntegerField()),
                ('sequence', models.PositiveBigIntegerField()),
                ('session_started_at', models.DateTimeField()),
                ('interval_started_at', models.DateTimeField()),
                ('interval_ended_at', models.DateTimeField()),
                ('client_received_bytes', models.PositiveBigIntegerField()),
                ('client_sent_bytes', models.PositiveBigIntegerField()),
                ('peer_received_bytes', models.PositiveBigIntegerField()),
                ('peer_sent_bytes', models.PositiveBigIntegerField()),
                ('client_received_total_bytes', models.PositiveBigIntegerField()),
                ('client_sent_total_bytes', models.PositiveBigIntegerField()),
                ('peer_received_total_bytes', models.PositiveBigIntegerField()),
                ('peer_sent_total_bytes', models.PositiveBigIntegerField()),
                ('is_last', models.BooleanField()),
                ('is_rolled_up', models.BooleanField(default=False)),
                ('project', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.project')),
            ],
            options={
                'indexes': [models.Index(models.F('project'), condition=models.Q(('is_rolled_up', False)), name='usage_not_rolled_up')],
            },
        ),
    ]
