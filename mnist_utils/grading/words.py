"""How people and libraries name accuracy, training, testing and epochs, from a table to be
extended.

The table is `templates/grades/words.txt`; a rules file can add words to it under `[words]`, as in
`accuracy = ["Trefferquote"]`.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from ..templating import TEMPLATES

TABLE = TEMPLATES / "grades/words.txt"
ROLES = ("accuracy", "train", "test", "epoch", "claim", "final", "parameters")
# A word begins and ends where no letter adjoins, or where small letters meet a capital ("valAcc").
# Chinese, Japanese and Korean have no blanks, so that their own letters may adjoin.
LETTER = "[a-zA-ZÀ-ÖØ-öø-ſḀ-ỿа-яА-Я]"
LEFT = rf"(?:(?<!{LETTER})|(?-i:(?<=[a-z])(?=[A-Z])))"
RIGHT = rf"(?:(?!{LETTER})|(?-i:(?<=[a-z])(?=[A-Z])))"
# "Epoch: 3/19", "epoch [3/19]", "Epoch #3", but no "epoch 3.5" or "epoch 3%"
NUMBERED = (
    r"(?:\s{0,3}(?:no\.?|number|#|id))?\s{0,4}[:=\-#(\[]{0,3}\s{0,4}"
    r"(\d{1,4})(?![\d.%]|\w)(?:\s{0,3}(?:/|of)\s{0,3}(\d{1,4}))?"
)


class Words(NamedTuple):
    """The table as patterns; `stems` has for each role pieces of which every word of it has one."""

    accuracy: re.Pattern
    role: re.Pattern  # group 1 where it is of training, else of testing
    owner: re.Pattern  # a role, or an epoch, that comes after "accuracy": "exactitud de prueba"
    epoch: re.Pattern  # group 1 the word, 2 the number, 3 of how many
    claim: re.Pattern
    final: re.Pattern
    parameters: re.Pattern
    stems: dict[str, tuple[str, ...]]

    def says(self, role: str, text: str) -> bool:
        """A quick look whether a text may have a word of a role, before it is searched."""
        text = text.lower()
        for stem in self.stems[role]:
            if stem in text:
                return True
        return False

    def whose(self, text: str) -> str:
        """The last word of whose images, as "train" or "test"; "" where there is none."""
        role = ""
        for match in self.role.finditer(text):
            role = "train" if match[1] else "test"
        return role


@lru_cache
def read_words(more: tuple[tuple[str, tuple[str, ...]], ...] = ()) -> Words:
    """The patterns of TABLE and of `more`, which are pairs of a role and words of it."""
    words: dict[str, list[str]] = {role: [] for role in ROLES}
    for row in TABLE.read_text(encoding="utf-8").splitlines():
        if not row.startswith("#"):
            role, *given = row.split()
            words[role] += given
    for role, given in more:
        words[role] += given
    some = {role: _any(given) for role, given in words.items()}
    images = f"(?:{some['train']}|{some['test']})"
    in_epoch = f"{some['epoch']}{NUMBERED}"
    found = {
        # "valacc" and "testaccuracy" are written without anything between
        "accuracy": f"{LEFT}{images}?{some['accuracy']}{RIGHT}",
        "role": rf"{LEFT}(?:({some['train']})|{some['test']})(?:{RIGHT}|(?=acc))",
        "owner": rf"\s{{1,3}}(?:[^\W\d]{{1,5}}[\s'’]{{1,2}}){{0,2}}(?:{images}{RIGHT}|{in_epoch})",
        "epoch": f"{LEFT}({some['epoch']}){NUMBERED}",
    }
    for role in ("claim", "final", "parameters"):
        found[role] = f"{LEFT}{some[role]}{RIGHT}"
    compiled = {name: re.compile(pattern, re.I) for name, pattern in found.items()}
    parts = {
        role: {max(word.lower().strip("*").split("_"), key=len) for word in given}
        for role, given in words.items()
    }
    return Words(**compiled, stems={role: tuple(some) for role, some in parts.items()})


def _any(words: list[str]) -> str:
    longest_first = sorted(words, key=len, reverse=True)
    patterns = [re.escape(word).replace("_", r"[\s_\-]?") for word in longest_first]
    return f"(?:{'|'.join(patterns)})".replace(r"\*", rf"{LETTER}{{0,8}}")
