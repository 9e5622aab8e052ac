"""Native kernels for transformer encoders on x86-64 CPUs: whole forward passes without padding, MaxSim, linear layers.

    kernels = load()
    if isinstance(kernels, str):
        print(kernels)  # why there are none here
    else:
        with kernels.encoder(spec, tensors, layers) as encoder:
            hidden = encoder.run(token_ids, cu_seqlens)  # (tokens, hidden)

Arrays are numpy's; bfloat16 numbers are uint16 arrays with their bits. Calls release the GIL and can be made from
several threads at once.
"""

from poolkit_cpu_kernels._kernels import Encoder, Kernels, Linear
from poolkit_cpu_kernels._libraries import LIBRARIES, VARIABLE, load
from poolkit_cpu_kernels._tables import ALL, EncoderSpec, EncoderTensors, LayerTensors

__all__ = [
    "ALL",
    "LIBRARIES",
    "VARIABLE",
    "Encoder",
    "EncoderSpec",
    "EncoderTensors",
    "Kernels",
    "LayerTensors",
    "Linear",
    "load",
]
