"""The header ``Idempotency-Key``, bare and quoted."""

import pytest
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from taskapi.protocol import KEY_LENGTH
from taskapi.views.keys import idempotency_key


def key_of(**headers):
    return idempotency_key(Request(APIRequestFactory().post("/tasks/", headers=headers)))


def key(given):
    return key_of(**{"Idempotency-Key": given})


def test_a_request_without_the_header_has_no_key():
    assert key_of() is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("K", "K"),
        ('"K"', "K"),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (r'"a \"quoted\" word"', 'a "quoted" word'),
        (r'"back\\slash"', r"back\slash"),
        (r'"\\\""', '\\"'),
        ('" a "', " a "),
        ('"~!#[]^"', "~!#[]^"),
        ('quote"inside', 'quote"inside'),
        (r"back\slash", r"back\slash"),
        ("caf\xe9", "caf\xe9"),
    ],
)
def test_a_key_and_the_same_key_in_quotes(given, meant):
    assert key(given) == meant


@pytest.mark.parametrize(
    "given",
    ['"', '"K', '"K" ; a=1', '"K", "L"', '"K"x', '"a"b"', r'"\n"', '"a\\"', '"caf\xe9"', '"a\tb"', '"\x7f"'],
)
def test_a_malformed_quoted_key_is_refused_with_what_was_expected(given):
    with pytest.raises(ValidationError) as refused:
        key(given)
    assert "quoted string" in refused.value.detail["Idempotency-Key"][0]


@pytest.mark.parametrize("given", ["", '""', "k" * (KEY_LENGTH + 1), f'"{"k" * (KEY_LENGTH + 1)}"'])
def test_a_key_of_another_length_is_refused(given):
    with pytest.raises(ValidationError) as refused:
        key(given)
    assert refused.value.detail == {"Idempotency-Key": [f"Expected 1 to {KEY_LENGTH} characters."]}


@pytest.mark.parametrize("given", [f'"{"k" * KEY_LENGTH}"', '"' + r"\"" * KEY_LENGTH + '"'])
def test_the_length_is_that_of_the_key_without_its_quotes(given):
    assert len(key(given)) == KEY_LENGTH
