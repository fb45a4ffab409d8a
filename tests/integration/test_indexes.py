"""A long table makes no statement slow: each finds its rows by an index, however many runs have ended.

The statements that the product executes are judged, with their parameters. The database's plan (EXPLAIN) must not read
a table or an index from end to end, and the statement must not read many rows. The plan alone is not enough: if a range
of ids is filtered, or an index is searched for all finished runs, the plan says "search", but the work is a scan.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections, router, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from taskapi import runs
from taskapi.callers.caller import Caller
from taskapi.consumers.tasks import TaskConsumer
from taskapi.events import following, hub, subscription
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol.states import Status
from taskapi.runs import CANCELLED, LEASE, Outcome
from taskapi.tasks.registry import get_task
from taskapi.workers import upkeep
from tests.support.databases import Databases
from tests.support.routers import To

RUNS = 30_000  # finished runs; PostgreSQL prefers to scan a table of a few pages
TEMPLATES = 1_000  # finished runs that the ORM makes; the others are copies of them
MESSAGES = 3  # messages of each run
FEW = 20  # runs of each kind: those that wait, are executed, have expired, are a user's
MOST_ROWS = RUNS // 10  # rows that a statement may read; a page of the admin is 100
MOST_STEPS = RUNS  # steps that it may take on SQLite's virtual machine; a row takes several

OURS = "taskapi_"
NEW_UUID = {"sqlite": "lower(hex(randomblob(16)))", "postgresql": "gen_random_uuid()"}
LONG_AGO = LEASE + timedelta(minutes=1)


# The judgement


class Verdict(NamedTuple):
    sql: str
    plan: str
    faults: list[str]


class Watch:
    """Judges each statement on our tables before it is executed: in a savepoint, it is executed twice."""

    def __init__(self) -> None:
        self.connection = connection()
        self.verdicts: list[Verdict] = []

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "UPDATE", "DELETE")) and OURS in sql:
            judge = {"sqlite": judge_on_sqlite, "postgresql": judge_on_postgres}[self.connection.vendor]
            with closing(self.connection.create_cursor()) as cursor:  # the driver's own cursor, which is not watched
                cursor.execute("SAVEPOINT watch")
                self.verdicts.append(judge(cursor, sql, params))
                cursor.execute("ROLLBACK TO SAVEPOINT watch")
                cursor.execute("RELEASE SAVEPOINT watch")
        return execute(sql, params, many, context)

    @property
    def faults(self) -> str:
        return "\n".join(f"{v.faults} in {v.sql}\n{v.plan}" for v in self.verdicts if v.faults)


def judge_on_sqlite(cursor: Any, sql: str, params: Any) -> Verdict:
    cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
    plan = [line for *_, line in cursor.fetchall()]
    page = " LIMIT " in sql and " WHERE " not in sql  # it reads an index from one end, and stops
    faults = [line for line in plan if "TEMP B-TREE" in line or (line.startswith(f"SCAN {OURS}") and not page)]
    steps = steps_on_sqlite(cursor, sql, params)
    if steps > MOST_STEPS:
        faults.append(f"{steps} steps")
    return Verdict(sql, "\n".join(plan), faults)


def steps_on_sqlite(cursor: Any, sql: str, params: Any) -> int:
    steps, unit = 0, 100

    def count() -> int:
        nonlocal steps
        steps += unit
        return 0  # go on

    cursor.connection.set_progress_handler(count, unit)
    try:
        cursor.execute(sql, params)
        cursor.fetchall()
    finally:
        cursor.connection.set_progress_handler(None, unit)
    return steps


def judge_on_postgres(cursor: Any, sql: str, params: Any) -> Verdict:
    cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", params)
    nodes = list(nodes_of(cursor.fetchone()[0][0]["Plan"]))
    faults = [fault for node in nodes if (fault := fault_of(cursor, node))]
    rows = sum(map(rows_read, nodes))
    if rows > MOST_ROWS:
        faults.append(f"{rows} rows")
    telling = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Actual Rows")
    lines = [", ".join(str(node[name]) for name in telling if name in node) for node in nodes]
    return Verdict(sql, "\n".join(lines), faults)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes_of(below)


def fault_of(cursor: Any, node: dict[str, Any]) -> str | None:
    """A scan of one of our tables, or of a whole index because its later columns are searched."""
    kind, table = node["Node Type"], node.get("Relation Name", "")
    if kind == "Seq Scan" and table.startswith(OURS):
        return f"Seq Scan on {table}"
    if "Index Cond" in node:
        cursor.execute("SELECT pg_get_indexdef(%s::regclass, 1, true)", [node["Index Name"]])
        (first,) = cursor.fetchone()
        if first not in node["Index Cond"]:
            return f"{kind} of {node['Index Name']} without its first column"
    return None


def rows_read(node: dict[str, Any]) -> float:
    if "Scan" not in node["Node Type"]:
        return 0
    dropped = sum(number for name, number in node.items() if name.startswith("Rows Removed by"))
    return (node["Actual Rows"] + dropped) * node["Actual Loops"]


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    with connection().execute_wrapper(watch):
        yield watch


@contextmanager
def in_indexes(statements: int = 1) -> Iterator[None]:
    """The block executes at least so many statements on our tables, and all of them use indexes well."""
    with watched() as watch:
        yield
    assert len(watch.verdicts) >= statements, watch.verdicts
    assert not watch.faults, watch.faults


# The long table


def connection() -> Any:
    """The connection to the long table."""
    return connections[router.db_for_write(TaskInfo)]


# SQLite has no statistics of a table until ANALYZE is called, and few projects call it. PostgreSQL calls it by itself.
@pytest.fixture(scope="module", params=["sqlite", "analyzed sqlite", "postgres"])
def long_database(request: pytest.FixtureRequest, databases: Databases, django_db_blocker: Any) -> Iterator[str]:
    """The alias of a database with a long table. Each has its own: `rows` caches statements by alias."""
    alias = request.param
    defaults = connections.settings[DEFAULT_DB_ALIAS] | {"OPTIONS": {}}
    connections.settings[alias] = defaults | databases.new(alias.removeprefix("analyzed "))
    try:
        with django_db_blocker.unblock(), override_settings(DATABASE_ROUTERS=[To(alias)]):
            call_command("migrate", database=alias, verbosity=0)
            with transaction.atomic(alias):
                fill()
            if alias != "sqlite":
                with connection().cursor() as cursor:
                    cursor.execute("ANALYZE")
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


@pytest.fixture(autouse=True)
def long_table(long_database: str, settings: Any, django_db_blocker: Any) -> Iterator[None]:
    """The long table for one test, without the changes of the tests before."""
    settings.DATABASE_ROUTERS = [To(long_database)]
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    with django_db_blocker.unblock(), transaction.atomic(long_database):
        yield
        transaction.set_rollback(True, long_database)


def fill() -> None:
    """Runs in the order of a real table: the first have expired, the last have not ended."""
    now = timezone.now()
    user = User.objects.create_superuser("staff", password="staff")
    TaskInfo.objects.bulk_create(finished(now - timedelta(minutes=n)) for n in range(FEW))
    TaskInfo.objects.bulk_create(finished(now + timedelta(minutes=1 + n)) for n in range(TEMPLATES))
    copy_runs(RUNS - FEW - TEMPLATES)
    TaskInfo.objects.bulk_create(finished(now + timedelta(days=7), user=user) for n in range(FEW))
    copy_messages()
    give_keys()
    fields = {"task": "sum", "inputs": {"numbers": [1]}, "created": now - LONG_AGO}
    TaskInfo.objects.bulk_create(TaskInfo(**fields) for _ in range(FEW))
    fields |= {"status": Status.RUNNING.value, "attempt": 1, "worker": "mine"}
    TaskInfo.objects.bulk_create(TaskInfo(**fields, renewed=now) for _ in range(FEW))
    TaskInfo.objects.bulk_create(TaskInfo(**fields, renewed=now - LONG_AGO) for _ in range(FEW))


def finished(expires: datetime, **fields: Any) -> TaskInfo:
    moments = {"created": expires, "started": expires, "finished": expires, "expires": expires}
    status = Status.SUCCEEDED.value
    given = {"inputs": {"numbers": [1]}, "outputs": {"sum": 1}, "message_count": MESSAGES}
    return TaskInfo(task="sum", status=status, attempt=1, **given, **moments, **fields)


def copy_runs(count: int) -> None:
    """Copies of the runs that do not expire yet; like them, they expire one after another."""
    meta = TaskInfo._meta
    columns = [field.column for field in meta.concrete_fields if field.column not in ("id", "uuid")]
    names = ", ".join(f'"{column}"' for column in columns)
    numbers = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < %s)"
    with connection().cursor() as cursor:
        cursor.execute(
            f'INSERT INTO {meta.db_table} ("uuid", {names}) {numbers} '  # noqa: S608 - names of columns, none given
            f"SELECT {NEW_UUID[cursor.db.vendor]}, {names} FROM number, {meta.db_table} WHERE id > {FEW} LIMIT %s",
            [1 + count // TEMPLATES, count],
        )


def copy_messages() -> None:
    meta = TaskMessage._meta
    with connection().cursor() as cursor:
        for index in range(MESSAGES):
            cursor.execute(
                f'INSERT INTO {meta.db_table} (run_id, "index", attempt, seq, body) '  # noqa: S608 - as above
                f"SELECT id, %s, 1, %s, '\"said\"' FROM {TaskInfo._meta.db_table}",
                [index, index],
            )


def give_keys() -> None:
    """One in ten runs was started with an idempotency key: where none was, statistics say that keys tell nothing."""
    with connection().cursor() as cursor:
        cursor.execute(f"UPDATE {TaskInfo._meta.db_table} SET idempotency = id WHERE id % 10 = 0")  # noqa: S608 - as above


# Runs for the tests


def run_of(status: Status) -> TaskInfo:
    """The newest run of that status, among all the others; reading it is not judged."""
    return TaskInfo.objects.filter(status=status.value).order_by("id").last()


def begun() -> TaskInfo:
    info = runs.begin(run_of(Status.PENDING).uuid, "mine")
    assert info is not None
    return info


def said(info: TaskInfo) -> dict[str, Any]:
    count = info.message_count
    messages = [TaskMessage(run=info, index=count + n, attempt=1, seq=n, body="said") for n in range(MESSAGES)]
    return {"seq": info.seq + 10, "target": 10, "progress": 5, "messages": messages}


# The life of a run


def test_submitting():
    with in_indexes(0):  # an INSERT, which searches nothing
        assert runs.submit(get_task("sum"), {"numbers": [1]}).created


def test_submitting_what_was_submitted_before():
    first = runs.submit(get_task("sum"), {"numbers": [1]}, idempotency_key="key").info
    with in_indexes():
        assert runs.submit(get_task("sum"), {"numbers": [1]}, idempotency_key="key") == (first, False)


def test_beginning():
    waiting = run_of(Status.PENDING)
    with in_indexes(2):
        assert runs.begin(waiting.uuid, "mine") is not None


def test_leaving_a_run_to_others():
    waiting = run_of(Status.PENDING)
    with in_indexes(2):
        assert runs.begin(waiting.uuid, "mine", refuse=lambda info: CANCELLED) is None


def test_recording_messages():
    info = begun()
    with in_indexes():
        assert runs.record(info, **said(info))


def test_finishing():
    info = begun()
    with in_indexes():
        assert runs.finish(info, Outcome(Status.SUCCEEDED, {"sum": 1}), **said(info)) is not None


def test_finishing_what_somebody_has_cancelled():
    info = begun()
    assert runs.cancel(TaskInfo.objects.get(pk=info.pk))
    with in_indexes(3):
        assert runs.finish(info, CANCELLED, **said(info)) is not None


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING])
def test_cancelling(status):
    info = run_of(status)
    with in_indexes(2):
        assert info.cancel()


def test_waiting_for_a_result():
    info = begun()
    waiting = TaskInfo.objects.get(pk=info.pk)
    runs.finish(info, Outcome(Status.SUCCEEDED, {"sum": 1}), **said(info))
    with in_indexes():
        assert waiting.result() == {"sum": 1}


# Upkeep


def test_renewing_leases():
    executing = set(TaskInfo.objects.filter(status="running", worker="mine").values_list("uuid", "attempt"))
    with in_indexes(2):
        assert upkeep.renew("mine", executing | {(uuid4(), 2)}).held == executing


def test_the_sweeps_look_for_lost_workers():
    with in_indexes(1 + 3 * FEW):
        assert len(upkeep.take_back()) == FEW


@pytest.mark.parametrize("page", ["first", "later"])
def test_the_sweeps_look_for_lost_jobs(page, monkeypatch):
    monkeypatch.setattr(upkeep, "SWEEP_ROWS", FEW // 2)
    after = 0 if page == "first" else upkeep.requeue(["default"])
    with in_indexes():
        assert upkeep.requeue(["default"], after) > after


def test_pruning():
    with in_indexes(3):
        assert upkeep.prune() == FEW


def test_pruning_where_nothing_has_expired():
    upkeep.prune()
    with in_indexes():
        assert upkeep.prune() == 0


# Clients that ask


def test_starting_by_rest():
    client = Client()
    body = {"task": "sum", "inputs": {"numbers": [1]}}
    with in_indexes():
        for code in (201, 200):
            response = client.post("/tasks/", body, content_type="application/json", headers={"Idempotency-Key": "key"})
            assert response.status_code == code


@pytest.mark.parametrize("after", [0, 1])
def test_a_run_by_rest(after):
    info = run_of(Status.SUCCEEDED)
    client = Client()
    client.force_login(User.objects.get())
    with in_indexes(2):
        run = client.get(f"/tasks/{info.uuid}/", {"after": after}).json()
    assert run["messages"] == ["said"] * (MESSAGES - after)


def test_cancelling_by_rest():
    info = run_of(Status.PENDING)
    with in_indexes(3):
        assert Client().post(f"/tasks/{info.uuid}/cancel/").status_code == 202


def test_retrying_by_rest():
    info = TaskInfo.objects.filter(status="succeeded", user=None).first()
    with in_indexes(2):
        assert Client().post(f"/tasks/{info.uuid}/retry/").status_code == 202


def test_starting_many_by_rest():
    client = Client()
    body = {"task": "sum", "many": [{"numbers": [n]} for n in range(FEW)]}
    with in_indexes(2):
        for code in (201, 200):
            response = client.post("/tasks/", body, content_type="application/json", headers={"Idempotency-Key": "key"})
            assert (response.status_code, len(response.json())) == (code, FEW)


#: Queries of lists, and how many runs a page then has: all that there are, or a whole page.
LISTS = {
    "": FEW,
    "status=succeeded": FEW,
    "status=running": 0,
    "task=sum": FEW,
    "task=nothing": 0,
    "owner=all": 50,
    "owner=all&page_size=100": 100,
    "owner=all&status=pending": FEW,
    "owner=all&status=succeeded": 50,
    "owner=all&status=failed": 0,
}


@pytest.mark.parametrize("query", LISTS)
def test_a_list_by_rest(query):
    client = Client()
    client.force_login(User.objects.get())
    with in_indexes():
        body = client.get(f"/tasks/?{query}").json()
        later = client.get(body["next"]).json() if body["next"] else body
    assert len(body["results"]) == len(later["results"]) == LISTS[query]


def test_subscribing():
    info = TaskInfo.objects.filter(status="succeeded", user=None).first()
    consumer = TaskConsumer()
    consumer.caller = Caller.of_socket({"type": "websocket", "path": "/tasks/ws/", "headers": []})
    with in_indexes(2):
        found, messages = following._read(consumer._find, info.uuid, after=1)
    assert (found, len(messages)) == (info, MESSAGES - 1)


def test_reading_what_a_follower_has_missed():
    info = run_of(Status.SUCCEEDED)
    with in_indexes(2):
        found, messages = subscription._read_changes(info.uuid, 1)
    assert (found, len(messages)) == (info, MESSAGES - 1)


def test_watching_followed_runs():
    followed = list(TaskInfo.objects.filter(id__lte=5 * FEW).values_list("uuid", flat=True))
    with in_indexes():
        assert len(hub._read_rows([*followed, uuid4()])) == 5 * FEW


def test_deleting_a_user_with_runs():
    with in_indexes(2):
        User.objects.get().delete()


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.get())
    return client


def test_a_run_in_the_admin(staff):
    info = run_of(Status.SUCCEEDED)
    with in_indexes(2):
        assert staff.get(f"/admin/taskapi/taskinfo/{info.pk}/change/").status_code == 200


def test_the_admins_list(staff):
    with in_indexes(2), CaptureQueriesContext(connection()) as captured:
        assert staff.get("/admin/taskapi/taskinfo/").status_code == 200
    assert not [query for query in captured.captured_queries if '"traceback"' in query["sql"]], "it may be large"


# Scans are found


def looked_for_by_what_has_no_index():
    return list(TaskInfo.objects.filter(worker="nobody").order_by())


def ordered_by_what_has_no_index():
    return list(TaskInfo.objects.order_by("created")[:10])


def a_range_of_ids_that_is_filtered():
    return list(TaskInfo.objects.filter(id__gt=1, worker="nobody").order_by("id")[:10])


def an_index_asked_for_all_finished_runs():
    return list(TaskInfo.objects.filter(status="succeeded", worker="nobody").order_by("id")[:10])


def messages_by_what_stands_later_in_the_index():
    return list(TaskMessage.objects.filter(index=MESSAGES).values_list("run_id", "index"))


def changing_by_what_has_no_index():
    return TaskInfo.objects.filter(worker="nobody").update(worker="")


def deleting_by_what_has_no_index():
    return TaskMessage.objects.filter(seq=MESSAGES).delete()


def counting():
    return TaskInfo.objects.count()


@pytest.mark.parametrize(
    "scan",
    [
        looked_for_by_what_has_no_index,
        ordered_by_what_has_no_index,
        a_range_of_ids_that_is_filtered,
        an_index_asked_for_all_finished_runs,
        messages_by_what_stands_later_in_the_index,
        changing_by_what_has_no_index,
        deleting_by_what_has_no_index,
        counting,
    ],
)
def test_a_scan_is_recognised(scan):
    with watched() as watch:
        scan()
    assert watch.faults


@pytest.mark.parametrize(
    ("index", "road"),
    [
        ("taskapi_status", upkeep.take_back),
        ("taskapi_status", lambda: upkeep.requeue(["default"])),
        ("taskapi_expires", upkeep.prune),
    ],
)
def test_without_its_index_it_is_a_scan(index, road):
    with connection().cursor() as cursor:
        cursor.execute(f"DROP INDEX {index}")
    with watched() as watch:
        road()
    assert watch.faults
