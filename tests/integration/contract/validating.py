"""Tasks that validate their inputs together."""

import secrets

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework.exceptions import ValidationError

from taskapi.params import IntParameter, StringParameter
from taskapi.tasks import Task


class Order(Task):
    """Order something; `validate` queries the database, and gives each order its own number."""

    name = "order"
    inputs = {
        "item": StringParameter(),
        "amount": IntParameter(default=1),
        "limit": IntParameter(default=10),
        "number": StringParameter(required=False),
    }
    outputs = {"order": StringParameter()}

    @classmethod
    def validate(cls, inputs, *, user):
        if inputs["item"] == "forget":
            return None
        if inputs["item"] == "forbid":
            raise PermissionDenied
        if inputs["amount"] > inputs["limit"]:
            raise ValidationError({"amount": ["More than the limit."], "limit": "Less than the amount."})
        if user is None and inputs["amount"] > 5:
            raise DjangoValidationError("Log in for more than %(most)s.", params={"most": 5})
        who = User.objects.get(pk=user.pk).username if user else User.objects.filter(username="nobody").count()
        return inputs | {"item": f"{inputs['item']} for {who}", "number": secrets.token_hex(8)}

    def run(self, item, amount, limit, number=None):
        return f"{amount} {item}: {number}"


class AsyncOrder(Order):
    name = "async_order"

    async def run(self, item, amount, limit, number=None):
        return f"{amount} {item}: {number}"
