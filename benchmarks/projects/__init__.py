"""The projects that are measured: the same tasks on each stack, written as its documentation shows."""
