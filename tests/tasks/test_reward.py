"""Reward models: one score a text, one a token, or one a step of its reasoning, against their plain models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from checkpoints import VOCABULARY, WIDTH, real_texts, write_json
from closeness import assert_close
from poolkit import LLM, PoolerConfig, PoolingParams, create_app
from poolkit.contract import Decision
from poolkit.errors import ConfigError, ModelError, RequestError, UnsupportedTaskError
from reading import read
from serving import ask

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LLM.reward is deprecated:FutureWarning"),
]

TEXTS = [text[:300] for text in real_texts(20)[1:]]
TAG = 17
"""Stands for the token after each step. Texts are given as token ids, with some of these among them."""
TOLERANCE = 1e-4
"""The promise of fidelity.md for logits; sums in another order differ by 5e-6 at most here."""


def prompts_with_steps() -> list[list[int]]:
    dice = np.random.default_rng(0)
    prompts = [[int(one) for one in dice.integers(20, VOCABULARY, length)] for length in (3, 40, 7, 40, 12)]
    for place, prompt in enumerate(prompts):
        for step in range(place):  # none in the first
            prompt[(7 * step + 3) % len(prompt)] = TAG
    return prompts


PROMPTS = prompts_with_steps()


def select(logits, token_ids, *, tag=None, columns=None, activated=False):
    """Choose rows and columns the plain way, one at a time."""
    rows = []
    for row, token_id in zip(logits, token_ids, strict=True):
        chosen = [row[column] for column in (range(len(row)) if columns is None else columns)]
        if activated:
            total = sum(np.exp(one) for one in chosen)
            chosen = [np.exp(one) / total for one in chosen]
        if tag is None or token_id == tag:
            rows.append(chosen)
    return np.asarray(rows).reshape(len(rows), logits.shape[1] if columns is None else len(columns))


def check(outputs, logits, **chosen):
    for output, one in zip(outputs, logits, strict=True):
        expected = select(one, output.prompt_token_ids, **chosen)
        assert output.outputs.data.shape == expected.shape
        np.testing.assert_allclose(output.outputs.data, expected, atol=TOLERANCE)


@torch.inference_mode()
def logits_of(model, prompts=PROMPTS):
    return [model(torch.tensor([prompt])).logits[0].double().numpy() for prompt in prompts]


def run(llm, prompts=PROMPTS, **params):
    return llm.encode(prompts, pooling_params=PoolingParams(**params) if params else None, use_tqdm=False)


@pytest.fixture(scope="module")
def sequence_folder(checkpoint):
    return checkpoint("llama", head="ForSequenceClassification", sentence_transformers=False, num_labels=1)


@pytest.fixture(scope="module")
def token_folder(checkpoint):
    return checkpoint("qwen2", head="ForTokenClassification", sentence_transformers=False, num_labels=2)


@pytest.fixture(scope="module")
def language_folder(checkpoint):
    return checkpoint("llama", head="ForCausalLM", sentence_transformers=False)


class PlainReward(torch.nn.Module):
    """The head of Qwen2.5-Math-RM and -PRM, as their repositories write it, on transformers' own base."""

    def __init__(self, base, labels):
        super().__init__()
        self.model = base
        self.score = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, labels))

    @torch.inference_mode()
    def logits(self, prompt):
        return self.score(self.model(torch.tensor([prompt])).last_hidden_state)[0].double().numpy()


def make_reward_model(folder, base_folder, architecture, labels, *, shards=1):
    """Save a checkpoint of a class that transformers does not have, and return the plain model."""
    from safetensors.torch import save_file

    shutil.copytree(base_folder, folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = PlainReward(transformers.AutoModel.from_pretrained(base_folder), labels).eval()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}), "utf-8")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return model
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"model-{place % shards + 1:05}-of-{shards:05}.safetensors" for place, name in enumerate(names)}
    for file in set(places.values()):
        part = {name: weights[name] for name in names if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), "utf-8")
    return model


