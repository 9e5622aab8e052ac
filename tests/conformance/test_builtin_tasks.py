"""poolkit's own tasks keep the rules that it sets for others."""

from poolkit.testing import parametrize_with_checks


@parametrize_with_checks("poolkit")
def test_the_built_in_tasks_keep_every_rule(check):
    check()
