"""REST as OpenAPI, by drf-spectacular: our document of our calls, and our calls in a project's own document.

This is the only module that imports drf-spectacular, which is an extra. It is imported when our document is asked for,
and when Django starts if the project has drf-spectacular among its apps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.urls import include, path
from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from drf_spectacular.settings import spectacular_settings
from rest_framework.schemas.generators import EndpointEnumerator

from taskapi import __version__
from taskapi.runs.access import TaskAPIView
from taskapi.schemas.calls import CALLS
from taskapi.schemas.definitions import components
from taskapi.schemas.parts import JSON_SCHEMA, needed
from taskapi.schemas.plain import as_openapi_3_0, hidden_from_enum_hook
from taskapi.schemas.tasks import Described, described
from taskapi.tasks.registry import tasks

TITLE = "Tasks"
DESCRIPTION = "Background tasks: start a run, follow it, cancel it. By Django Task API."


def document(of_tasks: Iterable[Described], mount: str, server: str | None = None) -> dict[str, Any]:
    """OpenAPI 3.1 of our calls and no others, at the path where ``include("taskapi.urls")`` is mounted."""
    registry = ComponentRegistry()
    paths: dict[str, dict[str, Any]] = {}
    known = list(of_tasks)
    for end, method, callback in EndpointEnumerator([path("", include("taskapi.urls"))]).get_api_endpoints():
        schema = CallSchema(known)
        schema.view = callback.cls()
        address = f"{mount}{end.removeprefix('/')}"
        operation = schema.get_operation(address, address, "", method, registry)
        paths.setdefault(address, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": __version__, "description": DESCRIPTION},
        "jsonSchemaDialect": JSON_SCHEMA,
        **({"servers": [{"url": server}]} if server else {}),
        "paths": paths,
        "components": registry.build({}),
    }


class CallSchema(AutoSchema):
    """Describes our calls as `CALLS` has them, with the security schemes of the project."""

    def __init__(self, of_tasks: Iterable[Described]) -> None:
        super().__init__()
        self._tasks = of_tasks

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> dict[str, Any] | None:
        """The operation of the call; what it refers to is added to the registry."""
        operation = operation_at(path, method)
        if operation is None:
            return super().get_operation(path, path_regex, path_prefix, method, registry)
        self.path, self.path_regex, self.path_prefix, self.method, self.registry = (
            path, path_regex, path_prefix, method, registry
        )  # fmt: skip
        for kind, named in needed(operation, components(self.described())).items():
            for name, component in named.items():
                registry.register_on_missing(ResolvedComponent(name, kind, self.written(component), name))
        security = self.get_auth()
        if not self.view.get_permissions():  # nothing is asked of a caller
            security = [*security, {}]
        return {**self.written(operation), **({"security": security} if security else {})}

    def described(self) -> Iterable[Described]:
        """The tasks of the document."""
        return self._tasks

    def written(self, part: dict[str, Any]) -> dict[str, Any]:
        """The part as the document has it."""
        return part


class ProjectCallSchema(CallSchema):
    """The same in the document of a project, which may be of OpenAPI 3.0."""

    def __init__(self) -> None:
        super().__init__(())

    def described(self) -> Iterable[Described]:
        view: Any = self.view  # one of ours
        shown = tasks().values() if spectacular_settings.SERVE_PUBLIC else view.permitted_tasks()
        return map(described, shown)

    def written(self, part: dict[str, Any]) -> dict[str, Any]:
        is_old = spectacular_settings.OAS_VERSION.startswith("3.0")
        of_version: dict[str, Any] = as_openapi_3_0(part) if is_old else part
        shown: dict[str, Any] = hidden_from_enum_hook(of_version)
        return shown


class CallExtension(OpenApiViewExtension):
    """Gives our views their schema in the document of a project."""

    target_class = TaskAPIView
    match_subclasses = True

    def view_replacement(self) -> type[Any]:
        return type(
            self.target.__name__, (self.target,), {"schema": ProjectCallSchema(), "__doc__": self.target.__doc__}
        )


def operation_at(address: str, method: str) -> dict[str, Any] | None:
    """The operation of the call at this path, wherever our URLs are mounted."""
    ends = [call for call in CALLS if call.method == method and f"/{address}".endswith(f"/{call.path}")]
    if not ends:
        return None
    return {**max(ends, key=lambda call: len(call.path)).operation, "tags": ["tasks"]}
