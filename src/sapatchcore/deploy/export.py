"""A fitted detector as one ONNX file, for machines without PyTorch.

Input ``images``: (n, h, w, 3) uint8 RGB, resized and cropped to what the network sees (``runtime`` does it); n is free.
Outputs: ``OUTPUTS`` of graph.py, the same numbers as ``predict``'s, float32 whatever the detector's own precision. The
metadata entry ``sapatchcore`` is a JSON text with settings and versions.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.deploy.graph import OUTPUTS, Graph
from sapatchcore.deploy.runtime import FORMAT, METADATA, open_session
from sapatchcore.detector import SAPatchCore
from sapatchcore.embed.patches import Patches, to_patches
from sapatchcore.errors import ModelFileError, SAPatchCoreError, SettingsError
from sapatchcore.memory.bank import Bank
from sapatchcore.pipeline import Pipeline
from sapatchcore.replace import replacing

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET, LOWEST_OPSET, HIGHEST_OPSET = 18, 17, 25
TOLERANCE = 1e-3  # of the numbers of the file and the detector's own, relative to an image's largest
_LARGEST = 2_000_000_000  # bytes; the format's own limit is 2³¹ for one file

Arrays = tuple[npt.NDArray[Any], ...]


def export_onnx(detector: SAPatchCore, path: str | os.PathLike[str], *, opset: int = OPSET) -> None:
    """Write the ONNX file, whole or not at all, after it has given the detector's own scores for a few made images.

    Raises NotFittedError before ``fit``; SettingsError for an opset that cannot be written; SAPatchCoreError where a
    package is missing; ModelFileError where the network cannot be exported, the file would be too large, gives other
    numbers, or cannot be written.
    """
    bank = detector._fitted()
    require_packages()
    check_opset(opset)
    weights = detector._pipeline.network.weights
    size = sum(value.nbytes for value in (*weights.values(), bank.rows))
    if size > _LARGEST:
        raise ModelFileError(
            f"The ONNX file would hold {size / 1e9:.1f} GB (memory bank {bank.rows.nbytes / 1e9:.1f} GB); one file holds up "
            "to 2 GB. Learn with a smaller coreset_ratio, or a smaller network."
        )

    file = Path(path)

    def sentence(error: OSError) -> str:
        return f"{file} cannot be written: {error.strerror or error}. What was there before is unchanged."

    with replacing(file, ModelFileError, sentence, durable=True) as part:
        plain = _on_cpu(detector, bank)
        pixels = _made_images(plain.settings.input_size)
        patches = _patches(plain, pixels)
        program = _program(plain, patches, pixels, opset)
        program.model.metadata_props[METADATA] = json.dumps(
            {
                "format": FORMAT,
                "settings": plain.settings.model_dump(mode="json"),
                "versions": {name: version(name) for name in ("sapatchcore", "torch", "timm", *PACKAGES)},
            },
            sort_keys=True,
        )
        program.save(part, external_data=False)
        _check(part, plain, patches, pixels)


def require_packages() -> None:
    """Raises SAPatchCoreError where a package that the export needs is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise SAPatchCoreError(
                "Exporting needs onnx, onnxscript and onnxruntime: pip install sapatchcore[export]"
            ) from None


def check_opset(opset: int) -> None:
    """Raises SettingsError for an opset that cannot be written."""
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise SettingsError(f"opset must be from {LOWEST_OPSET} to {HIGHEST_OPSET}. Got {opset}. Use {OPSET}.")


def _on_cpu(detector: SAPatchCore, bank: Bank) -> SAPatchCore:
    """The same detector on the CPU in float32: what the file is made from and compared with."""
    plain = SAPatchCore(**{**detector.settings.model_dump(), "device": "cpu", "precision": "float32"})
    plain._pipeline = Pipeline(plain.settings, detector._pipeline.network.weights)
    plain._bank = replace(bank, rows=bank.rows.cpu())
    return plain


def _made_images(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(4, h, w, 3) uint8: noise, a grey gradient along each axis, and a coloured one with a spot."""
    h, w = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (h, w, 3))
    down, across = np.meshgrid(np.linspace(0, 255, h), np.linspace(0, 255, w), indexing="ij")
    coloured = np.stack((down, across, 255 - down), axis=2)
    coloured[h // 4 : h // 2, w // 4 : w // 2] = 255
    images = [noise, np.repeat(down[:, :, None], 3, 2), np.repeat(across[:, :, None], 3, 2) / 2, coloured]
    return np.stack(images).astype(np.uint8)


@torch.inference_mode()
def _patches(plain: SAPatchCore, pixels: npt.NDArray[np.uint8]) -> Patches:
    settings = plain.settings
    layers = plain._pipeline.network.features(torch.from_numpy(pixels))
    return to_patches(*layers, settings.attention, settings.temperature, settings.context_weight)


def _program(plain: SAPatchCore, patches: Patches, pixels: npt.NDArray[np.uint8], opset: int) -> Any:
    settings = plain.settings
    neighbors = settings.neighbors if settings.image_score == "reweighted" else None
    graph = Graph(plain._pipeline.network.features, plain._fitted(), patches.cell, settings, neighbors)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)  # it is the numbers below that tell whether the file is right
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph.eval(),
                (torch.from_numpy(pixels),),
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=list(OUTPUTS),
                dynamic_shapes={"images": {0: torch.export.Dim("n")}},
                external_data=False,
                verbose=False,
            )
    except MemoryError:
        raise
    except Exception as error:  # torch.export and the exporter raise almost anything
        reason = " ".join(str(error).split())[:240]
        raise ModelFileError(
            f"{settings.backbone} cannot be exported to ONNX with torch {torch.__version__}: {reason}"
        ) from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    got = program.model.opset_imports[""]
    if got != opset:
        raise ModelFileError(f"{settings.backbone} cannot be exported with opset {opset}. Use opset {got}.")
    return program


def _check(file: Path, plain: SAPatchCore, patches: Patches, pixels: npt.NDArray[np.uint8]) -> None:
    """Raises ModelFileError unless the file's numbers are the detector's own."""
    bank = plain._fitted()
    own: Arrays = plain._pipeline.score(patches, bank)
    try:
        found: Arrays = tuple(open_session(file).run(list(OUTPUTS), {"images": pixels}))
        rows = torch.from_numpy(found[-1]).flatten(1)
        meant = (patches.rows() - bank.rows[rows]).square().sum(2).sqrt().numpy()
    except Exception as error:  # ONNX Runtime's errors have no common class
        reason = " ".join(str(error).replace(str(file), "it").split())[:240]
        raise ModelFileError(
            f"ONNX Runtime cannot run the exported file: {reason} No file was written. Use opset {OPSET}."
        ) from None
    # A nearest row may differ among rows that are equally near: its distance may not.
    found, own = (*found[:-1], meant.reshape(own[-1].shape)), (*own[:-1], own[3])
    for name, ours, theirs in zip(OUTPUTS, own, found, strict=True):
        ours, theirs = (value.reshape(len(pixels), -1) for value in (ours, theirs))
        largest = np.maximum(np.abs(ours).max(1), 1e-2 * own[3].max((1, 2)))
        off = float((np.abs(ours - theirs).max(1) / np.maximum(largest, 1e-12)).max())
        if not off <= TOLERANCE:
            raise ModelFileError(
                f"The ONNX file's {name} is {off:.1g} away from the detector's own, relative; allowed is {TOLERANCE:g}. No "
                "file was written. Try another opset, or other versions of torch, onnxscript and onnxruntime."
            )
