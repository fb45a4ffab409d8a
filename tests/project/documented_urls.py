"""A project with a schema and with calls of its own, one of which has a `status` as our runs have."""

from django.urls import include, path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.views import APIView


class Order(serializers.Serializer):
    status = serializers.ChoiceField(["open", "paid"])


class OrderView(APIView):
    @extend_schema(responses=Order)
    def get(self, request):
        return Response({"status": "open"})


urlpatterns = [
    path("schema/", SpectacularAPIView.as_view()),
    path("order/", OrderView.as_view()),
    path("api/", include("taskapi.urls")),
]
