"""How many threads train a network, so that its numbers never depend on how many there were.

    settle(0)                        # once; choose_device does it
    sharing = Sharing()              # for each pass over the data
    with sharing:                    # around each step's forward pass; the backward pass follows it
        logits = model(images)

A sum of floating-point numbers depends on its order, and torch's order on the number of threads. So
one thread does everything, except for the two operations in which no sum crosses from one thread to
another: a convolution's output, and the gradient of its input. All threads share these while that
is faster. On a quiet machine it is; where other programs use the cores it is several times slower,
because each operation waits for its slowest thread. So the steps are timed, again and again, and
the faster way is taken. The weights are the same to the last bit.
"""

import time
from collections.abc import Generator

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

TRIES = 4  # steps that are timed of each way
GAIN = 0.95  # the other way must take less than this share of the time to be taken
REST = 20  # after a trial, so many times its duration pass without one, and a second at least
# Before anyone changed it: the cores, or what OMP_NUM_THREADS says.
_own_choice = torch.get_num_threads()
_shared = 1


def settle(threads: int) -> None:
    """Use `threads` threads for every operation; 0 means one, with help where no number changes."""
    global _shared
    torch.set_num_threads(threads or 1)
    _shared = 1 if threads else _own_choice


class Pace:
    """Which number of threads, 1 or `most`, makes the steps faster at the moment."""

    def __init__(self, most: int):
        self.most = most
        self._choices = self._choose()
        next(self._choices)

    def step(self, now: float) -> int:
        """The number of threads for the step that begins at `now` (seconds), as the last ends."""
        return self._choices.send(now)

    def _choose(self) -> Generator[int, float, None]:
        best, other = 1, self.most
        recent, next_trial = [], 0.0
        begun = yield best
        while True:
            # Steps of the better way, until enough of them were timed and a trial is due.
            while len(recent) < TRIES or begun < next_trial:
                now = yield best
                recent = [*recent, now - begun][-TRIES:]
                begun = now
            # A trial that has taken longer than all the steps it is compared with has lost.
            trial = []
            while len(trial) < TRIES and sum(trial) <= sum(recent):
                now = yield other
                trial.append(now - begun)
                begun = now
            if len(trial) == TRIES and sum(trial) < GAIN * sum(recent):
                best, other, recent = other, best, trial
            next_trial = begun + max(1.0, REST * sum(trial))


class Sharing(TorchFunctionMode):
    """While it is entered, convolutions on the CPU are shared out among threads where that is
    faster. Each entry is taken for the beginning of a step. After `settle` with a number of threads
    it does nothing."""

    def __init__(self):
        super().__init__()
        self.pace = Pace(_shared)
        self.threads = 1

    def __enter__(self):
        self.threads = self.pace.step(time.perf_counter())
        return super().__enter__()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.conv2d and self.threads > 1 and not torch.is_autocast_enabled("cpu"):
            return _convolve(self.threads, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _convolve(threads, images, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """As `torch.conv2d`, shared out among `threads`."""
    if images.device.type != "cpu" or images.ndim != 4 or isinstance(padding, str):
        return torch.conv2d(images, weight, bias, stride, padding, dilation, groups)
    sizes = [(s, s) if isinstance(s, int) else tuple(s) for s in (stride, padding, dilation)]
    return _Convolution.apply(threads, images, weight, bias, *sizes, groups)


class _Convolution(torch.autograd.Function):
    """Several threads compute the output and the gradient of the input; one computes the rest."""

    @staticmethod
    def forward(ctx, threads, images, weight, bias, stride, padding, dilation, groups):
        ctx.save_for_backward(images, weight)
        ctx.threads = threads
        ctx.bias_sizes = None if bias is None else [len(bias)]
        ctx.places = (stride, padding, dilation, False, [0, 0], groups)  # not transposed
        given = (images, weight, bias, stride, padding, dilation, groups)
        return _with_threads(threads, torch.conv2d, *given)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        images, weight = ctx.saved_tensors
        _, of_images, of_weight, of_bias = ctx.needs_input_grad[:4]
        backward = torch.ops.aten.convolution_backward
        given = (gradient, images, weight, ctx.bias_sizes, *ctx.places)
        grads = [None, None, None]
        if of_images:
            grads[0] = _with_threads(ctx.threads, backward, *given, [True, False, False])[0]
        if of_weight or of_bias:
            # These sums go over all images: their order would depend on the number of threads.
            grads[1:] = backward(*given, [False, of_weight, of_bias])[1:]
        return None, *grads, None, None, None, None


def _with_threads(threads: int, function, *arguments):
    torch.set_num_threads(threads)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(1)
