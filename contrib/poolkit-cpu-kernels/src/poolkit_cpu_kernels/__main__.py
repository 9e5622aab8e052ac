"""Say which library this machine uses: `python -m poolkit_cpu_kernels`."""

import sys

from poolkit_cpu_kernels import load

kernels = load()
found = f"none, {kernels}" if isinstance(kernels, str) else f"{kernels.name} ({', '.join(kernels.dtypes)})"
sys.stdout.write(f"CPU kernels: {found}\n")
