"""The tags for templates."""

from types import SimpleNamespace

import pytest
from django.template import Context, Template
from django.test import Client

TAG = "{% load taskapi %}{% task_script %}"
SCRIPT = '<script src="/static/django-task-api.min.js"></script>'


@pytest.fixture
def browser(settings, db):
    settings.ROOT_URLCONF = "tests.unit.csrf_site"
    return Client(enforce_csrf_checks=True)


def test_the_script_comes_with_the_token_and_its_cookie(browser, settings):
    response = browser.get("/page/")
    meta, script = response.content.decode().splitlines()
    assert meta.startswith('<meta name="csrf-token" content="')
    assert script == SCRIPT
    assert settings.CSRF_COOKIE_NAME in response.cookies


@pytest.mark.parametrize("hides", ["CSRF_USE_SESSIONS", "CSRF_COOKIE_HTTPONLY", None])
def test_the_token_is_accepted_although_no_script_can_read_the_cookie(browser, settings, hides):
    if hides is not None:
        setattr(settings, hides, True)
    token = browser.get("/page/").content.decode().split('content="')[1].split('"')[0]
    assert browser.post("/unsafe/").status_code == 403
    assert browser.post("/unsafe/", headers={"X-CSRFToken": token}).content == b"done"


def test_without_a_request_there_is_the_script_alone():
    assert Template(TAG).render(Context()) == SCRIPT


@pytest.mark.parametrize("context", [{"csp_nonce": "a<b"}, {"request": SimpleNamespace(csp_nonce="a<b")}])
def test_a_policy_with_nonces_allows_the_script(context):
    """Django 6 has the nonce in the context, and django-csp in the request."""
    assert Template(TAG).render(Context(context)) == SCRIPT.replace("></", ' nonce="a&lt;b"></')


def test_a_policy_without_nonces_needs_none():
    assert Template(TAG).render(Context({"csp_nonce": "", "request": SimpleNamespace()})) == SCRIPT
