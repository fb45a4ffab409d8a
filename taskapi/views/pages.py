"""Pages of runs, newest first."""

from __future__ import annotations

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.settings import api_settings

PAGE_SIZE = 50  # runs; REST framework's PAGE_SIZE is the project's own
MOST_SIZE = 100  # runs that a client may ask for at once


class Pages(CursorPagination):
    """REST framework's cursors: what is started meanwhile moves no run to another page, and no page is slow."""

    ordering = "-id"
    page_size_query_param = "page_size"
    max_page_size = MOST_SIZE

    def get_page_size(self, request: Request) -> int | None:
        self.page_size = api_settings.PAGE_SIZE or PAGE_SIZE
        return super().get_page_size(request)

    def decode_cursor(self, request: Request) -> Cursor | None:
        """As REST framework's, but NotFound also for a position that is no id."""
        cursor: Cursor | None = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                int(cursor.position)
            except ValueError:
                raise NotFound(self.invalid_cursor_message) from None
        return cursor
