"""The operation's request and response, and the task's settings."""

from __future__ import annotations

from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from poolkit import Usage

__all__ = ["LabelFields", "Ranking", "Settings", "Text", "ZeroShotRequest", "ZeroShotResponse"]

DEFAULT_TEMPLATE = "This example is {}."
LONGEST_TEMPLATE = 1000
"""In characters. It is written out once for each label, so it must not let a small request grow large."""


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank. Give some text")
    return text


def _split(labels: object) -> object:
    """Return the labels of a string, which are divided by commas."""
    if isinstance(labels, str):
        return [stripped for label in labels.split(",") if (stripped := label.strip())]
    return labels


def _check_labels(labels: list[str]) -> list[str]:
    if not labels:
        raise ValueError("is empty. Give at least one label")
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"holds {label!r} twice. Give each label once")
        seen.add(label)
    return labels


def _check_template(template: str) -> str:
    """Refuse what `str.format` would do beyond putting the label in: a format specification can ask for gigabytes."""
    advice = f"Put {{}} once where the label goes, as in {DEFAULT_TEMPLATE!r}, and double any other brace"
    try:
        fields = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        raise ValueError(f"has a brace that stands alone. {advice}") from error
    if not fields:
        raise ValueError(f"has no place for the label. {advice}")
    if fields != [["", "", None]]:
        raise ValueError(f"has more in braces than the label. {advice}")
    return template


Text = Annotated[str, AfterValidator(_check_not_blank)]
Labels = Annotated[
    list[Text], BeforeValidator(_split, json_schema_input_type=str | list[str]), AfterValidator(_check_labels)
]


class Settings(BaseModel):
    """The table `[plugins.poolkit-zero-shot]` of poolkit.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_pairs: int = Field(
        default=8192, ge=1, description="Texts times labels of one request. Each pair runs through the model."
    )


class LabelFields(BaseModel):
    """The labels, and how each is weighed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate_labels: Labels = Field(
        description="What may fit: a list of labels, or a string of them divided by commas."
    )
    hypothesis_template: Annotated[str, AfterValidator(_check_template)] = Field(
        default=DEFAULT_TEMPLATE,
        max_length=LONGEST_TEMPLATE,
        description="The sentence that says a label fits; {} stands for the label.",
    )
    multi_label: bool = Field(
        default=False,
        description="Whether several labels may fit: each is scored by itself. Otherwise the scores sum up to 1.",
    )


class ZeroShotRequest(LabelFields):
    """Say how well each label fits each text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input": ["The striker scored twice in the second half.", "Rates are to rise again in May."],
                    "candidate_labels": ["sports", "economy", "cooking"],
                },
                {
                    "input": "I have a problem with my phone that needs to be solved soon.",
                    "candidate_labels": "urgent, phone, tablet",
                    "hypothesis_template": "This text is about {}.",
                    "multi_label": True,
                },
            ]
        },
    )

    input: Text | list[Text] = Field(description="A text or a list of texts.")
    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        description="Keep at most so many tokens of a text and a label together, by cutting the longer one; "
        "-1 is the model's maximum. Default: refuse.",
    )

    @property
    def texts(self) -> list[str]:
        """The texts as a list, even of one."""
        return [self.input] if isinstance(self.input, str) else self.input


class Ranking(BaseModel):
    """The labels of one text, the best first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(description="Of the text.")
    labels: list[str]
    scores: list[float] = Field(description="From 0 to 1, one a label.")


class ZeroShotResponse(BaseModel):
    """One ranking per text, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: list[Ranking]
    usage: Usage
