"""The plugin contract: everything that a plugin sees. Kept stable within one `API_VERSION`.

Tasks are data, behaviour is hooks. A plugin's entry point in group `poolkit.tasks` names a `PoolingTask`; each of its
operations names a `PoolingIOProcessor`, which turns a validated request into prompts and pooled outputs into a
response. An entry point in group `poolkit.plugins` names a module with `StartupHooks`, for what cuts across tasks. One
in group `poolkit.engines` names what runs models, and one in group `poolkit.dialects` a `Dialect` or a tuple of them.
"""

from poolkit.contract.dialect import Call, Dialect, Failure, NoBody, Reply, Served
from poolkit.contract.encoder import (
    EncodedPrompt,
    Encoding,
    ImageInput,
    PairTemplate,
    PromptEncoder,
    TextToken,
    Tokenizer,
)
from poolkit.contract.engine import (
    Engine,
    EngineProvider,
)
from poolkit.contract.hooks import (
    PROJECT,
    BindContext,
    PoolingIOProcessor,
    Prepared,
    StartupHooks,
    hookimpl,
    hookspec,
)
from poolkit.contract.model_info import Decision, ModelInfo
from poolkit.contract.model_specs import (
    ClassifierSpec,
    DenseSpec,
    Expansion,
    ImageSpec,
    InputType,
    LayerMixSpec,
    LayerNormSpec,
    LayerSpec,
    LogitScore,
    MultiVectorSpec,
    NormalizeSpec,
    PoolingMode,
    PoolingSpec,
    ProblemType,
    RerankerSpec,
    ScorePrompt,
    Similarity,
    StepSpec,
    TextSpec,
    VectorSpec,
)
from poolkit.contract.outputs import (
    Activation,
    Output,
    PooledOutput,
)
from poolkit.contract.params import (
    LateInteractionParams,
    PoolingParams,
)
from poolkit.contract.prompts import (
    ImagePrompt,
    Prompt,
    TemplatedText,
    TextPair,
    TokenInputs,
)
from poolkit.contract.task import (
    API_OLDEST,
    API_VERSION,
    TASK_NAME,
    NoSettings,
    Operation,
    PoolingTask,
    Removed,
    Renamed,
)

__all__ = [
    "API_OLDEST",
    "API_VERSION",
    "PROJECT",
    "TASK_NAME",
    "Activation",
    "BindContext",
    "Call",
    "ClassifierSpec",
    "Decision",
    "DenseSpec",
    "Dialect",
    "EncodedPrompt",
    "Encoding",
    "Engine",
    "EngineProvider",
    "Expansion",
    "Failure",
    "ImageInput",
    "ImagePrompt",
    "ImageSpec",
    "InputType",
    "LateInteractionParams",
    "LayerMixSpec",
    "LayerNormSpec",
    "LayerSpec",
    "LogitScore",
    "ModelInfo",
    "MultiVectorSpec",
    "NoBody",
    "NoSettings",
    "NormalizeSpec",
    "Operation",
    "Output",
    "PairTemplate",
    "PooledOutput",
    "PoolingIOProcessor",
    "PoolingMode",
    "PoolingParams",
    "PoolingSpec",
    "PoolingTask",
    "Prepared",
    "ProblemType",
    "Prompt",
    "PromptEncoder",
    "Removed",
    "Renamed",
    "Reply",
    "RerankerSpec",
    "ScorePrompt",
    "Served",
    "Similarity",
    "StartupHooks",
    "StepSpec",
    "TemplatedText",
    "TextPair",
    "TextSpec",
    "TextToken",
    "TokenInputs",
    "Tokenizer",
    "VectorSpec",
    "hookimpl",
    "hookspec",
]
