"""The measured projects: the same tasks on each stack, written as its documentation shows."""
