"""Score templates: what they render, what the sandbox keeps from them, and which are refused at start-up."""

from __future__ import annotations

import pytest

from poolkit import LLM, ScoreTemplate, TemplatedText
from poolkit.contract import ModelInfo, ScorePrompt, TextSpec, VectorSpec
from poolkit.errors import ConfigError, RequestError
from poolkit.models.rerankers import TEMPLATES
from rerankers import GEMMA, KNOWN, MXBAI, QWEN3, make_reranker

VLLM_QWEN3 = """<|im_start|>system
Judge.<|im_end|>
<|im_start|>user
<Instruct>: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Find") }}
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ (messages | selectattr("role", "eq", "document") | first).content }}<|im_end|>
"""
"""In the manner of vLLM's example templates."""


def make(template, **settings):
    return ScoreTemplate(ScorePrompt(template=template, source="score template mine.jinja", **settings))


def render(template, query="Q", document="D", *, instruction=None):
    [framed] = template.render(query, [document], instruction=instruction)
    return framed.prefix + framed.text + framed.suffix


def refusal(template, **settings):
    with pytest.raises(ConfigError) as caught:
        make(template, **settings)
    return str(caught.value)


@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
@pytest.mark.parametrize("instruction", [None, "Find the opposite"])
def test_each_familys_template_writes_its_references_prompt(family, instruction):
    template = make((TEMPLATES / family.template).read_text(), variables={"bos_token": "<s>"})
    expected = family.prompt(instruction or family.instruction, "who?", " a {{ cat }}\n")
    assert render(template, "who?", " a {{ cat }}\n", instruction=instruction) == expected


def test_the_document_is_framed_by_what_stands_around_it():
    text = "{{ bos_token }}{{ instruction | default('Find', true) }}: {{ query }}\n[{{ document }}]"
    template = make(text, variables={"bos_token": "<s>"})
    assert template.render("a", ["b", " c\n"]) == [
        TemplatedText("<s>Find: a\n[", "b", "]"),
        TemplatedText("<s>Find: a\n[", " c\n", "]"),
    ]


def test_the_templates_of_vllm_work_unchanged():
    template = make(VLLM_QWEN3)
    expected = (
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n<Instruct>: {}\n<Query>: Q\n<Document>: D<|im_end|>"
    )
    assert render(template) == expected.format("Find")
    assert render(template, instruction="Seek") == expected.format("Seek")


@pytest.mark.parametrize("has_parts", [False, True])
def test_a_models_own_chat_template_is_rendered_as_transformers_does(has_parts, checkpoint):
    from transformers import AutoTokenizer

    content = "m.content[0].text" if has_parts else "m.content"
    text = (
        "{%- for m in messages %}\n    {% if m.role != 'tool' %}\n{{ bos_token }}<{{ m.role }}>{{ " + content + " }}"
        "{% endif %}{% endfor %}\n{% if tools %}no{% endif %}{% if unheard_of %}no{% endif %}"
        "{% if add_generation_prompt %}<answer>{% endif %}\n"
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("qwen3"))
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    pairs = [("system", "Find"), ("query", "Q"), ("document", "D")]
    messages = [{"role": r, "content": [{"type": "text", "text": t}] if has_parts else t} for r, t in pairs]
    expected = tokenizer.apply_chat_template(messages, chat_template=text, tokenize=False, add_generation_prompt=True)
    template = make(
        text,
        variables={"bos_token": "<s>"},
        instruction="Find",
        is_chat_template=True,
        has_parts=has_parts,
        adds_generation_prompt=True,
    )
    assert render(template) == expected
    assert render(template, instruction="Seek") == expected.replace("Find", "Seek")


