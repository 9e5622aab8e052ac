"""Finds the logits of an NLI model that say whether a text entails a hypothesis."""

from __future__ import annotations

from dataclasses import dataclass

from poolkit import ModelInfo

__all__ = ["Verdicts", "find_verdicts", "why_not"]

ENTAILMENT = "entail"
"""The beginning of the name of the label for entailment, in any case: entailment, ENTAILMENT, entails."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The columns of the two verdicts that count among a model's logits."""

    entailment: int
    contradiction: int


def find_verdicts(model: ModelInfo) -> Verdicts | None:
    """Return where a model's verdicts stand, or None if none of its labels is entailment.

    Which one is contradiction is taken from its place, as transformers' pipeline does: the first label, or the last
    one where the first is entailment. A model of two labels has "not entailment" there.
    """
    names = model.label_names or {}
    found = next((index for index, name in names.items() if name.lower().startswith(ENTAILMENT)), None)
    if found is None:
        return None
    return Verdicts(entailment=found, contradiction=len(names) - 1 if found == 0 else 0)


def why_not(model: ModelInfo) -> str | None:
    """Return why a model cannot tell which labels fit a text, or None if it can."""
    verdicts = find_verdicts(model)
    if verdicts is None:
        return (
            f"its labels are {', '.join((model.label_names or {}).values())}; none of them begins with {ENTAILMENT!r}. "
            "Take a model of natural language inference, or name its labels with hf_overrides id2label"
        )
    if verdicts.entailment == verdicts.contradiction:
        return "entailment is its only label, so there is nothing to weigh it against"
    return None
