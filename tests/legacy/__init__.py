"""Every example of the 1.x documentation, with `taskapi` for `task_api`, and with its mistakes corrected."""
