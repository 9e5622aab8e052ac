"""Recognises rerankers that answer by a token: a causal LM whose score is the logit of "yes" less that of "no".

What a model's own files say comes first: sentence-transformers' LogitScore module, then vLLM's `classifier_from_token`.
Only known families (the table `reranker`) are recognised without either, by the text of their chat template or by their
name: nothing else tells a reranker from the chat model that it was made of. poolkit's own are below; their prompt
templates ship beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from poolkit.contract import Output
from poolkit.contract.model_files import SHARED, HeadKind, ModelFamily, ModelFiles, RerankerFamily, read_object
from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import LogitScore, RerankerSpec, ScorePrompt
from poolkit.errors import ConfigError, ModelError

__all__ = ["BGE_V2_GEMMA", "MXBAI_V2", "QWEN3", "TOKEN_ANSWERS", "read_reranker"]

TEMPLATES = Path(__file__).parent / "score_templates"

TRANSFORMER_FILE = "sentence_bert_config.json"
TEMPLATE_KEYS = frozenset(("add_generation_prompt", "restore_suffix"))
"""The arguments that sentence-transformers hands to a chat template and poolkit knows. It always keeps the suffix."""

LOGITS = frozenset((Output.LOGITS,))

FROM_TOKEN = "classifier_from_token"  # noqa: S105 - a key, not a secret
METHODS = {"from_2_way_softmax": 2, "no_post_processing": 1}
"""vLLM's ways to make a score of tokens' logits, each with the number of tokens that make one score."""


TOKEN_ANSWERS = ModelFamily(
    matches=lambda files: _logit_score_file(files) is not None or files.hf_config.get(FROM_TOKEN) is not None,
    adapters={"torch": "poolkit.engine.torch.families.causal_lm:CAUSAL_LM"},
)
"""Rerankers whose answer tokens stand in their files or the operator's settings, whatever the architecture."""

QWEN3 = RerankerFamily(
    name=re.compile(r"qwen3[-_.]reranker", re.IGNORECASE),
    model_type="qwen3",
    logit_score=LogitScore("yes", "no"),
    template=TEMPLATES / "qwen3_reranker.jinja",
    phrase="Judge whether the Document meets the requirements based on the Query and the Instruct provided.",
    flag="is_original_qwen3_reranker",
)
MXBAI_V2 = RerankerFamily(
    name=re.compile(r"mxbai[-_.]rerank[-_.](base|large)[-_.]v2", re.IGNORECASE),
    model_type="qwen2",
    logit_score=LogitScore("1", "0"),
    template=TEMPLATES / "mxbai_rerank_v2.jinja",
    phrase="You are a search relevance expert who evaluates how well documents match search queries.",
)
BGE_V2_GEMMA = RerankerFamily(
    name=re.compile(r"bge[-_.]reranker[-_.]v2[-_.]gemma", re.IGNORECASE),
    model_type="gemma",
    logit_score=LogitScore("Yes"),
    template=TEMPLATES / "bge_reranker_v2_gemma.jinja",
    phrase="Given a query A and a passage B, determine whether the passage contains an answer to the query",
)


@dataclass(frozen=True, slots=True)
class _Match:
    """A family that the model belongs to, with its entry's name and what says so."""

    name: str
    family: RerankerFamily
    evidence: str


def read_reranker(
    files: ModelFiles, table: Mapping[str, RerankerFamily], *, head: HeadKind | None, makes_vectors: bool
) -> tuple[RerankerSpec, tuple[Decision, ...]]:
    """Return how the model answers with a token, and the template of its prompts, as far as it has them, and why.

    Args:
        files: the model's; the operator's `score_template` goes before every other.
        table: the families that are recognised by themselves.
        head: what the checkpoint has on top of its base.
        makes_vectors: True if its modules make vectors of what the base gives, so that it is no reranker.

    Raises ModelError where a file says what poolkit cannot do, and ConfigError where the operator's template cannot be
    read.
    """
    if makes_vectors:
        return RerankerSpec(), ()
    hf_config, folder, logit_score = files.hf_config, files.folder, _logit_score_file(files)
    chat_template = _chat_template(folder)
    match = _match(files, table, chat_template)
    found: tuple[LogitScore, str] | None = None
    if logit_score is not None:
        found = _read_logit_score(logit_score), f"{logit_score.parent.name}/config.json"
    elif hf_config.get(FROM_TOKEN) is not None:
        where = "hf_overrides" if FROM_TOKEN in files.config.hf_overrides else "config.json"
        found = _read_classifier_from_token(hf_config, folder), f"{where} {FROM_TOKEN}"
        for name, family in table.items():
            if match is None and family.flag is not None and hf_config.get(family.flag):
                match = _Match(name, family, f"{where} {family.flag}")
    elif match is not None and head is HeadKind.CAUSAL_LM:
        found = match.family.logit_score, match.evidence

    if found is None and head is not HeadKind.SEQUENCE_CLASSIFIER:
        return RerankerSpec(), ()
    tokens, source = found if found is not None else (None, "")
    prompt, prompt_decision = _score_prompt(files, match, chat_template, is_causal=tokens is not None)
    decisions = []
    if tokens is not None:
        decisions.append(Decision("score", str(tokens), source, LOGITS))
    if prompt is not None or tokens is not None:
        decisions.append(prompt_decision)
    return RerankerSpec(logit_score=tokens, prompt=prompt), tuple(decisions)


def _logit_score_file(files: ModelFiles) -> Path | None:
    return next((module.path for module in files.modules if module.type == "LogitScore"), None)


