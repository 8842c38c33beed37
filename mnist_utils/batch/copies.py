"""Copies of what a run leaves, at the addresses that papermill itself writes to."""

import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from ..errors import RecordError, UsageError
from ..records import RunRecord

PATIENCE = 20.0  # seconds that an address has for each answer
SCHEMES = "s3://, gs://, abs://, adl://, hdfs:// or https://"


def check_address(url: str) -> str:
    """`url` without a slash at its end. Raises UsageError where papermill cannot write there."""
    from papermill.exceptions import PapermillException, PapermillOptionalDependencyException
    from papermill.iorw import LocalHandler, papermill_io

    try:
        if "://" not in url or isinstance(papermill_io.get_handler(url), LocalHandler):
            raise PapermillException("no scheme")
    except PapermillException as error:
        raise UsageError(f"papermill cannot write to {url!r}; give {SCHEMES}") from error
    try:
        _in_time(papermill_io.read, f"{url.rstrip('/')}/run.json")
    except (PapermillOptionalDependencyException, TypeError) as error:  # the latter for hdfs://
        raise UsageError(f"papermill cannot write to {url!r}, no library: {error}") from error
    except TimeoutError:
        raise UsageError(f"{url} does not answer within {PATIENCE:g} seconds") from None
    except Exception:  # an answer of whatever kind: nothing need lie there yet
        pass
    return url.rstrip("/")


def copy_out(folder: Path, url: str, record: RunRecord) -> None:
    """Put the folder's executed notebook, then its `record`, under `url`, unless that is there.

    Where they cannot be put there, `record` says so and has failed; on the disk the run stays
    completed, so that the next command only has to copy it.
    """
    from papermill.iorw import papermill_io

    with suppress(RecordError):
        if load_record(url) == record:
            return
    try:
        for path in [*folder.glob("*.ipynb"), folder / "run.json"]:
            _in_time(papermill_io.write, path.read_text(encoding="utf-8"), f"{url}/{path.name}")
    except Exception as error:  # of whatever library writes there
        record.finish("failed", f"could not be copied to {url} ({type(error).__name__}: {error})")


def load_record(url: str) -> RunRecord:
    """The record under `url`. Raises RecordError where there is none or it cannot be read."""
    from papermill.iorw import papermill_io

    address = f"{url}/run.json"
    try:
        text = _in_time(papermill_io.read, address)
    except Exception as error:  # of whatever library reads there
        raise RecordError(f"{address}: no such record ({type(error).__name__})") from error
    return RunRecord.parse(text, address)


def _in_time(function, *arguments):
    """What the function returns or raises; TimeoutError where it does neither within `PATIENCE`."""
    future = Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future.result(timeout=PATIENCE)
