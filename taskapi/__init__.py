"""Django Task API: typed background tasks for Django, run from the browser and followed live."""

__version__ = "2.0.0.dev0"
