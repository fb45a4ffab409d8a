"""Cross-origin answers, as django-cors-headers gives them with the settings of docs/javascript.md."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

ALLOWED = "Accept, Content-Type, Authorization, X-CSRFToken, Idempotency-Key"


def cors(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Allow requests below `/cors/` from any origin."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/cors/"):
            return get_response(request)
        response = HttpResponse() if request.method == "OPTIONS" else get_response(request)
        response["Access-Control-Allow-Origin"] = request.headers.get("Origin", "*")
        response["Access-Control-Allow-Credentials"] = "true"
        response["Access-Control-Allow-Headers"] = ALLOWED
        return response

    return middleware
