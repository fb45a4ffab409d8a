"""``path("", include("taskapi.urls"))``"""

from django.urls import path

from taskapi.views.events import EventsView
from taskapi.views.run import CancelView, RetryView, RunView
from taskapi.views.runs import RunsView
from taskapi.views.schemas import AsyncAPIView, OpenAPIView
from taskapi.views.types import TypesView

app_name = "taskapi"

urlpatterns = [
    path("tasks/", RunsView.as_view(), name="runs"),
    path("tasks/types/", TypesView.as_view(), name="types"),
    path("tasks/openapi.json", OpenAPIView.as_view(), name="openapi"),
    path("tasks/asyncapi.json", AsyncAPIView.as_view(), name="asyncapi"),
    path("tasks/<uuid:uuid>/", RunView.as_view(), name="run"),
    path("tasks/<uuid:uuid>/events/", EventsView.as_view(), name="events"),
    path("tasks/<uuid:uuid>/cancel/", CancelView.as_view(), name="cancel"),
    path("tasks/<uuid:uuid>/retry/", RetryView.as_view(), name="retry"),
]
