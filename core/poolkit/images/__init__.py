"""Images: the modality, the families of models that read it, and how they run with torch.

Nothing else in poolkit imports this room: it adds to the open tables as a package of its own would.
"""

from poolkit.contract import Modality
from poolkit.images.prompt import ImagePrompt
from poolkit.images.reader import ImageReader

__all__ = ["IMAGE"]

IMAGE = Modality(prompt=ImagePrompt, load_reader=ImageReader)
