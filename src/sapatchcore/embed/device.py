"""Where to compute."""

from __future__ import annotations

import torch

from sapatchcore.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA, else MPS, else the CPU. Raises SettingsError where the device named is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if cuda else 0
        raise SettingsError(f"device {name!r} is not there: PyTorch sees {count} CUDA devices. Use device auto or cpu.")
    if device.type == "mps" and not mps:
        raise SettingsError("device 'mps' is not there on this machine. Use device auto or cpu.")
    return device
