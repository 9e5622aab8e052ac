"""The rules of the conformance kit, in the order in which they are reported."""

from poolkit.testing.checks.answers import (
    answers_are_deterministic,
    answers_are_the_same_elsewhere,
    examples_are_answered,
    hooks_are_quick,
    input_is_not_mutated,
    requests_keep_apart,
)
from poolkit.testing.checks.batches import (
    batch_equals_singles,
    blanks_keep_their_place,
    duplicates_keep_their_place,
    empty_batch_is_clear,
    order_is_kept,
)
from poolkit.testing.checks.check import Check
from poolkit.testing.checks.contract import (
    examples_validate,
    heads_are_examined,
    heads_have_fakes,
    hooks_bind,
    routes_are_free,
    routes_are_prefixed,
    schemas_are_json,
    settings_can_be_given,
)
from poolkit.testing.checks.engine_resources import (
    engine_caches_are_bounded,
    engine_close_is_clean,
    engine_leaves_nothing_open,
    engine_memory_is_given_back,
    engine_names_its_device,
)
from poolkit.testing.checks.engines import (
    engine_batches_equal_singles,
    engine_is_deterministic,
    engine_is_thread_safe,
    engine_leaves_batches_alone,
    engine_loads,
    engine_states_fit,
)
from poolkit.testing.checks.failures import engine_failures_are_told, failures_are_told, zeros_are_answered
from poolkit.testing.checks.groups import groups_stay_together
from poolkit.testing.checks.importing import import_is_light, import_is_quiet, import_is_survived
from poolkit.testing.checks.inputs import any_script_is_answered, bad_input_is_refused
from poolkit.testing.checks.metadata import (
    api_is_supported,
    entry_points_resolve,
    names_match,
    plugin_loads,
    requirement_is_bounded,
    settings_forbid_extras,
)
from poolkit.testing.checks.pickling import descriptors_pickle
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.checks.resources import (
    caches_are_bounded,
    close_is_clean,
    log_is_discreet,
    memory_is_given_back,
    nothing_is_left_open,
)

__all__ = ["CHECKS", "Check", "NotApplicableError", "PluginUnderTest", "format_error"]

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
    close_is_clean,
    descriptors_pickle,
    schemas_are_json,
    examples_validate,
    heads_have_fakes,
    heads_are_examined,
    hooks_are_quick,
    examples_are_answered,
    order_is_kept,
    batch_equals_singles,
    duplicates_keep_their_place,
    blanks_keep_their_place,
    empty_batch_is_clear,
    groups_stay_together,
    requests_keep_apart,
    input_is_not_mutated,
    answers_are_deterministic,
    answers_are_the_same_elsewhere,
    bad_input_is_refused,
    any_script_is_answered,
    zeros_are_answered,
    engine_failures_are_told,
    failures_are_told,
    memory_is_given_back,
    caches_are_bounded,
    log_is_discreet,
    nothing_is_left_open,
    routes_are_free,
    routes_are_prefixed,
    engine_loads,
    engine_states_fit,
    engine_batches_equal_singles,
    engine_is_deterministic,
    engine_is_thread_safe,
    engine_leaves_batches_alone,
    engine_names_its_device,
    engine_close_is_clean,
    engine_leaves_nothing_open,
    engine_memory_is_given_back,
    engine_caches_are_bounded,
)
