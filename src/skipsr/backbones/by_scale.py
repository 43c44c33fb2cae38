"""One model, a network for each of several scales: the one that suits runs."""

from collections.abc import Callable, Mapping
from threading import Lock

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.clip import Clip
from skipsr.devices import undisturbed
from skipsr.limits import Limits
from skipsr.skipping.compute_map import ComputeMap


class ByScale:
    """An `Upscaler` of several; `Limits.towards` chooses by the sizes of clip and result.

    `limits.scales` says which there are.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        first: Upscaler,
        others: Mapping[int | None, Callable[[], Upscaler]],
    ) -> None:
        """
        Args:
            limits: of `first`, with those of the others in `others`.
            others: makes the one of each other scale, when it is first needed.
        """
        self.name = name
        self.limits = limits
        self.device, self.dtype, self.asked = first.device, first.dtype, first.asked
        self.identity = first.identity
        self._made: dict[int | None, Upscaler] = {limits.scale: first}
        self._others = others
        self._making = Lock()  # it changes weights: once, whichever thread is first

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """See `Upscaler.upscale`."""
        return self.towards(clip, size).upscale(clip, size, seed=seed)

    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """See `Upscaler.compute_map`."""
        return self.towards(clip, size).compute_map(clip, size)

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """See `Upscaler.upsample`."""
        return self.towards(clip, size).upsample(clip, size)

    def towards(self, clip: Clip, size: tuple[int, int]) -> Upscaler:
        """The upscaler that enlarges `clip` to `size`.

        Raises:
            SettingsError: for what its network cannot do.
            WeightsError: for what its weights lack for the settings.
        """
        return self._of(self.limits.towards(clip.size, size).scale)

    def at(self, scale: int) -> Upscaler:
        """The upscaler that enlarges clips by `scale`.

        Raises:
            WeightsError: for what its weights lack for the settings.
        """
        side = 1000  # so long that rounding decides nothing
        return self._of(self.limits.towards((side, side), (scale * side, scale * side)).scale)

    @undisturbed(inference=False)
    def _of(self, scale: int | None) -> Upscaler:
        with self._making:
            if scale not in self._made:
                self._made[scale] = self._others[scale]()
            return self._made[scale]
