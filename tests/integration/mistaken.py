"""The settings of a project that is being developed: with DEBUG on, as its developer makes mistakes."""

from tests.project.settings import *  # noqa: F403 - this is how settings are built upon one another

DEBUG = True
