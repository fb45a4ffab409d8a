"""``path("", include("taskapi.urls"))``"""

from django.urls import path

from taskapi.views import RunsView, RunView

app_name = "taskapi"

urlpatterns = [
    path("tasks/", RunsView.as_view(), name="runs"),
    path("tasks/<uuid:uuid>/", RunView.as_view(), name="run"),
]
