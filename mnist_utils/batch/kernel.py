"""Papermill with the kernel of one run: this interpreter's own, whatever is installed, in limits."""

import logging
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError

POLL = 0.5  # seconds between two looks at whether a run must be stopped
LAUNCH = "import runpy; runpy.run_module('ipykernel_launcher', run_name='__main__')"
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_DATA, ({0}, {0})); "


@dataclass
class Kernel:
    """What a run's kernel gets, and why it was ended, if it was.

    `timeout` is in seconds for the whole run, `memory` in GiB that the kernel may allocate (on
    Unix), `environment` comes on top of this process's, `folder` is where the kernel starts if not
    here. With `fork` it is forked, where the system can. Once `stopped()` the run is stopped.
    Raises UsageError for limits that limit nothing.
    """

    timeout: float | None = None
    memory: float | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    fork: bool = False
    stopped: Callable[[], bool] = lambda: False
    process = None
    ended: tuple[str, str] | None = None

    def __post_init__(self):
        for name, value in (("--timeout", self.timeout), ("--memory", self.memory)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be a number above 0, got {value}")
        if self.memory and os.name != "posix":
            raise UsageError("--memory needs Unix")

    def execute(self, notebook: Path, values: dict, log=None) -> tuple[str, str]:
        """Execute the notebook in place, whatever comes of it: a record's (status, error).

        `values` are given to its parameters; what it prints is written to `log` as well.
        """
        import papermill

        for name in ("papermill", "asyncio"):  # the record says what they would
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Papermill takes braces for a pattern, and a name alone for a stream or an address.
        path = os.path.join(".", notebook).replace("{", "{{").replace("}", "}}")
        cwd = self.folder if os.path.isdir(self.folder) else ""
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=[done], daemon=True)
        with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
            watch.start()
            try:
                papermill.execute_notebook(
                    path, path, values, kernel_name="python3", progress_bar=False,
                    autosave_cell_every=5, stdout_file=log, stderr_file=log, coalesce_streams=True,
                    start_timeout=300, iopub_timeout=60, resources={"metadata": {"path": cwd}},
                    kernel_manager_class=self._manager(folder),
                )  # fmt: skip
                return "completed", ""
            except KeyboardInterrupt:
                return "interrupted", "stopped from outside"
            except Exception as error:  # whatever else stops a run must still end in a record
                return self.ended or ("failed", _why(error, Path(folder, "said")))
            finally:
                done.set()
                watch.join()
                self._kill()

    def _manager(self, folder: str) -> type:
        import psutil
        from jupyter_client import AsyncKernelManager
        from jupyter_client.kernelspec import KernelSpec

        limit = LIMIT.format(int(self.memory * 2**30)) if self.memory else ""
        words = [sys.executable, "-c", limit + LAUNCH, "-f", "{connection_file}"]
        words.append("--IPKernelApp.log_level=CRITICAL")
        metadata = {}
        # Elsewhere libraries do not survive a fork; a daemon, as a cluster's workers often are, may
        # not have processes of its own.
        if self.fork and sys.platform == "linux" and not multiprocessing.current_process().daemon:
            from .fork import PROVISIONER

            metadata = {"kernel_provisioner": {"provisioner_name": PROVISIONER.name}}
        spec = KernelSpec(argv=words, env=self.environment, language="python", metadata=metadata)
        run = self

        class OwnManager(AsyncKernelManager):
            kernel_spec = spec

            async def start_kernel(self, **options):
                # A free port is looked for first and taken later, so two kernels may choose the
                # same one; files of their own cannot clash, but the system cuts long paths.
                if os.name == "posix" and len(folder) < 80:
                    self.transport, self.ip = "ipc", f"{folder}/at"
                with open(f"{folder}/said", "wb") as said:
                    await super().start_kernel(stdout=said, stderr=said, **options)
                run.process = psutil.Process(self.provisioner.pid)

        return OwnManager

    def _watch(self, done: threading.Event) -> None:
        begun = time.monotonic()
        while not done.wait(POLL):
            if self.ended:
                self._kill()
            elif self.timeout and time.monotonic() - begun > self.timeout:
                self.ended = ("failed", f"stopped after {self.timeout:g} seconds, its timeout")
            elif self.stopped():
                self.ended = ("interrupted", "stopped from outside")

    def _kill(self) -> None:
        """End the kernel and what it started, without asking."""
        from psutil import NoSuchProcess

        if self.process:
            with suppress(NoSuchProcess):
                for one in [*self.process.children(recursive=True), self.process]:
                    with suppress(NoSuchProcess):
                        one.kill()


def _why(error: Exception, said: Path) -> str:
    """What an error of papermill, or of a library below it, means; `said` has the kernel's words."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        return f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}"
    if isinstance(error, DeadKernelError):
        return "the kernel died: out of memory, or killed from outside"
    if "Kernel died before" in str(error):
        lines = said.read_text(errors="replace").strip().splitlines() or [str(error)]
        return f"no kernel of {sys.executable} started ({lines[-1]})"
    return f"{type(error).__name__}: {error}"