def test_a_sequence_reward_is_the_raw_logit(sequence_folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(sequence_folder).eval()
    with torch.inference_mode():
        expected = np.stack([model(torch.tensor([prompt])).logits[0].numpy() for prompt in PROMPTS])
    with LLM(str(sequence_folder), task="reward", dtype="float32") as llm:
        assert llm.supported_tasks == ("reward",)
        np.testing.assert_allclose([output.outputs.data for output in run(llm)], expected, atol=TOLERANCE)
        activated = [output.outputs.data for output in run(llm, use_activation=True)]
        np.testing.assert_allclose(activated, 1 / (1 + np.exp(-expected)), atol=TOLERANCE)
        for ask_for in (
            lambda: llm.encode(PROMPTS, pooling_task="classify", use_tqdm=False),
            lambda: llm.encode(PROMPTS, pooling_task="reward", use_tqdm=False),
            lambda: llm.reward(PROMPTS, use_tqdm=False),
        ):
            np.testing.assert_allclose([output.outputs.data for output in ask_for()], expected, atol=TOLERANCE)


def test_a_classifier_is_served_as_one_unless_the_task_is_named(sequence_folder, token_folder):
    for folder, task in ((sequence_folder, "classify"), (token_folder, "token_classify")):
        with LLM(str(folder), dtype="float32") as llm:
            assert llm.supported_tasks == (task,)
            by_name = llm.encode(PROMPTS, pooling_task=task, use_tqdm=False)
            for output, expected in zip(llm.reward(PROMPTS, use_tqdm=False), by_name, strict=True):
                assert_close(output.outputs.data, expected.outputs.data)


def test_a_token_reward_model_scores_each_token(token_folder):
    logits = logits_of(transformers.AutoModelForTokenClassification.from_pretrained(token_folder).eval())
    with LLM(str(token_folder), task="reward", dtype="float32") as llm:
        check(run(llm), logits)
        check(run(llm, use_activation=True), logits, activated=True)
        check(llm.encode(PROMPTS, pooling_task="token_classify", use_tqdm=False), logits)
        check(llm.reward(PROMPTS, use_tqdm=False), logits)


@pytest.mark.parametrize("use_activation", [None, True])
def test_the_rows_at_steps_and_some_columns_can_be_asked_for(token_folder, use_activation):
    logits = logits_of(transformers.AutoModelForTokenClassification.from_pretrained(token_folder).eval())
    activated = use_activation is True
    with LLM(str(token_folder), task="reward", dtype="float32") as llm:
        check(run(llm, step_tag_id=TAG, use_activation=use_activation), logits, tag=TAG, activated=activated)
        check(
            run(llm, step_tag_id=TAG, returned_token_ids=[1, 0], use_activation=use_activation),
            logits,
            tag=TAG,
            columns=[1, 0],
            activated=activated,
        )
        each = [PoolingParams(step_tag_id=TAG if place % 2 else None) for place in range(len(PROMPTS))]
        outputs = llm.encode(PROMPTS, pooling_params=each, use_tqdm=False)
        check(outputs[1::2], logits[1::2], tag=TAG)
        check(outputs[::2], logits[::2])


def test_a_prompt_without_steps_has_no_rows(token_folder):
    with LLM(str(token_folder), task="reward", dtype="float32") as llm:
        [output] = run(llm, [PROMPTS[0]], step_tag_id=TAG)
    assert output.outputs.data.shape == (0, 2)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_language_model_scores_steps_by_the_logits_of_some_tokens(language_folder, batching):
    logits = logits_of(transformers.AutoModelForCausalLM.from_pretrained(language_folder).eval())
    pooler = PoolerConfig(pooling_type="STEP", step_tag_id=TAG, returned_token_ids=(30, 10, 20))
    with LLM(str(language_folder), pooler_config=pooler, dtype="float32", batching=batching) as llm:
        assert llm.supported_tasks == ("reward",)
        check(run(llm), logits, tag=TAG, columns=[30, 10, 20])
        check(run(llm, use_activation=True), logits, tag=TAG, columns=[30, 10, 20], activated=True)
        chosen = {"returned_token_ids": (20, 30), "use_activation": True}
        check(run(llm, **chosen), logits, tag=TAG, columns=[20, 30], activated=True)
        check(llm.encode(PROMPTS, pooling_task="token_classify", use_tqdm=False), logits, tag=TAG, columns=[30, 10, 20])
        report = {decision.name: (decision.value, decision.source) for decision in llm.decisions}
        assert report["steps"] == (f"the rows at token {TAG}", "pooler_config.step_tag_id")
        assert report["step columns"] == ("30, 10, 20", "pooler_config.returned_token_ids")
        assert report["path"][0] == batching


def test_a_language_model_whose_head_is_the_embedding_keeps_it_whole(checkpoint):
    folder = checkpoint("gemma", head="ForCausalLM", sentence_transformers=False, tie_word_embeddings=True)
    logits = logits_of(transformers.AutoModelForCausalLM.from_pretrained(folder).eval())
    pooler = PoolerConfig(pooling_type="STEP", step_tag_id=TAG, returned_token_ids=(30, 10))
    with LLM(str(folder), pooler_config=pooler, dtype="float32") as llm:
        check(run(llm), logits, tag=TAG, columns=[30, 10])


@pytest.mark.parametrize("shards", [1, 3])
def test_a_process_reward_model_scores_each_step(checkpoint, tmp_path, shards):
    base = checkpoint("qwen2", sentence_transformers=False)
    folder = tmp_path / "model"
    plain = make_reward_model(folder, base, "Qwen2ForProcessRewardModel", 2, shards=shards)
    logits = [plain.logits(prompt) for prompt in PROMPTS]
    with LLM(str(folder), pooler_config=PoolerConfig(step_tag_id=TAG), dtype="float32") as llm:
        assert llm.supported_tasks == ("reward",)
        check(run(llm), logits, tag=TAG)
        check(run(llm, use_activation=True), logits, tag=TAG, activated=True)
    with LLM(str(folder), task="token_classify", dtype="float32") as llm:
        check(llm.encode(PROMPTS, use_tqdm=False), logits, activated=True)


def test_a_reward_model_reads_the_last_token_or_each_as_pooling_type_says(checkpoint, tmp_path):
    base = checkpoint("qwen2", sentence_transformers=False)
    plain = make_reward_model(tmp_path / "model", base, "Qwen2ForRewardModel", 1)
    logits = [plain.logits(prompt) for prompt in PROMPTS]
    with LLM(str(tmp_path / "model"), dtype="float32") as llm:
        assert llm.supported_tasks == ("reward",)
        for output, expected in zip(run(llm), logits, strict=True):
            np.testing.assert_allclose(output.outputs.data, expected[-1], atol=TOLERANCE)
    with LLM(str(tmp_path / "model"), pooler_config=PoolerConfig(pooling_type="ALL"), dtype="float32") as llm:
        check(run(llm), logits)


def test_qwens_process_reward_models_have_their_own_tag(tmp_path):
    sizes = {"hidden_size": 8, "vocab_size": 152064, "max_position_embeddings": 32}
    architecture = "Qwen2ForProcessRewardModel"
    write_json(tmp_path / "config.json", {"architectures": [architecture], "model_type": "qwen2", **sizes})
    info = read(tmp_path)
    assert (info.steps.tag_id, info.num_labels) == (151651, 2)
    assert Decision("steps", "the rows at token 151651", f"the architecture, {architecture}") in info.decisions


def test_offline_and_online_give_the_same(token_folder):
    with LLM(str(token_folder), task="reward", dtype="float32") as llm:
        app = create_app(llm)
        for fields in (
            {},
            {"step_tag_id": TAG},
            {"step_tag_id": TAG, "returned_token_ids": [1], "use_activation": True},
        ):
            outputs = run(llm, **fields)
            for task in ("reward", "token_classify"):
                answer = ask(app, "POST", "/pooling", json={"input": PROMPTS, "task": task, **fields}).json()
                for item, output in zip(answer["data"], outputs, strict=True):
                    np.testing.assert_allclose(
                        np.reshape(item["data"], output.outputs.data.shape), output.outputs.data, atol=1e-6
                    )


def test_the_warning_comes_once_and_says_what_to_call(sequence_folder):
    program = (
        "import sys, warnings\n"
        "from poolkit import LLM\n"
        "with LLM(sys.argv[1], task='reward') as llm, warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    llm.reward('a', use_tqdm=False)\n"
        "    llm.reward('b', use_tqdm=False)\n"
        "for one in caught:\n"
        "    print(one.category.__name__, one.filename, one.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, sequence_folder], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "FutureWarning <string> LLM.reward is deprecated and does what LLM.encode does. Call LLM.encode(prompts).\n"
    )


def test_an_embedding_is_no_reward(checkpoint):
    with LLM(str(checkpoint("bert")), task="embed") as llm, pytest.raises(RequestError) as error:
        llm.reward("a", use_tqdm=False)
    assert str(error.value) == (
        "LLM.reward returns a model's scores, and the served task 'embed' gives none. Load the model for a task that "
        "does."
    )


def test_a_wrong_pooling_task_is_refused(sequence_folder):
    with LLM(str(sequence_folder), task="reward") as llm, pytest.raises(RequestError) as error:
        llm.encode("a", pooling_task="token_classify", use_tqdm=False)
    assert str(error.value) == (
        "Unsupported task: 'token_classify'. This server serves 'reward'. "
        'Restart it with --task token_classify, or PoolerConfig(task="token_classify").'
    )


def test_what_cannot_be_answered_is_refused(sequence_folder, token_folder, language_folder):
    pooler = PoolerConfig(pooling_type="STEP", step_tag_id=TAG, returned_token_ids=(30, 10))
    for folder, settings, params, message in (
        (
            sequence_folder,
            {},
            {"step_tag_id": TAG},
            "scores a text as a whole: it has no steps. Leave out step_tag_id.",
        ),
        (token_folder, {}, {"returned_token_ids": (2,)}, "offers 0, 1."),
        (
            language_folder,
            {"pooler_config": pooler},
            {"returned_token_ids": (20,)},
            "offers 30, 10 (pooler_config.returned_token_ids).",
        ),
    ):
        holds = (
            f"returned_token_ids holds {params['returned_token_ids'][0]}; " if "returned_token_ids" in params else ""
        )
        with LLM(str(folder), task="reward", **settings) as llm, pytest.raises(RequestError) as error:
            run(llm, **params)
        assert str(error.value) == f"{holds}{folder} {message}"


def test_a_model_that_is_no_reward_model_says_why(checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    with pytest.raises(UnsupportedTaskError) as error:
        LLM(str(folder), task="reward")
    assert str(error.value).startswith(
        f"model {str(folder)!r} cannot serve 'reward': it has 3 labels, and a reward model gives a sequence one score; "
        "serve it as classify.\n"
    )
    folder = checkpoint("bert", sentence_transformers=False)
    with pytest.raises(UnsupportedTaskError) as error:
        LLM(str(folder), task="reward")
    assert str(error.value).startswith(
        f"model {str(folder)!r} cannot serve 'reward': it is no reward model: it has neither a classification head nor "
        "pooling_type STEP.\n"
    )


@pytest.mark.parametrize(
    ("pooler", "message"),
    [
        (
            {"pooling_type": "STEP"},
            "pooler_config.pooling_type is 'STEP', and {folder} is a language model. Say in "
            "pooler_config.returned_token_ids which tokens' logits score a step.",
        ),
        (
            {"pooling_type": "STEP", "returned_token_ids": (5, 9999)},
            f"pooler_config.returned_token_ids has 9999; {{folder}} has 0 to {VOCABULARY - 1} there.",
        ),
        (
            {"pooling_type": "STEP", "returned_token_ids": (5,), "step_tag_id": 9999},
            f"pooler_config.step_tag_id has 9999; {{folder}} has 0 to {VOCABULARY - 1} there.",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_named(language_folder, pooler, message):
    with pytest.raises(ModelError) as error:
        LLM(str(language_folder), pooler_config=PoolerConfig(**pooler))
    assert str(error.value) == message.format(folder=language_folder)


def test_a_head_of_another_make_is_refused(checkpoint, tmp_path):
    base = checkpoint("qwen2", sentence_transformers=False)
    make_reward_model(tmp_path / "model", base, "Qwen2ForRewardModel", 2)
    with pytest.raises(ModelError) as error:
        LLM(str(tmp_path / "model"))
    found = f"'0.bias': ({WIDTH},), '0.weight': ({WIDTH}, {WIDTH}), '2.bias': (2,), '2.weight': (2, {WIDTH})"
    expected = found.replace("(2,)", "(1,)").replace(f"(2, {WIDTH})", f"(1, {WIDTH})")
    assert str(error.value) == (
        f"The head of {tmp_path / 'model'} (Qwen2ForRewardModel) has {{{found}}} under 'score.' in "
        f"{tmp_path / 'model'}; poolkit runs one with {{{expected}}}."
    )


@pytest.mark.parametrize("sentence_transformers", [True, False])
def test_all_gives_each_token_a_vector_and_a_text_none(checkpoint, sentence_transformers):
    folder = checkpoint("bert", sentence_transformers=sentence_transformers)
    pooler = PoolerConfig(pooling_type="ALL")
    with LLM(str(folder), pooler_config=pooler) as llm:
        assert llm.supported_tasks == ("token_embed",)
    with pytest.raises(UnsupportedTaskError) as error:
        LLM(str(folder), task="embed", pooler_config=pooler)
    assert str(error.value) == (
        f"model {str(folder)!r} cannot serve 'embed': pooler_config.pooling_type ALL leaves each token its own; CLS, "
        "LAST and MEAN make one vector.\n"
        "  The model produces token_vectors, hidden. It can serve: token_embed."
    )


def test_a_classifier_of_texts_has_no_steps(sequence_folder):
    with pytest.raises(ConfigError) as error:
        LLM(str(sequence_folder), task="reward", pooler_config=PoolerConfig(pooling_type="STEP", step_tag_id=TAG))
    assert str(error.value) == (
        f"pooler_config.pooling_type is 'STEP', but task 'reward' of {sequence_folder} reads what its head was made to "
        "read. Leave pooling_type out.\n"
        f"pooler_config.step_tag_id is {TAG}, but {sequence_folder} scores a text as a whole: it has no steps. Leave "
        "it out."
    )
