"""The device that a command runs on, by the name that its `--device` takes."""

import argparse

import torch


def named_device(name: str | None = None) -> torch.device:
    """cpu, cuda or cuda:N; without a name cuda where there is a GPU, else cpu. Raises ArgumentTypeError."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{name!r} is none of cpu, cuda, cuda:0, cuda:1 ...")
    return device


def is_there(device: torch.device) -> bool:
    """Whether PyTorch sees the device on this machine."""
    return device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
