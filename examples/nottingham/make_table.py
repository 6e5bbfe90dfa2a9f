"""Nottingham's tunes, those of the training split in other keys too, as one Parquet table.

    python examples/nottingham/make_table.py

`score` is `abc_notes_only`, which tells neither metre nor key; each training tune is there in its own key
and transposed into others, its MIDI, its text and its label `key` changed with it. `facts` holds what a
training row may be described by: the text, and the text without its title, which no notes could tell. The
rows of `val` and `test` are as they were.
"""

from __future__ import annotations

import argparse
import os
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
LETTERS = "CDEFGAB"
SHARPS = {  # of a major key's signature; minor keys have three fewer
    "C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1, "Bb": -2, "Eb": -3, "Ab": -4,
}  # fmt: skip
MARKS = {"__": -2, "_": -1, "=": 0, "^": 1, "^^": 2}
WRITTEN = {value: mark for mark, value in MARKS.items()}
NOTE = re.compile(
    r'"([A-G])([#b]?)([^"/]*)(?:/([A-Ga-g])([#b+]?)[^"]*)?"|"[^"]*"|(\^\^|\^|=|__|_)?([A-Ga-g])([,\']*)'
)


def signature(key: str) -> dict[str, int]:
    """Semitones that a key's signature alters each letter by."""
    sharps = SHARPS[key.removesuffix("m")] - 3 * key.endswith("m")
    order = "FCGDAEB"
    if sharps >= 0:
        return {letter: int(letter in order[:sharps]) for letter in LETTERS}
    return {letter: -int(letter in order[sharps:]) for letter in LETTERS}


def transposed(notes: str, old: str, new: str) -> str:
    """ABC without its header, from one key to another of the same mode, up or down by a fourth at most."""
    before, after = signature(old), signature(new)
    steps = (LETTERS.index(new[0]) - LETTERS.index(old[0]) + 3) % 7 - 3

    def moved(letter: str, alter: int) -> tuple[str, int, int]:
        place = LETTERS.index(letter) + steps
        other = LETTERS[place % 7]
        return other, alter - before[letter] + after[other], place // 7

    def chord(letter: str, mark: str) -> str:
        other, alter, _ = moved(letter.upper(), {"#": 1, "b": -1}.get(mark, 0))
        return other + ("#" * alter if alter > 0 else "b" * -alter)

    def one(found: re.Match[str]) -> str:
        root, mark, rest, bass, bass_mark, accidental, letter, octaves = found.groups()
        if root:
            low = "/" + chord(bass, bass_mark) if bass else ""
            return f'"{chord(root, mark)}{rest}{low}"'
        if not letter:
            return found[0]
        octave = letter.islower() + octaves.count("'") - octaves.count(",")
        alter = before[letter.upper()] if accidental is None else MARKS[accidental]
        other, alter, shift = moved(letter.upper(), alter)
        octave += shift
        text = other.lower() + "'" * (octave - 1) if octave > 0 else other + "," * -octave
        return ("" if accidental is None else WRITTEN.get(alter, "")) + text

    return NOTE.sub(one, notes)


def shifted(midi: bytes, old: str, new: str) -> bytes:
    """A MIDI file from one key to another, as ``transposed`` moves notes; its key signature goes."""
    import symusic

    steps = (LETTERS.index(new[0]) - LETTERS.index(old[0]) + 3) % 7 - 3
    semitones = (tonic(new) - tonic(old) + 6) % 12 - 6
    if semitones * steps < 0:  # the tritone, which may go either way
        semitones += 12 if steps > 0 else -12
    score = symusic.Score.from_midi(midi)
    score.key_signatures.clear()
    for track in score.tracks:
        if not track.is_drum:
            track.shift_pitch(semitones, inplace=True)
    return score.dumps_midi()


def tonic(key: str) -> int:
    """Semitones above C."""
    return (0, 2, 4, 5, 7, 9, 11)[LETTERS.index(key[0])] - ("b" in key)


def rows_of(row: dict, keys: dict[str, list[str]], copies: int, draw: random.Random) -> list[dict]:
    """A tune, and ``copies`` of it in other keys."""
    new = [row["key"]]
    mode = row["key"].endswith("m")
    if row["split"] == "train":
        for _ in range(20 * copies):
            other = draw.choice(keys["minor" if mode else "major"])
            if other not in new and len(new) <= copies:
                new.append(other)
    found = []
    for key in new:
        score, midi = row["abc_notes_only"], row["midi"]
        if key != row["key"]:
            score = transposed(score, row["key"], key)
            midi = {"bytes": shifted(midi["bytes"], row["key"], key), "path": None}
        plain = f"a {row['kind']} in {key}, {row['meter']} time"
        text = f"{row['title']}, {plain}"
        kept = {name: row[name] for name in ("id", "kind", "meter", "split", "group")}
        found.append({**kept, "score": score, "midi": midi, "text": text, "facts": [text, plain], "key": key})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("MODALIGN_DATA", "../shared/data")) / "nottingham.parquet"
    parser.add_argument("--table", type=Path, default=default, help=f"default: {default}")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "nottingham.parquet")
    parser.add_argument("--copies", type=int, default=4, help="of each training tune, in other keys")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = pq.read_table(given.table).to_pylist()
    draw = random.Random(given.seed)
    keys: dict[str, list[str]] = {"major": [], "minor": []}
    for row in table:
        if row["split"] == "train" and row["key"].removesuffix("m") in SHARPS:
            keys["minor" if row["key"].endswith("m") else "major"].append(row["key"])
    rows = [new for row in table for new in rows_of(row, keys, given.copies, draw)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), given.out)
    print(f"{given.out}: {len(table)} tunes, {len(rows)} rows")


if __name__ == "__main__":
    main()
