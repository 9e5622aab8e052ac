"""A plugin that only `"*"` enabled and that cannot be used is shown wherever somebody may look for it."""

from __future__ import annotations

from distributions import Site
from poolkit.contract import Decision
from poolkit.server import create_app
from serving import ask, fake_model


def test_what_is_quarantined_is_in_the_start_up_report_and_in_the_list_of_tasks(site: Site):
    site.install("poolkit-geo", "0.2.0", modules={"poolkit_geo": "import rasterio"}, tasks={"geo": "poolkit_geo:GEO"})
    with fake_model("embed", plugin="*") as served:
        rows = ask(create_app(served), "GET", "/tasks").json()["tasks"]
    reason = "poolkit-geo 0.2.0 failed to import: ModuleNotFoundError: No module named 'rasterio'"
    assert Decision("quarantined", "task geo of poolkit-geo 0.2.0", reason) in served.decisions
    [row] = [row for row in rows if row["plugin"] == "poolkit-geo"]
    assert (row["status"], row["why"].splitlines()[0]) == ("quarantined", reason)