def _read_logit_score(path: Path) -> LogitScore:
    settings = read_object(path) or {}
    yes, no = settings.get("true_token_id"), settings.get("false_token_id")
    if not isinstance(yes, int) or not isinstance(no, int | None):
        raise ModelError(f"{path} must have a whole number true_token_id, and false_token_id or null. Fetch it again.")
    return LogitScore(yes, no)


def _read_classifier_from_token(hf_config: Mapping[str, object], folder: Path) -> LogitScore:
    named, method = hf_config[FROM_TOKEN], hf_config.get("method")
    if method is not None and method not in METHODS:
        raise ModelError(
            f"config.json of the model in {folder} has method {method!r}, which poolkit does not know. It knows "
            f"{', '.join(METHODS)}."
        )
    match named:
        case [str(yes)] if METHODS.get(str(method), 1) == 1:
            return LogitScore(yes)
        case [str(no), str(yes)] if METHODS.get(str(method), 2) == 2:
            return LogitScore(yes, no)
    raise ModelError(
        f"config.json of the model in {folder} has classifier_from_token {named!r}"
        f"{f' with method {method!r}' if method is not None else ''}; poolkit makes one score: of [no, yes] "
        "(from_2_way_softmax), or of [yes] alone (no_post_processing)."
    )


def _match(files: ModelFiles, table: Mapping[str, RerankerFamily], chat_template: str | None) -> _Match | None:
    for name, family in table.items():
        if files.model_type != family.model_type:
            continue
        if chat_template is not None and family.phrase in chat_template:
            return _Match(name, family, "its chat template")
        for called in _names(files):
            if family.name.search(called):
                return _Match(name, family, f"the name {called!r}")
    return None


def _names(files: ModelFiles) -> Iterator[str]:
    """Yield the model's names: the operator's, its folder's, and the one in config.json."""
    if not Path(files.config.model).expanduser().is_dir():
        yield files.config.model
    path = files.folder.resolve()
    # The hub's cache keeps a model in models--Qwen--Qwen3-Reranker-0.6B/snapshots/<commit>.
    yield path.parent.parent.name if path.parent.name == "snapshots" else path.name
    made_of = files.hf_config.get("_name_or_path")
    if isinstance(made_of, str):
        yield made_of.rstrip("/").rpartition("/")[2]


def _score_prompt(
    files: ModelFiles, match: _Match | None, chat_template: str | None, *, is_causal: bool
) -> tuple[ScorePrompt | None, Decision]:
    config, folder = files.config, files.folder
    variables = _special_tokens(folder)
    if config.score_template is not None:
        path = config.score_template.expanduser()
        try:
            text = path.read_text("utf-8")
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise ConfigError(f"score_template is {str(path)!r}, which cannot be read: {reason}.") from exc
        prompt = ScorePrompt(template=text, source=f"score template {path}", variables=variables)
        return prompt, Decision("score template", str(path), "score_template", LOGITS)
    own = _own_prompt(folder, chat_template, variables, is_causal=is_causal)
    if own is not None:
        return own, Decision("score template", "the model's chat template", TRANSFORMER_FILE, LOGITS)
    if match is not None:
        path = match.family.template
        owner = "shipped with poolkit" if path.parent == TEMPLATES else f"that of reranker {match.name!r}"
        text = path.read_text("utf-8")
        prompt = ScorePrompt(template=text, source=f"score template {path.name}", variables=variables)
        return prompt, Decision("score template", f"{path.name}, {owner}", match.evidence, LOGITS)
    value = "none: query and document as the tokenizer joins two texts"
    return None, Decision("score template", value, "no file", LOGITS)


def _own_prompt(
    folder: Path, chat_template: str | None, variables: Mapping[str, str], *, is_causal: bool
) -> ScorePrompt | None:
    """Return the prompt that sentence-transformers makes with the model's chat template, or None where it does not."""
    settings = read_object(folder / TRANSFORMER_FILE)
    if settings is None or chat_template is None:
        return None
    modalities = settings.get("modality_config")
    # Without any, sentence-transformers goes by whether there is a chat template.
    message = modalities.get("message") if isinstance(modalities, dict) else {} if is_causal else None
    if not isinstance(message, dict):
        return None
    processing = settings.get("processing_kwargs")
    handed = processing.get("chat_template") if isinstance(processing, dict) else None
    handed = handed if isinstance(handed, dict) else {}
    unknown = sorted(handed.keys() - TEMPLATE_KEYS)
    if unknown:
        raise ModelError(
            f"{folder / TRANSFORMER_FILE} hands {unknown[0]!r} to the chat template; poolkit knows "
            f"{' and '.join(sorted(TEMPLATE_KEYS))}. Set score_template to a template of your own."
        )
    shared = read_object(folder / SHARED) or {}
    prompts, default = shared.get("prompts"), shared.get("default_prompt_name")
    instruction = prompts.get(default) if isinstance(prompts, dict) and isinstance(default, str) else None
    return ScorePrompt(
        template=chat_template,
        source=f"chat template in {folder}",
        variables=variables,
        instruction=instruction or None,
        is_chat_template=True,
        has_parts=message.get("format", "flat") == "structured",
        adds_generation_prompt=bool(handed.get("add_generation_prompt", False)),
    )


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    saved = (read_object(folder / "tokenizer_config.json") or {}).get("chat_template")
    return saved if isinstance(saved, str) else None


def _special_tokens(folder: Path) -> Mapping[str, str]:
    """Return the tokenizer's special tokens by name, as chat templates know them: `bos_token` and so on."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for name, token in (read_object(folder / file) or {}).items():
            content = token.get("content") if isinstance(token, dict) else token
            if name.endswith("_token") and isinstance(content, str):
                found[name] = content
    return found
