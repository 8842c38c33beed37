"""Kernels forked from a process that has imported torch, so that a batch's runs need not.

Each process of a batch has one such process, multiprocessing's fork server. jupyter_client asks
the provisioner that a kernelspec names for its kernel.
"""

import multiprocessing
import os
import sys
import threading
from importlib.metadata import EntryPoint

import numpy as np
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

FORKS = multiprocessing.get_context("forkserver")
# What takes the time when a kernel starts; what cannot be imported is left out.
FORKS.set_forkserver_preload(["ipykernel.kernelapp", "matplotlib.figure", "torchvision"])
GROUP = "jupyter_client.kernel_provisioners"
PROVISIONER = EntryPoint("mnist-utils-fork", f"{__name__}:ForkProvisioner", GROUP)
KernelProvisionerFactory.instance().provisioners[PROVISIONER.name] = PROVISIONER


class ForkProvisioner(LocalProvisioner):
    """Starts a kernel by a fork, or as a new program where the fork server cannot start."""

    async def launch_kernel(self, cmd: list[str], **options):
        said = options["stdout"].name
        kernel = ForkedKernel(target=_become, args=[cmd, options["env"], options.get("cwd"), said])
        try:
            kernel.start()
        except (OSError, EOFError):
            return await super().launch_kernel(cmd, **options)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info


class ForkedKernel(FORKS.Process):
    """A process with what `LocalProvisioner` asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self.exitcode

    wait = poll  # asked for once it has ended


def _become(words: list[str], environment: dict, folder: str | None, said: str) -> None:
    """In the new process: be what the words, `python -c CODE ...`, would have started."""
    os.setsid()  # a signal to its group must not reach the batch
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder or ".")
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), stream)
    np.random.seed()  # or all these kernels would draw the same numbers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["-c", *words[3:]]
    exec(words[2], {"__name__": "__main__"})


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
