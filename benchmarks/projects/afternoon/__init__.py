"""Channels and plain arq, put together in an afternoon from their documentation: a row and a group for each job."""
