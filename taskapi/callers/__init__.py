"""The callers whose connections stay open for hours, of sockets and of streams: who they are, and who they are now."""
