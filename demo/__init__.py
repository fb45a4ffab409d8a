"""The demo: a small Django project that uses taskapi as your own project would. Start it with `make demo`."""
