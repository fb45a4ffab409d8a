"""All definitions, to which both documents refer."""

from __future__ import annotations

from collections.abc import Iterable

from taskapi.schemas import answers, calls, frames, refusals, runs, tasks
from taskapi.schemas.parts import Components


def components(of_tasks: Iterable[tasks.Described]) -> Components:
    """Everything that a document may refer to, with the schemas of these tasks."""
    schemas = {
        **runs.DEFINITIONS,
        **refusals.DEFINITIONS,
        **frames.DEFINITIONS,
        **calls.DEFINITIONS,
        **tasks.definitions(of_tasks),
    }
    return {
        "schemas": schemas,
        "headers": answers.HEADERS,
        "responses": answers.RESPONSES,
        "parameters": calls.PARAMETERS,
    }
