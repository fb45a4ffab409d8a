"""Count the attempts that were handed back by their worker, and those that ended with it.

What it locks: PostgreSQL (11 and newer), MySQL 8 and MariaDB add each column without a look at the rows: they wait
for the transactions under way that use the table, and hold up others for that long. SQLite copies the table, once for
each column, and nobody else can write meanwhile: about a second for 100,000 runs.

The defaults are the database's own, so that servers and workers of the version before, which do not know these
columns, go on inserting rows beside it.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("taskapi", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="taskinfo",
            name="handed_back",
            field=models.IntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AddField(
            model_name="taskinfo",
            name="lost",
            field=models.IntegerField(db_default=0, default=0, editable=False),
        ),
    ]
