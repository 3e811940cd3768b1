"""The calibration in the file's own numbers: a network in a shorter format gives other scores, to good images too.

Verdicts are right only where both sides of the comparison were measured alike. The good images go through the exported network;
the graph's own comparison with the bank, as the file holds it, is done here, where an image's own rows can be left out as
``fit`` did.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sapatchcore.data.images import read_thumbnail
from sapatchcore.data.pixels import UInt8Array
from sapatchcore.data.sources import Batch, Progress, read_image
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import ModelFileError
from sapatchcore.export.graph import EMBEDDING, Graph
from sapatchcore.export.sessions import Session
from sapatchcore.learning.calibrate import as_calibration
from sapatchcore.memory.bank import Bank
from sapatchcore.result import gather_result
from sapatchcore.score.calibration import Calibration

MOST = 64  # good images that int8's ranges are taken from


def recalibrated(
    known: Calibration, plain: Embedder, bank: Bank, graph: Graph, session: Session, progress: Progress | None
) -> tuple[Calibration, str]:
    """The calibration with the file's scores, where all of its images are at hand, and a sentence about it.

    graph: of the file. session: of the file, with the outputs ``graph.EMBEDDING``.
    """
    files = [Path(name) for name in known.names]
    if missing := sum(not file.is_file() for file in files):
        return known, (
            f"the model's own, in float32, since {missing} of its {len(files)} images are not at hand: the promised rate does "
            "not hold exactly"
        )
    scored = []
    for place, file in enumerate(files):
        image = read_image(file)
        found = session.run(image[None])
        local, context = (torch.from_numpy(found[name]) for name in EMBEDDING)
        own = int(known.images[place])  # -1: the bank has nothing of it
        with torch.inference_mode():
            arrays = graph.compare(local, context, None if own < 0 else bank.images == own)
        batch = Batch((known.names[place],), ((image.shape[0], image.shape[1]),), image[None, :0])
        scored.append((batch, [array.numpy() for array in arrays]))
        if progress is not None:
            progress("calibrate", place + 1, len(files))
    result = gather_result(scored, plain.settings)
    fresh = as_calibration(result, known.source, known.images, plain.settings)
    return fresh, "taken anew with this file"


def good_images(bank: Bank) -> Sequence[UInt8Array]:
    """Up to ``MOST`` of the training images, evenly spread: their files where these are at hand, else their thumbnails.

    Raises ModelFileError where there is neither.
    """
    at_hand = [image for image in bank.training if Path(image.name).is_file() or image.thumbnail]
    if not at_hand:
        raise ModelFileError(
            "int8 needs good images to take the network's ranges from, and neither the training images nor thumbnails of them "
            "are at hand. Export where the images are, or use another precision."
        )
    places = np.unique(np.linspace(0, len(at_hand) - 1, min(MOST, len(at_hand))).astype(int))
    chosen = [at_hand[place] for place in places]
    return [read_image(one.name) if Path(one.name).is_file() else read_thumbnail(one.thumbnail) for one in chosen]
