"""Fill the table with so many finished runs: a thousand by the ORM, the others as copies of them."""

import json
import sys
from datetime import timedelta

import django

django.setup()

from django.db import connection  # noqa: E402 - after the setup
from django.utils import timezone  # noqa: E402

from taskapi.models import TaskInfo  # noqa: E402

FIRST = 1_000
NEW_UUID = {"sqlite": "lower(hex(randomblob(16)))", "postgresql": "gen_random_uuid()"}


def finished_run() -> TaskInfo:
    now = timezone.now()
    return TaskInfo(
        task="sum",
        status="succeeded",
        inputs={"numbers": [1, 2, 3]},
        outputs={"sum": 6},
        attempt=1,
        started=now,
        finished=now,
        retain=timedelta(days=7),
        expires=now + timedelta(days=7),
    )


def main(runs: int) -> None:
    TaskInfo.objects.bulk_create(finished_run() for _ in range(min(FIRST, runs)))
    meta = TaskInfo._meta  # noqa: SLF001 - Django's own way to ask
    columns = [field.column for field in meta.concrete_fields if field.column not in ("id", "uuid")]
    names = ", ".join(f'"{column}"' for column in columns)
    copy = (
        f'INSERT INTO {meta.db_table} ("uuid", {names}) '  # noqa: S608 - only names of columns
        f"SELECT {NEW_UUID[connection.vendor]}, {names} FROM {meta.db_table} LIMIT %s"
    )
    with connection.cursor() as cursor:
        while missing := runs - TaskInfo.objects.count():
            cursor.execute(copy, [missing])
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE")  # as its autovacuum does in time
    print(json.dumps(runs))


if __name__ == "__main__":
    main(int(sys.argv[1]))
