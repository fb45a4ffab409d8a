"""Every example of the 1.x documentation: `taskapi` for `task_api`, and its slips read for what was meant."""
