"""Fitting a small network to samples that are in memory, on one device."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skipsr.train.loop import Log, clip_norm, learning_rate
from skipsr.train.settings import TrainSettings
from skipsr.train.state import Average


def fit_network(
    network: nn.Module,
    settings: TrainSettings,
    loss_of: Callable[[torch.Generator], Tensor],
    log: Log | None = None,
) -> None:
    """Train a network where it is, and leave it with the averaged weights.

    Args:
        loss_of: draws a batch by the generator, which is all that is random in a run, and gives the
            network's loss on it.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(
        parameters, settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    average = Average.of(network, settings.ema)
    for step in range(settings.steps):
        loss = loss_of(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_norm(parameters, settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimizer.step()
        average.update(network, step)
        if log is not None:
            log.add(step + 1, {"loss": loss.item(), "gradient": norm})
    network.load_state_dict(average.values)


def random_turn(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """One of the eight ways to turn and flip pictures `... h w`, square ones."""
    turns, flip = divmod(int(torch.randint(8, (), generator=generator)), 2)
    return lambda x: x.rot90(turns, (-2, -1)).flip(-1 if flip else ())
