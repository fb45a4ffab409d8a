"""``tasks/uploads/``: a file for the inputs of a run that is started later."""

from __future__ import annotations

from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError
from django.utils.crypto import salted_hmac
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle

from taskapi import files
from taskapi.runs.access import refuse_deleted_user
from taskapi.views.base import View
from taskapi.views.multipart import Parser, bound_files, refuse_large, refuse_long

FIELD = "file"


class UploadsView(View):
    """``tasks/uploads/``"""

    parser_classes = (Parser,)

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        bound_files(request)
        return super().initialize_request(request, *args, **kwargs)

    def perform_authentication(self, request: Request) -> None:
        refuse_long(request._request)  # noqa: SLF001 - DRF has no public name for it
        super().perform_authentication(request)

    def post(self, request: Request) -> Response:
        """Store the file in the field `file`; the answer has the reference by which a run is given it."""
        found = [*request.FILES.getlist(FIELD)]
        if len(found) != 1 or len(request.FILES) != 1:
            raise ValidationError({FIELD: [f"Expected one file, in a field that is named `{FIELD}`."]})
        file: UploadedFile[Any] = found[0]
        refuse_large(file)
        user: Any = request.user if getattr(request.user, "is_authenticated", False) else None
        try:
            row = files.store_upload(file, user, sender_of(request))
        except IntegrityError:
            refuse_deleted_user(user)
            raise
        answer = {"upload": row.reference, "name": row.name, "size": row.size, "content_type": row.content_type}
        return Response(answer, status.HTTP_201_CREATED)


def sender_of(request: Request) -> str:
    """Of whom uploads are counted that nobody who is known has sent: a digest of the address, which tells nothing."""
    address = BaseThrottle().get_ident(request)
    return salted_hmac("taskapi.uploads", str(address), algorithm="sha256").hexdigest()
