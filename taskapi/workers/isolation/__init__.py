"""A process for one run: ``isolation = "process"``.

A thread cannot be ended from outside, and neither can a task that makes no progress call. A process can. So a task
that asks for it runs in one. Its worker (`parent`) starts the process, passes on what the task says, and kills the
process if it has to stop and does not. The process (`entry`, then `child`) has a pipe to its worker. It does not touch
the run's row or its events.
"""
