"""How long a network takes for one film."""

import statistics
import time

import torch
from torch import nn

_WARM_UP = 3
_REPEATS = 15


def film_latency(model: nn.Module, image_size: int, device: str | torch.device) -> float:
    """Median milliseconds that a network takes for one film of its size, as in use: one at a time, in eval mode.

    The network's mode is left as it was.
    """
    device = torch.device(device)
    film = torch.zeros(1, 1, image_size, image_size, device=device)
    training, seconds = model.training, []
    model.eval()
    with torch.inference_mode():
        for _ in range(_WARM_UP + _REPEATS):
            started = time.perf_counter()
            model(film)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
    model.train(training)
    return 1000 * statistics.median(seconds[_WARM_UP:])
