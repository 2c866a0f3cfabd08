"""Where tensors are multiplied."""


def best_device() -> str:
    """``cuda`` where there is a graphics card, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
