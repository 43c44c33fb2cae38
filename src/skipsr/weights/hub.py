"""The Hugging Face Hub: the one place of the package that reaches for the network.

`huggingface_hub` finds the address (`HF_ENDPOINT` names a mirror), asks for a file's metadata,
holds the connection and knows the cache that other programs share (`HF_HOME`). It begins anew what
was cut off, so the bytes are read here, from where they stopped. No token is sent.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from skipsr.errors import WeightsError
from skipsr.weights.published import PublishedFile

_KEPT = "what was fetched is kept, and the same command goes on from there"


class DroppedError(Exception):
    """The connection broke; asking again may help."""


class Hub:
    """Reads published files.

    Raises:
        WeightsError: without the extra that brings the library.
    """

    def __init__(self) -> None:
        try:
            self._hub: Any = import_module("huggingface_hub")
            self._transport: Any = import_module("httpx2")
        except ImportError as error:
            raise WeightsError(
                f'fetching files needs huggingface_hub ({error}): pip install "skipsr[hub]"'
            ) from None
        self._constants: ModuleType = import_module("huggingface_hub.constants")
        self._errors: Any = import_module("huggingface_hub.errors")

    def cached(self, file: PublishedFile) -> Path | None:
        """The file in the cache of `huggingface_hub`, where another program put it."""
        found = self._hub.try_to_load_from_cache(file.repo, file.name, revision=file.revision)
        return Path(found) if isinstance(found, str) else None

    def check_declared(self, file: PublishedFile) -> None:
        """Ask what the server holds under the name.

        Raises:
            DroppedError: when it cannot be reached.
            WeightsError: when it holds something else, or does not answer as a hub does.
        """
        with self._explained(file):
            url = self._hub.hf_hub_url(file.repo, file.name, revision=file.revision)
            metadata = self._hub.get_hf_file_metadata(url, token=False)
        declared = metadata.etag or ""
        if len(declared) == len(file.sha256) and declared != file.sha256:
            raise WeightsError(
                f"{self._constants.ENDPOINT} offers another {file.name} than the one that is known "
                f"(SHA-256 {declared[:12]}…, not {file.sha256[:12]}…): nothing was fetched of it"
            )

    @contextmanager
    def read(self, file: PublishedFile, start: int) -> Generator[tuple[int, Iterator[bytes]]]:
        """The file's bytes from `start` on, or from 0 where the server cannot begin elsewhere.

        Yields where they begin, and the bytes.

        Raises:
            DroppedError: when the connection breaks.
            WeightsError: when the server refuses.
        """
        url = self._hub.hf_hub_url(file.repo, file.name, revision=file.revision)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = self._constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            self._explained(file),
            self._hub.get_session().stream(
                "GET", url, headers=headers, timeout=timeout
            ) as response,
        ):
            self._hub.utils.hf_raise_for_status(response)
            begins = start if response.status_code == 206 else 0
            # as they come: those that wait for a chunk to be full are lost when the line is cut
            yield begins, response.iter_raw()

    @contextmanager
    def _explained(self, file: PublishedFile) -> Generator[None]:
        """Errors of the library as ours."""
        where = f"{self._constants.ENDPOINT}/{file.repo}"
        try:
            yield
        except self._errors.OfflineModeIsEnabled:
            raise WeightsError(
                f"HF_HUB_OFFLINE is set, and {file.name} of {file.repo} is not in the cache: unset "
                "it to fetch the file"
            ) from None
        except self._errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status == 429 or status >= 500:
                raise DroppedError(f"it answered {status}") from None
            raise WeightsError(
                f"{where} has no {file.name} at {file.revision[:12]} to give (it answered "
                f"{status}); if HF_ENDPOINT names a mirror, try another; {_KEPT}"
            ) from None
        except (self._transport.HTTPError, self._transport.InvalidURL) as error:
            raise DroppedError(str(error) or type(error).__name__) from None

    def unreachable(self, file: PublishedFile, reason: object) -> WeightsError:
        """The error that ends a fetch when trying again did not help."""
        return WeightsError(
            f"{self._constants.ENDPOINT} gave no more of {file.name} ({reason}): check the "
            f"connection, or name a mirror by HF_ENDPOINT; {_KEPT}"
        )
