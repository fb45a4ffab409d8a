"""A process for one run: ``isolation = "process"``.

A thread cannot be ended from outside, and neither can a task that calls nothing. A process can, so a task that
asks for it runs in one: its worker (`outside`) starts it, passes on what the task says, and kills it when it
has to stop and does not. The process (`inside`) has a pipe to its worker, and touches neither the run's row
nor its events.
"""
