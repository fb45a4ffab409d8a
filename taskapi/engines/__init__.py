"""What executes runs in a process that is no worker: in the server's own, say. A backend names its engine."""
