from django.urls import include, path

urlpatterns = [path("", include("taskapi.urls"))]
