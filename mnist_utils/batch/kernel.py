"""The kernel of one run: this interpreter's own, whatever is installed, within its limits."""

import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UsageError

POLL = 0.5  # seconds between two looks at whether a run must be stopped
LAUNCH = "import runpy; runpy.run_module('ipykernel_launcher', run_name='__main__')"
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_DATA, ({0}, {0})); "


class Kernel:
    """What a run's kernel gets, and why it was ended, if it was.

    `timeout` is in seconds for the whole run, `memory` in GiB that the kernel may allocate (on
    Unix), `environment` comes on top of this process's, `folder` is where the kernel starts if not
    here. Once `stopped()` the run is stopped. Raises UsageError for limits that limit nothing.
    """

    def __init__(
        self,
        timeout: float | None = None,
        memory: float | None = None,
        environment: dict[str, str] | None = None,
        folder: str = "",
        stopped: Callable[[], bool] = lambda: False,
    ):
        for name, value in (("--timeout", timeout), ("--memory", memory)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be a number above 0, got {value}")
        if memory and os.name != "posix":
            raise UsageError("--memory needs Unix")
        self.timeout, self.memory, self.stopped = timeout, memory, stopped
        self.environment = environment or {}
        self.folder = folder
        self.process = None
        self.ended: tuple[str, str] | None = None

    @contextmanager
    def watched(self):
        """Lends papermill's arguments for this kernel, which ends when it must, and after this.

        `ended` then has the status and the reason of a run that an error ended.
        """
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=[done], daemon=True)
        with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
            self.said = Path(folder, "said")
            watch.start()
            try:
                yield {"kernel_manager_class": self._manager(folder)}
            except Exception as error:
                self.ended = self.ended or ("failed", self._why(error))
                raise
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
        kernel = self

        class OwnManager(AsyncKernelManager):
            kernel_spec = KernelSpec(argv=words, env=kernel.environment, language="python")

            async def start_kernel(self, **options):
                # A free port is looked for first and taken later, so two kernels may choose the
                # same one; files of their own cannot clash, but the system cuts long paths.
                if os.name == "posix" and len(folder) < 80:
                    self.transport, self.ip = "ipc", f"{folder}/at"
                if os.path.isdir(kernel.folder):
                    options["cwd"] = kernel.folder
                with kernel.said.open("wb") as said:
                    await super().start_kernel(stdout=said, stderr=said, **options)
                kernel.process = psutil.Process(self.provisioner.pid)

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

    def _why(self, error: Exception) -> str:
        """What an error of papermill, or of a library below it, means."""
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        if isinstance(error, PapermillExecutionError):
            return f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}"
        if isinstance(error, DeadKernelError):
            return "the kernel died: out of memory, or killed from outside"
        if "Kernel died before" in str(error):
            lines = self.said.read_text(errors="replace").strip().splitlines() or [str(error)]
            return f"no kernel of {sys.executable} started ({lines[-1]})"
        return f"{type(error).__name__}: {error}"
