"""The rules of the conformance kit, in the order in which they are reported."""

from poolkit.testing.checks.answers import (
    answers_are_deterministic,
    batch_equals_singles,
    empty_batch_is_clear,
    examples_are_answered,
    input_is_not_mutated,
    order_is_kept,
    requests_keep_apart,
)
from poolkit.testing.checks.bad_input import bad_input_is_refused
from poolkit.testing.checks.check import Check
from poolkit.testing.checks.contract import (
    examples_validate,
    heads_have_fakes,
    hooks_bind,
    routes_are_free,
    routes_are_prefixed,
    schemas_are_json,
    settings_can_be_given,
)
from poolkit.testing.checks.importing import import_is_light, import_is_quiet, import_is_survived
from poolkit.testing.checks.metadata import (
    api_is_supported,
    entry_points_resolve,
    names_match,
    plugin_loads,
    requirement_is_bounded,
    settings_forbid_extras,
)
from poolkit.testing.checks.pickling import descriptors_pickle
from poolkit.testing.checks.subject import NotApplicableError, Subject, tell

__all__ = ["CHECKS", "Check", "NotApplicableError", "Subject", "tell"]

CHECKS = (
    import_is_survived,
    import_is_light,
    import_is_quiet,
    entry_points_resolve,
    names_match,
    api_is_supported,
    requirement_is_bounded,
    settings_forbid_extras,
    settings_can_be_given,
    plugin_loads,
    hooks_bind,
    descriptors_pickle,
    schemas_are_json,
    examples_validate,
    heads_have_fakes,
    examples_are_answered,
    order_is_kept,
    batch_equals_singles,
    empty_batch_is_clear,
    requests_keep_apart,
    input_is_not_mutated,
    answers_are_deterministic,
    bad_input_is_refused,
    routes_are_free,
    routes_are_prefixed,
)
