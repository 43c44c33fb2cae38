"""How long a slow machine takes: by shapes, not by the clock, so that jobs are cut alike always."""

_RATES = {"cpu": 2e10, "mps": 1e12}  # multiply-adds a second, of two cores and of a small chip
_CARD = 5e12  # of a small card


def slow_seconds(work: float, device: str) -> float:
    """Seconds of so many multiply-adds on a slow device of its kind, such as `cuda:0`."""
    return work / _RATES.get(device.partition(":")[0], _CARD)