def test_a_model_without_a_template_has_none(tmp_path):
    info = ModelInfo(
        name="m", path=tmp_path, architecture="", model_type="bert", outputs=(), hidden_size=1,
        text=TextSpec(max_model_len=1, vocab_size=1), vector=VectorSpec(size=1),
    )  # fmt: skip
    assert ScoreTemplate.of(info) is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{{ query }}{{ document }}{{ query.__class__ }}",
            "access to attribute '__class__' of 'str' object is unsafe.",
        ),
        (
            "{{ query }}{{ document }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "access to attribute '__class__' of 'str' object is unsafe.",
        ),
        (
            "{{ query }}{{ document }}{{ messages.append(1) }}",
            "access to attribute 'append' of 'list' object is unsafe.",
        ),
        ("{{ query }}{{ document }}{% include 'secret' %}", "TypeError: no loader for this environment specified"),
        ("{{ query }}{{ document }}{{ cycler }}", "'cycler' is undefined"),
        ("{{ query }}{{ document }}{{ lipsum }}", "'lipsum' is undefined"),
        ("{{ query }}{{ document }}{{ bos_token }}", "'bos_token' is undefined"),
        ("{{ query }}{{ document }}{{ document.content }}", "'str object' has no attribute 'content'"),
        (
            "{{ query }}{{ document }}{% for i in range(10000000) %}x{% endfor %}",
            "OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).",
        ),
        ("{{ query }}{{ document }}{{ 'a' + 1 }}", 'TypeError: can only concatenate str (not "int") to str'),
        ("{{ raise_exception('no system message') }}", "no system message"),
    ],
    ids=lambda value: value[:60],
)
def test_the_sandbox_keeps_from_a_template_what_it_is_not_given(template, reason):
    assert refusal(template) == f"The score template mine.jinja cannot be rendered: {reason}"


def test_what_is_not_jinja_is_refused():
    assert refusal("{{ query }}\n{% if %}{{ document }}") == (
        "The score template mine.jinja is not valid Jinja: line 2: Expected an expression, got 'end of statement block'"
    )


@pytest.mark.parametrize(("template", "count"), [("{{ query }}", 0), ("{{ query }}{{ document }}{{ document }}", 2)])
def test_a_template_must_hold_the_document_once(template, count):
    assert refusal(template) == (
        f"The score template mine.jinja holds the document {count} times. Write {{{{ document }}}} exactly once: where "
        "a prompt is too long, the document is what is cut."
    )


@pytest.mark.parametrize("changed", ["document | trim", "document | replace('\\n', ' ')"])
def test_a_template_that_changes_the_document_is_refused(changed):
    assert refusal(f"{{{{ query }}}}{{{{ {changed} }}}}") == (
        "The score template mine.jinja trims or changes the document. Write {{ document }} without a filter."
    )


def test_a_template_that_looks_at_the_document_is_refused():
    assert refusal("{{ query }}{{ document }}{% if document | length > 50 %}long{% endif %}") == (
        "The score template mine.jinja writes another text around another document. Only the query and the instruction "
        "may decide what stands around a document."
    )


def test_a_template_without_the_query_is_refused():
    assert refusal("{{ document }}") == (
        "The score template mine.jinja does not hold the query. Write {{ query }} where it belongs."
    )


def test_an_instruction_without_a_place_is_refused():
    with pytest.raises(RequestError) as caught:
        make("{{ query }}{{ document }}").render("Q", ["D"], instruction="Find")
    assert str(caught.value) == (
        "The score template mine.jinja has no place for an instruction. Leave instruction out."
    )
    assert caught.value.param == "instruction"


def test_a_query_that_the_template_refuses_is_the_callers_fault():
    template = make("{% if query == 'bad' %}{{ raise_exception('too bad') }}{% endif %}{{ query }}{{ document }}")
    assert render(template, "good") == "goodD"
    with pytest.raises(RequestError) as caught:
        template.render("bad", ["D"])
    assert str(caught.value) == "The score template mine.jinja cannot take this query: too bad"


def test_what_a_text_holds_is_never_a_template():
    template = make("{{ query }} {{ document }}")
    assert render(template, "{{ 1 + 1 }}", "{% raw %}") == "{{ 1 + 1 }} {% raw %}"


def test_a_bad_template_is_told_before_the_weights_are_read(tmp_path, checkpoint):
    folder = make_reranker(tmp_path, checkpoint, QWEN3)
    (folder / "model.safetensors").unlink()
    (tmp_path / "mine.jinja").write_text("{{ query }}")
    with pytest.raises(ConfigError) as caught:
        LLM(str(folder), score_template=tmp_path / "mine.jinja")
    assert str(caught.value) == (
        f"The score template {tmp_path}/mine.jinja holds the document 0 times. Write {{{{ document }}}} exactly once: "
        "where a prompt is too long, the document is what is cut."
    )


def test_the_packaged_templates_are_those_of_the_known_families():
    shipped = sorted(path.name for path in TEMPLATES.iterdir() if path.suffix == ".jinja")
    assert shipped == sorted(family.template for family in (QWEN3, MXBAI, GEMMA))
