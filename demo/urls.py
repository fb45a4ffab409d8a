from django.contrib.staticfiles.views import serve
from django.urls import include, path

from demo.views import page

urlpatterns = [
    path("", page),
    path("", include("taskapi.urls")),
    # daphne serves no static files, so Django does. In production, let a web server in front of it serve them. Nothing
    # is wrapped around the application for that: then daphne would read large uploads into its memory.
    path("static/<path:path>", serve, {"insecure": True}),  # in spite of DEBUG = False
]
