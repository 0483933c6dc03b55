from django.db import migrations, models

from relay.partitioned import CreatePartitionedModel


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0002_control'),
    ]

    operations = [
        CreatePartitionedModel(
            name='SessionMove',
            partition_by='session_started_at',
            fields=[
                ('pk', models.CompositePrimaryKey('node', 'boot', 'allocation', 'number', 'session_started_at', blank=True, editable=False, primary_key=True, serialize=False)),
                ('node', models.CharField(max_length=64)),
                ('boot', models.CharField(max_length=64)),
                ('allocation', models.PositiveBigIntegerField()),
                ('number', models.PositiveBigIntegerField()),
                ('session_started_at', models.DateTimeField()),
                ('moved_at', models.DateTimeField()),
                ('client_address', models.GenericIPAddressField()),
                ('client_port', models.IntegerField()),
                ('transport', models.CharField(choices=[('udp', 'UDP'), ('tcp', 'TCP'), ('tls', 'TLS'), ('dtls', 'DTLS')], max_length=4)),
            ],
        ),
    ]
