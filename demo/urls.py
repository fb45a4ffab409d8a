from django.urls import include, path

from demo.views import page

urlpatterns = [
    path("", page),
    path("", include("taskapi.urls")),
]
