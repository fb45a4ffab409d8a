"""Runs the Python samples of a page, one after the other, in one namespace.

- If an expression is followed by a comment with a literal, it must have that value: ``1 + 1  # 2``.
- Settings must pass the system checks, and so must the tasks that a sample defines.
- A sample that begins with a file name is also written to that file, so that dotted paths find it.
- `await` is allowed everywhere.
"""

import ast
import asyncio
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core import checks
from django.db import connections
from django.test import override_settings
from django.urls import path

from taskapi.tasks import Task
from tests.docs.conftest import write
from tests.docs.pages import Fence, fences

SETTINGS = re.compile(r"TASK_API_\w+|CHANNEL_LAYERS|REST_FRAMEWORK")  # the system checks look at these
COMMENT = re.compile(r" # (.+)$")


def run_samples(page: str, folder: Path, settings: Any, replacements: Mapping[str, str] | None = None) -> None:
    """Run them in the calling thread."""
    # what a project's settings.py and urls.py have before the sample
    namespace: dict[str, Any] = {
        "__name__": "sample",
        "BASE_DIR": folder,
        "DATABASES": {"default": {}},
        "INSTALLED_APPS": [],
        "MIDDLEWARE": [],
        "ALLOWED_HOSTS": [],
        "path": path,
        "urlpatterns": [],
        "expect": expect,  # the transformed samples call it
    }
    try:
        for fence in fences(page, "python"):
            run_sample(fence, folder, settings, namespace, replacements or {})
    finally:
        connections.close_all()


def run_sample(
    fence: Fence, folder: Path, settings: Any, namespace: dict[str, Any], replacements: Mapping[str, str]
) -> None:
    for name, code in fence.files.items():
        write(folder / name, code)
    before = dict(namespace)
    text = fence.padded
    for old, new in replacements.items():
        text = text.replace(old, new)
    tree = ast.fix_missing_locations(Expectations(text).visit(ast.parse(text, fence.page)))
    for statement in tree.body:
        module = ast.Module([statement], [])
        result = eval(compile(module, fence.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)  # noqa: S307 - our own samples
        if inspect.iscoroutine(result):
            asyncio.run(result)
        if isinstance(statement, ast.ClassDef):
            settings.TASK_API_BACKGROUND_TASKS = [value for value in namespace.values() if is_task(value)]
    check({name: value for name, value in namespace.items() if value is not before.get(name)})


def is_task(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value is not Task


def check(new: dict[str, Any]) -> None:
    """Run the system checks on the settings and tasks of a sample."""
    with override_settings(**{name: value for name, value in new.items() if SETTINGS.fullmatch(name)}):
        assert checks.run_checks(tags=["taskapi"], databases=[]) == []


class Expectations(ast.NodeTransformer):
    """Makes ``value  # literal`` an assertion."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        comment = COMMENT.search(self.lines[(node.end_lineno or node.lineno) - 1])
        if comment is None:
            return node
        try:
            literal = ast.parse(comment[1], mode="eval").body
            ast.literal_eval(literal)
        except (SyntaxError, ValueError):
            return node  # an ordinary comment
        call = ast.Call(ast.Name("expect", ast.Load()), [node.value, literal], [])
        return ast.copy_location(ast.Expr(call), node)


def expect(value: object, wanted: object) -> None:
    assert value == wanted, f"the sample says {wanted!r}, but the value is {value!r}"
