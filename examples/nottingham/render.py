"""Sound of the tunes: a table's MIDI files as WAV, by FluidSynth where it and a soundfont are installed.

    python examples/nottingham/render.py

Without them (or with `--plain`) the overtones of modalign-music play, which sound like an organ. The table
written has the columns of the one read, and `audio` (WAV).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from modalign_music.midi import Midi
from modalign_music.sound import wav

ROOT = Path(__file__).parents[2]
SOUNDFONTS = ("/usr/share/sounds/sf2", "/usr/share/soundfonts", "/usr/local/share/soundfonts")


def soundfont() -> Path | None:
    """The first soundfont where systems keep them."""
    found = (path for folder in SOUNDFONTS for path in sorted(Path(folder).glob("*.sf[23]")))
    return next(found, None)


def by_fluidsynth(font: Path, rate: int) -> Callable[[bytes, float], bytes]:
    """A MIDI file's content, seconds -> a WAV file's."""
    import io
    import wave

    def play(midi: bytes, seconds: float) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "a.mid"), Path(folder, "a.wav")
            source.write_bytes(midi)
            command = ["fluidsynth", "-ni", "-q", "-F", str(target), "-r", str(rate), str(font), str(source)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            with wave.open(str(target)) as file:
                head, frames = file.getparams(), file.readframes(int(seconds * rate))
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setparams(head)
            file.writeframes(frames)
        return out.getvalue()

    return play


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("MODALIGN_DATA", "../shared/data")) / "nottingham.parquet"
    parser.add_argument("--table", type=Path, default=default, help=f"default: {default}")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "nottingham-audio.parquet")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each tune, from its beginning")
    parser.add_argument("--rate", type=int, default=16000, help="samples per second")
    parser.add_argument("--soundfont", type=Path, help="an .sf2 or .sf3 file for FluidSynth")
    parser.add_argument("--plain", action="store_true", help="overtones, even where FluidSynth is installed")
    given = parser.parse_args()
    font = given.soundfont or soundfont()
    if given.plain or font is None or shutil.which("fluidsynth") is None:
        print("played by plain overtones")
        reader = Midi()

        def play(midi: bytes, seconds: float) -> bytes:
            return wav(reader.read(midi).notes, seconds, given.rate)
    else:
        print(f"played by FluidSynth with {font.name}")
        play = by_fluidsynth(font, given.rate)
    rows = pq.read_table(given.table).to_pylist()
    for row in rows:
        row["audio"] = {"bytes": play(row["midi"]["bytes"], given.seconds), "path": None}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), given.out)
    print(f"{given.out}: {len(rows)} tunes")


if __name__ == "__main__":
    main()
