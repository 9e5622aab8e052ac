"""`python -m poolkit.testing`: the conformance kit in a process of its own, for `poolkit plugins check`."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import cast

from poolkit.testing.fresh import take_question
from poolkit.testing.kit import check_plugin

__all__: list[str] = []


def main() -> None:
    """Answer the question on standard input, a plugin's name, with the results of its checks."""
    name, answer = take_question(output_to=2)
    logging.disable()  # what the pipeline logs of a failed hook stands in the results
    results = [dataclasses.asdict(result) for result in check_plugin(cast("str", name))]
    with answer:
        answer.write(json.dumps(results).encode())


if __name__ == "__main__":
    main()
