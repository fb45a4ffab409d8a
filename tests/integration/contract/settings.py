"""The test project, with tasks, logins and limits for each promise of the contract."""

from tests.project.settings import *  # noqa: F403

TASK_API_AUTHENTICATION_CLASSES = [
    "rest_framework.authentication.BasicAuthentication",
    "rest_framework.authentication.SessionAuthentication",
]

TASK_API_BACKGROUND_TASKS = [
    "tests.project.tasks.Sum",
    "tests.project.tasks.AsyncSum",
    "tests.project.tasks.Count",
    "tests.project.tasks.AsyncCount",
    "tests.project.tasks.Say",
    "tests.project.tasks.Hold",
    "tests.project.tasks.AsyncHold",
    "tests.project.tasks.Refuse",
    "tests.integration.contract.tasks.Say",
    "tests.integration.contract.tasks.SayEverything",
    "tests.integration.contract.tasks.Nest",
    "tests.integration.contract.tasks.Fussy",
    "tests.integration.contract.tasks.Return",
    "tests.integration.contract.tasks.AsyncReturn",
    "tests.integration.contract.tasks.ReturnOdd",
    "tests.integration.contract.tasks.Raise",
    "tests.integration.contract.tasks.AsyncRaise",
    "tests.integration.contract.tasks.Progress",
    "tests.integration.contract.tasks.Patient",
    "tests.integration.contract.tasks.HalfWay",
    "tests.integration.contract.tasks.Track",
    "tests.integration.contract.tasks.AsyncTrack",
    "tests.integration.contract.tasks.UseDatabase",
    "tests.integration.contract.tasks.AsyncUseDatabase",
    "tests.integration.contract.tasks.WhoAmI",
    "tests.integration.contract.tasks.Members",
    "tests.integration.contract.tasks.OncePerDay",
    "tests.integration.contract.tasks.Large",
    "tests.integration.contract.validating.Order",
    "tests.integration.contract.validating.AsyncOrder",
]
