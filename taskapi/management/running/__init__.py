"""What `manage.py runtask` is made of: its inputs, the run here or on a server, and what is shown of it."""
