"""What is asked and answered: in poolkit's own words, and in those of the clients of the Hugging Face hub."""

from __future__ import annotations

from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from poolkit import Usage

__all__ = [
    "Classification",
    "HubParameters",
    "HubRequest",
    "HubResponse",
    "LabelScore",
    "PipelineRequest",
    "PipelineResponse",
    "Ranking",
    "Settings",
    "ZeroShotRequest",
    "ZeroShotResponse",
]

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
    list[Text],
    BeforeValidator(_split, json_schema_input_type=str | list[str]),
    AfterValidator(_check_labels),
    Field(description="What may fit: a list of labels, or a string of them divided by commas."),
]
Template = Annotated[
    str,
    Field(max_length=LONGEST_TEMPLATE, description="The sentence that says a label fits; {} stands for the label."),
    AfterValidator(_check_template),
]
MultiLabel = Annotated[
    bool,
    Field(description="Whether several labels may fit: each is scored by itself. Otherwise the scores sum up to 1."),
]


class Settings(BaseModel):
    """The table `[plugins.poolkit-zero-shot]` of poolkit.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_pairs: int = Field(
        default=8192, ge=1, description="Texts times labels of one request. Each pair runs through the model."
    )


class ZeroShotRequest(BaseModel):
    """Say how well each label fits each text."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
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
    candidate_labels: Labels
    hypothesis_template: Template = DEFAULT_TEMPLATE
    multi_label: MultiLabel = False
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


class HubParameters(BaseModel):
    """How the hub's clients send the labels."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    candidate_labels: Labels
    hypothesis_template: Template = DEFAULT_TEMPLATE
    multi_label: MultiLabel = False


class HubRequest(BaseModel):
    """Ask as a client of the Hugging Face hub does. As on the hub, a text that is too long is cut."""

    # What the hub's clients send besides is about its own queues and caches.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "inputs": "The striker scored twice in the second half.",
                    "parameters": {"candidate_labels": ["sports", "economy", "cooking"], "multi_label": True},
                },
            ]
        },
    )

    inputs: Text | list[Text] = Field(description="A text or a list of texts.")
    parameters: HubParameters

    def in_own_words(self) -> ZeroShotRequest:
        """Return the same as poolkit's own request."""
        return ZeroShotRequest(
            input=self.inputs,
            candidate_labels=self.parameters.candidate_labels,
            hypothesis_template=self.parameters.hypothesis_template,
            multi_label=self.parameters.multi_label,
            truncate_prompt_tokens=-1,
        )


class LabelScore(BaseModel):
    """One label and how well it fits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    score: float


class HubResponse(RootModel[list[LabelScore] | list[list[LabelScore]]]):
    """What the hub answers: the labels of the text, the best first; of a list of texts, a list of that."""

    model_config = ConfigDict(frozen=True)


class PipelineRequest(HubRequest):
    """Ask as a client of the Hugging Face hub does, to be answered as transformers' pipeline does."""


class Classification(BaseModel):
    """One text and its labels, the best first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: str
    labels: list[str]
    scores: list[float]


class PipelineResponse(RootModel[Classification | list[Classification]]):
    """What transformers' pipeline answers, and the hub's clients expected until huggingface_hub 1.1.4."""

    model_config = ConfigDict(frozen=True)
