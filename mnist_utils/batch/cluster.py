"""Other machines: a Dask cluster to run on, and addresses to which papermill itself writes what a run leaves.

    with executor("tcp://host:8786", {"GPU": 1}) as pool:
        pool.submit(function, argument)

Nothing here knows of notebooks or trainings; `batch` does.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError

RETRIES = 3  # of a job whose worker is lost


@contextmanager
def executor(address: str, resources: dict[str, float]) -> Iterator:
    """A `concurrent.futures` executor on the workers of the scheduler at `address`, one job a thread.

    Each job takes `resources` of its worker's own, named when the worker was started; without workers it waits for
    some. TLS is set up in Dask's own configuration. Raises UsageError where no scheduler answers, or where there are
    workers and none has so much.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--scheduler needs Dask: python -m pip install -e .[cluster]") from None
    try:
        client = Client(address, timeout=10)
    except Exception as error:  # connection, address, certificate: each has errors of its own
        raise UsageError(f"no Dask scheduler answers at {address} ({str(error) or type(error).__name__})") from error
    with client:
        offered = client.run(lambda dask_worker: dask_worker.state.total_resources).values() if resources else ()
        if offered and not any(all(own.get(name, 0) >= much for name, much in resources.items()) for own in offered):
            wanted = ",".join(f"{name}={much:g}" for name, much in resources.items())
            raise UsageError(f"no worker of {address} has {wanted}; dask worker takes --resources NAME=AMOUNT")
        yield client.get_executor(pure=False, retries=RETRIES, resources=resources)


def check_address(url: str) -> str:
    """`url` without a slash at its end. Raises UsageError where papermill writes to no such address."""
    from papermill.iorw import LocalHandler, papermill_io

    if "://" not in url or isinstance(papermill_io.get_handler(url), LocalHandler):
        raise UsageError(f"papermill cannot write to {url!r}; give s3://, gs://, abs://, adl://, hdfs:// or https://")
    return url.rstrip("/")


def copy_out(folder: Path, url: str) -> str:
    """Write the folder's executed notebook, then its record, under `url`; what went wrong, or nothing.

    What is JSON goes: all that papermill writes to every kind of address. The page can be made again from the notebook,
    the table from the record.
    """
    from papermill.iorw import papermill_io

    try:
        for path in [*folder.glob("*.ipynb"), folder / "run.json"]:
            papermill_io.write(path.read_text(encoding="utf-8"), f"{url}/{path.name}")
    except Exception as error:  # of whatever library writes there
        return f"could not be copied to {url} ({type(error).__name__}: {str(error).splitlines()[0]})"
    return ""


def record_at(url: str) -> str:
    """The text of the record under `url`; empty where there is none or it cannot be read."""
    from papermill.iorw import papermill_io

    try:
        text = papermill_io.read(f"{url}/run.json")
        return text if isinstance(json.loads(text), dict) else ""
    except Exception:  # of whatever library reads there
        return ""
