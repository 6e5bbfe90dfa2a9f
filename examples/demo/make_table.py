"""Builds the demo's table: a digit's picture, its names, and somebody saying it.

python examples/demo/make_table.py [OUT.parquet]        # default: digits.parquet beside this file

Pairing is by class. Pictures are scikit-learn's bundled digits; no picture, clip or voice is in two splits.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from digits import ACCENTS, VOICES, names
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def clips(split: str) -> list[list[dict]]:
    """For each digit, every clip of the split: voice, path and WAV bytes."""
    found: list[list[dict]] = [[] for _ in range(10)]
    for accent in ACCENTS:
        for voice in VOICES[split]:
            track, rate = soundfile.read(HERE / "speech" / accent / f"{voice}.ogg", dtype="float32")
            for digit in range(10):
                wave = trim(track[digit * rate : (digit + 1) * rate], rate)
                buffer = io.BytesIO()
                soundfile.write(buffer, wave, rate, format="WAV", subtype="PCM_16")
                path = f"{accent}/{voice}/{digit}.wav"
                found[digit].append({"voice": f"{accent}+{voice}", "path": path, "bytes": buffer.getvalue()})
    return found


def trim(wave: np.ndarray, rate: int) -> np.ndarray:
    """Without the silence around the word, but for 20 ms."""
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    return wave[max(0, loud[0] - rate // 50) : loud[-1] + rate // 50]


def png(pixels: np.ndarray) -> bytes:
    """8 x 8 pixels of 0 to 16 as a grey PNG of 0 to 255."""
    buffer = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def rows(seed: int = 0) -> list[dict]:
    """One row per picture: 70 % train, 10 % val, 20 % test of every digit."""
    rng = np.random.default_rng(seed)
    pictures, labels = load_digits(return_X_y=True)
    spoken = {split: clips(split) for split in VOICES}
    made = []
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(labels == digit))
        train, val = int(0.7 * len(members)), int(0.8 * len(members))
        for split, part in zip(("train", "val", "test"), np.split(members, [train, val]), strict=True):
            voiced = spoken[split][digit]
            turns = [
                voiced[i] for _ in range(-(-len(part) // len(voiced))) for i in rng.permutation(len(voiced))
            ]
            for index, clip in zip(part.tolist(), turns, strict=False):
                made.append(
                    {
                        "image": {"bytes": png(pictures[index].reshape(8, 8)), "path": f"{index}.png"},
                        "text": names(digit),
                        "audio": {"bytes": clip["bytes"], "path": clip["path"]},
                        "label": digit,
                        "voice": clip["voice"],
                        "split": split,
                    }
                )
    return [made[i] for i in rng.permutation(len(made))]


def main(out: Path) -> None:
    schema = pa.schema(
        [
            ("image", MEDIA),
            ("text", pa.list_(pa.string())),
            ("audio", MEDIA),
            ("label", pa.int64()),
            ("voice", pa.string()),
            ("split", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows(), schema=schema)
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out, compression="zstd")
    print(f"{out}: {table.num_rows} rows", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "digits.parquet")
