"""The demo: a small Django project that uses taskapi as a project of one's own would. Start it with `make demo`."""
