"""Reads how a model takes texts: how long they may be, and the prompts that it wants before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from poolkit.contract.model_files import SHARED, ModelFamily, ModelFiles
from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import MultiVectorSpec, TextSpec
from poolkit.contract.params import InputType
from poolkit.errors import ModelError
from poolkit.models.multi_vector import MultiVectorFiles, resolve_multi_vector

__all__ = ["find_integer", "read_text"]

NO_MAXIMUM = 10**9
"""Tokenizers without a maximum write about 1e30 as model_max_length."""

POSITION_KEYS = ("max_position_embeddings", "n_positions", "n_ctx")


def read_text(
    files: ModelFiles,
    families: Mapping[str, ModelFamily],
    *,
    multi_vector: MultiVectorFiles | None,
) -> tuple[TextSpec, MultiVectorSpec | None, tuple[Decision, ...]]:
    """Return how the model takes texts, queries and documents of a multi-vector model among them, and why.

    Raises ModelError where the operator asks for longer texts than there is room for, or nothing says how long they
    may be.
    """
    offsets = (family.position_offset(files) for family in families.values() if family.position_offset is not None)
    position_offset = next(offsets, 0)
    positions = _first_integer(files, POSITION_KEYS)
    room = positions - position_offset if positions is not None and positions > 0 else None
    longest, *decisions = _longest(files, room=room)
    spec = None
    if multi_vector is not None:
        spec, decisions = resolve_multi_vector(
            multi_vector, longest=longest, asked=files.config.max_model_len, room=room
        )
        longest = max(spec.query_length, spec.document_length)
    prompts, default_prompt_name = _prompts(files, multi_vector)
    only_queries = any(family.only_queries for family in families.values())
    default_input_type: InputType = "query" if only_queries else files.default_route or "document"
    expansions = (family.expansion(files) for family in families.values() if family.expansion is not None)
    text = TextSpec(
        max_model_len=longest,
        vocab_size=find_integer(files, "vocab_size"),
        position_offset=position_offset,
        lowercases=bool(files.transformer.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        default_input_type=default_input_type,
        expansion=next(expansions, None),
        only_queries=only_queries,
    )
    return text, spec, (*decisions, *_prompt_decisions(text))


def find_integer(files: ModelFiles, *keys: str) -> int:
    """Return the first of these settings of config.json.

    Raises ModelError if there is none.
    """
    value = _first_integer(files, keys)
    if value is None:
        raise ModelError(
            f"{files.folder / 'config.json'} has no whole number {' or '.join(keys)}. Fetch the model again, or set "
            "hf_overrides."
        )
    return value


def _first_integer(files: ModelFiles, keys: tuple[str, ...]) -> int | None:
    return next((value for key in keys if isinstance(value := files.hf_config.get(key), int)), None)


def _longest(files: ModelFiles, *, room: int | None) -> tuple[int, Decision]:
    """Return the longest prompt in tokens, special tokens included; `room` is how many tokens have a position."""
    config = files.config
    limits = []
    max_seq_length = files.transformer.get("max_seq_length")
    if isinstance(max_seq_length, int):
        # To sentence-transformers this replaces what the tokenizer's own file says.
        limits.append((max_seq_length, str(files.transformer_file)))
    else:
        length = files.read("tokenizer_config.json").get("model_max_length")
        if isinstance(length, int | float) and length < NO_MAXIMUM:
            limits.append((int(length), "tokenizer_config.json"))
    if room is not None:
        limits.append((room, "config.json"))
        if config.max_model_len is not None and config.max_model_len > room:
            raise ModelError(
                f"max_model_len is {config.max_model_len}, but {config.model} has positions for {room} tokens "
                "(config.json). Set it to that or less."
            )
    if config.max_model_len is not None:
        limits = [(config.max_model_len, "max_model_len")]
    if not limits:
        raise ModelError(
            f"Nothing in the files of {config.model} says how long a prompt may be. Set max_model_len to its maximum."
        )
    longest, source = min(limits, key=lambda limit: limit[0])
    return longest, Decision("max length", f"{longest} tokens", source)


def _prompts(files: ModelFiles, multi_vector: MultiVectorFiles | None) -> tuple[Mapping[str, str], str | None]:
    """Return the prompts by name, and the name of the one used by default."""
    path = files.root / SHARED
    prompts: object = multi_vector.prompts if multi_vector is not None else files.shared.get("prompts") or {}
    name = files.shared.get("default_prompt_name")
    if not isinstance(prompts, Mapping):
        raise ModelError(f"{path} has prompts {prompts!r}; they must be an object of texts. Fetch the model again.")
    if name is not None and name not in prompts:
        raise ModelError(f"{path} has default_prompt_name {name!r}, but its prompts do not hold that name.")
    if name is None and multi_vector is not None and "document" in prompts:
        name = "document"  # a multi-vector model's marker goes before a text that nobody calls a query, too
    # To sentence-transformers, null is a prompt that was never filled in: no prompt.
    return {str(key): str(text or "") for key, text in prompts.items()}, None if name is None else str(name)


def _prompt_decisions(text: TextSpec) -> Iterator[Decision]:
    """Yield the lines of the start-up report about prompts: empty ones are not worth a line each."""
    if not any(text.prompts.values()):
        yield Decision("prompts", "none", "the model's files name none")
    for name, prompt in text.prompts.items():
        if prompt:
            is_default = ", put before a text by default" if name == text.default_prompt_name else ""
            yield Decision(f"prompt {name!r}", f"{prompt!r}{is_default}", SHARED)
