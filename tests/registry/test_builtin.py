"""poolkit as it is installed: its own tasks come through the same entry points as anyone's."""

from __future__ import annotations

import subprocess
import sys

from distributions import fake_encoder, make_model
from poolkit.config import PluginConfig
from poolkit.registry import Registry, Status, list_plugins


def test_embed_is_an_entry_point_of_poolkit_and_binds_like_any_task():
    registry = Registry.load(PluginConfig())
    model = make_model()
    task = registry.get_pooling_task(registry.supported_tasks(model), model=model)
    assert task.name == "embed"
    [loaded] = [loaded for loaded in registry.tasks if loaded.name == "embed"]
    assert (loaded.plugin.name, loaded.entry_point.value) == ("poolkit", "poolkit_tasks.embed:EMBED")
    bound = registry.bind(task, model, fake_encoder())
    assert {"embeddings", "pooling"} <= set(bound.operations)
    bound.close()


def test_the_list_of_plugins_has_embed_as_built_in():
    [row] = [row for row in list_plugins(PluginConfig()) if row.name == "embed"]
    assert (row.status, row.plugin, row.why) == (Status.ENABLED, "poolkit", "built in")


def test_loading_the_registry_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from poolkit.config import PluginConfig\n"
        "from poolkit.registry import Registry, list_plugins\n"
        "list_plugins(PluginConfig())\n"
        "assert not [name for name in sys.modules if name.startswith('poolkit_tasks')]\n"
        "Registry.load(PluginConfig())\n"
        "print([name for name in ('torch', 'transformers', 'uvicorn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
