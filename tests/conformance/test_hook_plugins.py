"""The kit on a plugin that has hooks and no task: the built-in tasks are tried with them on."""

import pytest

from poolkit.testing import check_plugin
from sound_plugin import SOUND_WRAPPER

ENGINE_CHECKS = (
    "engine_loads",
    "engine_states_fit",
    "engine_batches_equal_singles",
    "engine_is_deterministic",
    "engine_is_thread_safe",
    "engine_leaves_batches_alone",
    "engine_names_its_device",
    "engine_close_is_clean",
    "engine_leaves_nothing_open",
    "engine_memory_is_given_back",
    "engine_caches_are_bounded",
)
BUILTIN = ("classify/rerank", "embed/measure", "reward/measure", "token_classify/measure", "token_embed/measure")


@pytest.fixture
def install(site):
    def install(old="", new=""):
        assert old in SOUND_WRAPPER
        site.install(
            "poolkit-hush",
            modules={"poolkit_hush": SOUND_WRAPPER.replace(old, new, 1)},
            hooks={"hush": "poolkit_hush"},
            requires=["poolkit>=0.1,<0.2"],
        )

    return install


def verdicts(*wanted):
    return {result.name: result.message for result in check_plugin("hush") if result.verdict in wanted}


def test_what_is_asked_of_tasks_alone_is_skipped(install):
    install()
    assert verdicts("failed", "warned") == {}
    no_tasks = "the plugin has no tasks of its own"
    assert verdicts("skipped") == {
        "names_match": no_tasks,
        "api_is_supported": no_tasks,
        "examples_validate": no_tasks,
        "heads_have_fakes": no_tasks,
        "heads_are_examined": no_tasks,
        "groups_stay_together": "no wrapper of the plugin surrounds the model",
        **dict.fromkeys(ENGINE_CHECKS, "the plugin has no engines"),
        "routes_are_free": no_tasks,
        "routes_are_prefixed": no_tasks,
    }


def test_a_hook_module_is_a_module(install, site):
    install()
    entry_points = site.path / "poolkit_hush-1.0.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[poolkit.plugins]\nhush = poolkit_hush:Wrapper\n")
    assert verdicts("failed") == {
        "entry_points_resolve": "hush = poolkit_hush:Wrapper is of type type. Group poolkit.plugins takes a module."
    }


def test_a_start_up_hook_takes_what_it_is_given(install):
    install("poolkit_wrap(context, settings)", "poolkit_wrap(context, config)")
    assert verdicts("failed") == {
        "plugin_loads": "poolkit-hush 1.0.0: poolkit_hush.poolkit_wrap takes 'config'; "
        "the hook provides (context, settings)."
    }


def test_a_wrapper_takes_what_it_is_given(install):
    install("pre_process(self, request)", "pre_process(self, ctx)")
    told = "poolkit-hush 1.0.0: Wrapper.pre_process takes 'ctx'; the hook provides (request)."
    assert verdicts("failed") == {"hooks_bind": "\n".join([told] * len(BUILTIN))}


def test_its_settings_get_to_worker_processes(install):
    install(
        'suffix: str = "!"',
        'suffix: str = "!"\n\n    def __reduce__(self):\n        raise LookupError("no way to write it")',
    )
    assert verdicts("failed") == {
        "descriptors_pickle": "its settings (poolkit_hush.Settings) cannot be pickled: LookupError: no way to write it."
    }


def test_the_built_in_tasks_are_tried_with_its_wrappers_on(install):
    install("response = yield\n        return response", "yield\n        return None")
    assert verdicts("failed").keys() == {"examples_are_answered"}
    lines = verdicts("failed")["examples_are_answered"].splitlines()
    assert sorted(line.partition(",")[0] for line in lines) == sorted(BUILTIN)
