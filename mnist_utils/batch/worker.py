"""A process that runs one job after another, each in a process of its own that has its libraries imported already.

    worker = Worker()
    worker.ask({"path": ..., "values": ..., "out": ..., "variant": ..., "memory": None, "device": None, "warm": True})
    code = worker.answer(1.0)                                          # None for as long as the job runs

Importing torch takes as long as a short training. Where a job is `warm`, the worker has imported it, once, and forks: a
process that executes the notebook, and from that one its kernel. Elsewhere than on Linux, where a fork after imports is
not safe, a worker runs one job only. What a notebook sets in `os.environ` before it imports torch comes too late, in a
warm job, for what torch reads while it is imported.

Jobs come as lines of JSON, and each is answered by its exit code. When the input ends before a notebook does, the batch
is gone and the notebook is stopped.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.context
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TextIO

from ..errors import UsageError
from .execute import run_notebook

FORKS = sys.platform == "linux"
LIBRARIES = "torch._dynamo torchvision matplotlib.backends.backend_agg ipykernel.kernelapp".split()  # of the kernel
LIBRARIES += "papermill nbconvert IPython.lib.lexers".split()  # of the process that executes, and makes the page


class Worker(subprocess.Popen):
    """A worker as the batch sees it."""

    def __init__(self):
        self.said, self.answers = tempfile.TemporaryFile("a+", encoding="utf-8"), queue.SimpleQueue()
        super().__init__(
            [sys.executable, "-m", "mnist_utils.batch.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.said, text=True, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with self.stdout:
            for line in self.stdout:
                self.answers.put(int(line))
        self.answers.put(self.wait() or 1)

    def ask(self, job: dict) -> None:
        """Begin a job. The one before has been answered."""
        self.said.truncate(0)
        with contextlib.suppress(OSError):  # it has ended already, and what it said tells why
            print(json.dumps(job), file=self.stdin, flush=True)

    def answer(self, seconds: float) -> int | None:
        """The exit code of its job, negative where a signal ended it; None where it runs on after `seconds`."""
        try:
            return self.answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def last_line(self) -> str:
        """The last thing that its job printed."""
        self.said.seek(0)
        return (self.said.read().strip().splitlines() or [""])[-1]

    def is_free(self) -> bool:
        """Whether it takes another job, now that its last one has been answered."""
        return FORKS and self.poll() is None

    def close(self) -> None:
        """End it, and wait until it has."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        self.wait()
        self.said.close()


def main() -> None:
    """The worker itself: run the jobs of the input, answer each."""
    batch, answers = os.dup(0), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        if not FORKS:
            print(_run(job, batch), file=answers, flush=True)
            return
        if job["warm"]:
            _import_libraries()
        print(_run_forked(job, batch, answers), file=answers, flush=True)


@functools.cache
def _import_libraries() -> None:
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a kernel does, but in time
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # what is collected never again stays shared with the forks


def _run_forked(job: dict, batch: int, answers: TextIO) -> int:
    """The exit code of a process that runs the job; `answers` ends with this one, not with that."""
    process = _Fork(target=lambda: (answers.close(), sys.exit(_run(job, batch))))
    process.start()
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    process.join()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return process.exitcode


def _run(job: dict, batch: int) -> int:
    """Run the job in this process, until it or the batch ends; the exit code of `mnist_utils.__main__`."""
    if job["device"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = job["device"]
    if job["memory"]:
        _limit_memory(job["memory"])
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(_waiting_kernel()) if FORKS else None
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=_stop_with_the_batch, args=[batch], daemon=True).start()
        try:
            record = run_notebook(Path(job["path"]), job["values"], Path(job["out"]), job["variant"], manager)
        except (UsageError, KeyboardInterrupt) as error:
            print(str(error) or "interrupted")
            return 2
    return 0 if record.status == "completed" else 1


def _limit_memory(gib: float) -> None:
    """The most that this process and each it starts may allocate; what asks for more gets a MemoryError."""
    try:
        import resource
    except ImportError:
        raise SystemExit("--memory needs Unix") from None
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)


def _stop_with_the_batch(batch: int) -> None:
    while os.read(batch, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class _Fork(multiprocessing.context.ForkProcess if FORKS else object):
    """A forked process, with what Jupyter expects of a subprocess.Popen."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@contextlib.contextmanager
def _waiting_kernel():
    """A Jupyter kernel manager whose first kernel is a process forked here and now, before there are threads."""
    from jupyter_client import AsyncKernelManager

    here, there = multiprocessing.Pipe()
    process = _Fork(target=_become_kernel, args=[there, here])
    process.start()
    there.close()
    here.recv()

    class Manager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd, **options):
            if here.closed or kernel_cmd[:3] != [sys.executable, "-m", "ipykernel_launcher"]:
                return await super()._async_launch_kernel(kernel_cmd, **options)
            here.send((kernel_cmd[3:], options["env"], options.get("cwd")))
            here.close()
            self.provisioner.process, self.provisioner.pid, self.provisioner.pgid = process, process.pid, process.pid
            self._reconcile_connection_info(self.provisioner.connection_info)

    try:
        yield Manager
    finally:
        process.kill()
        process.join()


def _become_kernel(pipe, other_end) -> None:
    """Wait for a kernel's command line, environment and folder, then be what that would have started."""
    os.setsid()
    other_end.close()
    pipe.send("ready")
    try:
        words, environment, folder = pipe.recv()
    except EOFError:  # nobody wants one any more
        return
    pipe.close()
    os.environ.clear()
    os.environ.update(environment)
    if folder:
        os.chdir(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mnist_utils"]:
        del sys.modules[name]  # its source may have changed since
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # what is forked draws the same numbers otherwise
    from ipykernel.kernelapp import launch_new_instance

    sys.argv = ["ipykernel_launcher", *words, f"--IPKernelApp.parent_handle={os.getppid()}"]  # whose end is its end
    launch_new_instance()
    atexit._run_exitfuncs()


if __name__ == "__main__":
    main()
