"""The defaults of ``preset`` "recommended": what goes beyond the paper and found most on made defects.

The whole image is inspected, in its own shape. Combinations of parts are told by the global part, so that layer 3 need not be
mixed by self-attention, which costs fine local defects.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

# Good images that a global part takes: two for a covariance, when one of them is in the fold that is left out. Of fewer, fit
# learns without one where the preset alone asks for it.
FEWEST = 3

RECOMMENDED: MappingProxyType[str, Any] = MappingProxyType(
    {
        "attention": "none",
        "temperature": "auto",  # for whoever asks for self-attention
        "resize": 256,
        "keep_aspect": True,
        "crop": None,
        "metric": "whitened",
        "image_score": "smoothed",
        "global_part": "pooled",
    }
)
