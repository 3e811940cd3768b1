"""Which of the package's files execute code for one ``SAPatchCore.predict(path)`` with its map, and how many lines they have.

    python tools/predict_path.py

The detector has the default settings, but for random weights, and a bank large enough for the search to leave rows out.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

import sapatchcore
from sapatchcore import SAPatchCore

PACKAGE = Path(sapatchcore.__file__).parent


def executed(detector: SAPatchCore, image: Path) -> dict[str, int]:
    """File → its lines, of every file of the package in which a function ran. detector: fitted."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:  # returns None: the lines of a call are not traced
        if event == "call":
            files.add(frame.f_code.co_filename)

    threading.settrace(note)
    sys.settrace(note)
    try:
        result = detector.predict(image)
        result.scores[0], result.maps[0]
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    found = [Path(file) for file in files if Path(file).is_relative_to(PACKAGE)]
    return {path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in found}


def main() -> None:
    rng = np.random.default_rng(0)
    detector = SAPatchCore(weights="random", coreset_ratio=0.2)
    detector.fit(rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(image)
        lines = executed(detector, image)
    for file, count in sorted(lines.items()):
        print(f"{count:5} {file}")
    print(f"{sum(lines.values()):5} in {len(lines)} files")


if __name__ == "__main__":
    main()
