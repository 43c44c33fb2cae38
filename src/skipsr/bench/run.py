"""From settings to a report: the door to this part."""

from collections.abc import Mapping

from skipsr.bench.model import bench_model
from skipsr.bench.networks import find_networks
from skipsr.bench.report import BenchReport
from skipsr.bench.settings import BenchSettings
from skipsr.bench.transformer import bench_transformer
from skipsr.errors import SettingsError
from skipsr.settings import AUTO, RuntimeSettings, SkipSettings

_LARGE = "seedvr2:3b"  # whose transformer is measured unless another is asked for


def run_bench(
    name: str,
    settings: BenchSettings,
    skip: SkipSettings | None = None,
    runtime: RuntimeSettings | None = None,
    options: Mapping[str, object] | None = None,
) -> BenchReport:
    """Measure a model, or with `settings.mechanism` its transformer alone.

    Raises:
        SettingsError: for an unknown model, a device that is not there, or what does not fit.
        WeightsError: for files that do not fit.
    """
    skip, runtime = skip or SkipSettings(), runtime or RuntimeSettings()
    own = dict(options or {})
    if "detail" in own:
        raise SettingsError("`detail` changes what is drawn, and not how fast: leave it out")
    if not settings.mechanism:
        scale = round(settings.scale)
        return bench_model(find_networks(name, runtime, own, scale), settings, skip)
    if skip.asked:
        dial = next(iter(skip.asked))
        raise SettingsError(f"`{dial}` is not for `mechanism`: give `skip_share`")
    if own:
        raise SettingsError(f"`{next(iter(own))}` is not for `mechanism`, one step: leave it out")
    if name == AUTO and runtime.weights is None:
        name = _LARGE
    return bench_transformer(find_networks(name, runtime, own), settings)
