"""PyTorch training core for chest X-ray classifiers: data, models, losses, samplers, schedules, training, metrics."""
