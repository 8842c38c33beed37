"""The errors whose message is meant for a person. This module imports nothing of the package."""


class UsageError(Exception):
    """Something was asked for that cannot be done; the message says what, and what to do instead."""


class RecordError(Exception):
    """A run record is missing, damaged, or of another schema."""


class DataError(Exception):
    """A dataset cannot be had or is damaged; the message names the file or mirror, and what to do."""


class DivergedError(RuntimeError):
    """The training loss is no longer a number."""


class ExportError(Exception):
    """A run cannot be exported, or the exported model's answers differ from torch's; the message says why."""
