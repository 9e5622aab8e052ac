"""Linear layers with weights laid out once: fewer products, the same numbers, and a way back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import GELU, Identity, Linear, Module, ModuleList, ReLU, Sequential, Sigmoid, SiLU, Tanh
from torch.utils._python_dispatch import TorchDispatchMode

from closeness import assert_close
from engines import decision, load_engine, run
from poolkit.engine.torch.families.family import find_family
from poolkit.engine.torch.loading import Placement, load_weights
from poolkit.engine.torch.prepack import CAPABILITIES, PackedLinear, prepack
from poolkit.engine.torch.self_check import check_batch, choose_forward
from reading import read

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        torch.backends.cpu.get_cpu_capability() not in CAPABILITIES or not torch.backends.mkldnn.is_available(),
        reason="weights are not prepacked on this processor",
    ),
]

PRODUCT, PLAIN = "mkldnn::_linear_pointwise", "aten::linear"


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.name().partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


class Gated(Module):
    """Uses the first layer's output with the activation and without it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, 2 * width)
        self.activation = GELU()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        product = self.dense(states)
        return self.activation(product) * product


@pytest.mark.parametrize(
    ("family", "products"),
    [
        ("bert", 4),  # query, key and value in one; the attention's output; up, with GELU; down
        ("qwen3", 4),  # gate and up in one
        ("modernbert", 4),  # which has both in one layer already
        ("mpnet", 4),  # whose layers are run in a way of its own
    ],
)
def test_layers_with_one_input_are_one_product(family, products, checkpoint):
    model, info = _model(checkpoint(family))
    forward, _ = choose_forward(model, info, run=find_family(info).run_packed)
    batch = check_batch(model, info)
    with torch.inference_mode(), Operators() as operators:
        forward(batch)
    assert operators.counts[PRODUCT] == products * model.config.num_hidden_layers
    assert operators.counts[PLAIN] == int(family == "bert")  # its pooler, for a row that nobody reads


def test_an_activation_is_computed_with_the_product_before_it(checkpoint):
    model, info = _model(checkpoint("bert"))
    forward, _ = choose_forward(model, info)
    batch = check_batch(model, info)
    with torch.inference_mode(), Operators() as operators:
        forward(batch)
    assert operators.counts["aten::gelu"] == 0


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "nomic_bert", "qwen3", "gemma"])
def test_float32_stays_exact(family, checkpoint):
    engine, plain = load_engine(checkpoint(family)), load_engine(checkpoint(family), batching="padded")
    assert ", weights prepacked" in decision(engine, "path")[1]
    prompts = [list(range(5, 5 + length)) for length in (1, 2, 3, 30, 31, 200)]
    assert_close(run(engine, prompts), run(plain, prompts))
    assert_close(run(engine, prompts[:1]), run(plain, prompts[:1]))


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this processor")
@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3"])
def test_bfloat16_is_no_further_from_float32_than_torchs_own(family, checkpoint):
    prompts = [list(range(5, 5 + length)) for length in (3, 30, 31, 200)]
    exact, plain, packed = (
        np.stack(run(load_engine(checkpoint(family), dtype=dtype, batching=batching), prompts))
        for dtype, batching in (("float32", "padded"), ("bfloat16", "padded"), ("bfloat16", "auto"))
    )
    # Roundings fall by chance: one run's error is about that of another.
    assert np.linalg.norm(packed - exact) < 1.5 * np.linalg.norm(plain - exact)


@pytest.mark.parametrize(
    ("activation", "is_fused"),
    [(GELU(), True), (GELU("tanh"), True), (ReLU(), True), (SiLU(), True), (Tanh(), True), (Sigmoid(), False)],
    ids=str,
)
def test_activations_that_onednn_has_are_recognised_by_what_they_do(activation, is_fused):
    torch.manual_seed(0)
    model, states = Sequential(Linear(16, 32), activation, Linear(32, 8)), torch.randn(5, 16)
    with torch.inference_mode():
        expected = model(states)
        assert prepack(model, lambda: model(states)) is not None
        assert_close(model(states), expected)
    assert isinstance(model[1], Identity) == is_fused


def test_an_activation_that_several_layers_share_stays():
    torch.manual_seed(0)
    activation = ReLU()
    model, states = Sequential(Linear(16, 16), activation, Linear(16, 16), activation), torch.randn(5, 16)
    with torch.inference_mode():
        expected = model(states)
        prepack(model, lambda: model(states))
        assert_close(model(states), expected)
    assert model[1] is model[3] is activation


def test_a_layer_that_is_called_twice_is_packed_alone():
    torch.manual_seed(0)
    first, second = Linear(16, 16), Linear(16, 16)
    model, states = Sequential(first, Tanh(), second, first), torch.randn(5, 16)
    with torch.inference_mode():
        expected = model(states)
        put_back = prepack(model, lambda: model(states))
        assert_close(model(states), expected)
        assert model[0] is model[3]
        put_back()
        assert_close(model(states), expected)


def test_parts_of_a_product_may_be_asked_for_in_any_order_and_leave_nothing_behind():
    torch.manual_seed(0)
    model, states = ModuleList([Linear(16, 8), Linear(16, 4, bias=False), Linear(16, 2)]), torch.randn(5, 16)
    with torch.inference_mode():
        expected = [layer(states) for layer in model]
        prepack(model, lambda: [layer(states) for layer in model])
        for place in (2, 0, 0, 1, 2, 1, 0, 2):
            assert_close(model[place](states), expected[place])
    assert not vars(states)


def test_what_is_put_back_has_the_same_bits(checkpoint):
    model, _ = _model(checkpoint("qwen3"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers = {name for name, module in model.named_modules() if type(module) is Linear}
    ids = torch.arange(5, 20)[None]
    put_back = prepack(model, lambda: model(input_ids=ids))
    assert put_back is not None
    assert not layers & set(model.state_dict())
    put_back()
    assert {name for name, module in model.named_modules() if type(module) is Linear} == layers
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_output_that_is_used_without_its_activation_too_is_seen_and_undone(checkpoint):
    model, info = _model(checkpoint("bert"))
    torch.manual_seed(0)
    for layer in model.encoder.layer:
        layer.intermediate = Gated(48)
    _, path = choose_forward(model, info)
    assert path.value == "packed"
    told, _, problem = path.source.partition(", weights not prepacked (")
    assert told == "the self-check: packed agrees with padded"
    assert problem.startswith("packed differs from padded by ")
    assert not [module for module in model.modules() if isinstance(module, PackedLinear | Identity)]


def _model(folder):
    info = read(folder, dtype="float32")
    return load_weights(info, Placement.resolve(info.config)), info
