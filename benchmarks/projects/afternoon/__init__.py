"""Channels and stock arq, put together in an afternoon from their documentation: a row a job, a group a job."""
