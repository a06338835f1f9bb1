"""Single Thai characters: how many of the 880 entries are read right on a font never seen, raw and
with look-alikes counted as one.

  make fonts && python benchmarks/thai_characters.py

Trains configs/thai/characters.yaml where it is not finished, adding up its CPU seconds (cpu.py).
Look-alikes are entries whose clean pictures in the held-out font, trimmed and scaled as the network
gets them, differ by less than a twelfth of their ink; chains of such pairs make a group. The groups
are printed, so that a person can say whether they are fair.
"""

import argparse

import numpy as np
from cpu import PROJECT, trained
from PIL import Image, ImageDraw

from ocr.bundle import ENTRIES, open_bundle
from ocr.dataset.read import Dataset
from ocr.evaluation import evaluate
from ocr.files import read_json
from ocr.images import to_ink
from ocr.recognizers.ctc.inputs import as_line
from ocr.recognizers.ctc.reading import network_settings
from ocr.recognizers.ctc.settings import NetworkSettings
from ocr.recognizers.factory import load
from ocr.rendering.font import Font
from ocr.rendering.fonts import find_fonts
from ocr.rendering.scripts import script_named

ALIKE = 1 / 12
SIZE_PX, CANVAS_PX, WIDTH_PX = 64, 260, 128


def picture(font: Font, text: str, network: NetworkSettings) -> np.ndarray:
    """The entry, clean, as the network gets it, [H, W] in a frame of fixed width."""
    canvas = Image.new("L", (CANVAS_PX, 160), 255)
    ImageDraw.Draw(canvas).text((60, 110), text, font=font.at(SIZE_PX), fill=0, anchor="ls")
    pixels = np.asarray(canvas)
    columns = np.flatnonzero((pixels < 128).any(axis=0))
    line = as_line(pixels[:, columns[0] : columns[-1] + 1], network)
    ink = np.clip(to_ink(line)[0], 0, 1)[:, :WIDTH_PX]
    return np.pad(ink, [(0, 0), (0, WIDTH_PX - ink.shape[1])])


def groups_of(entries: list[str], font: Font, network: NetworkSettings) -> list[list[str]]:
    """Groups of two and more entries that look alike."""
    pictures = np.stack([picture(font, entry, network) for entry in entries]).reshape(
        len(entries), -1
    )
    amount = pictures.sum(axis=1)
    parent = list(range(len(entries)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for index in range(len(entries)):
        differences = np.abs(pictures[index + 1 :] - pictures[index]).sum(axis=1) / np.maximum(
            amount[index + 1 :], amount[index]
        )
        for other in np.flatnonzero(differences < ALIKE):
            parent[root(index + 1 + int(other))] = root(index)
    found: dict[int, list[str]] = {}
    for index, entry in enumerate(entries):
        found.setdefault(root(index), []).append(entry)
    return [members for members in found.values() if len(members) > 1]


def main() -> None:
    """Print the groups and both figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    run_dir = trained("configs/thai/characters.yaml", PROJECT / "runs" / "thai-characters")
    bundle = open_bundle(run_dir / "bundle")
    data = Dataset.open(str(bundle.card["data"]), "validation")
    evaluation = evaluate(load(bundle.path), data)
    font = next(
        font
        for font in find_fonts(script_named("Thai"), [data.group(0)["face"]])
        if font.name == data.group(0)["font"]
    )
    groups = groups_of(
        bundle.read(ENTRIES).decode().split("\n"),
        font,
        network_settings(bundle.model, str(bundle.path)),
    )
    group_of = {entry: number for number, members in enumerate(groups) for entry in members}
    right = [line.reading == line.reference for line in evaluation.lines]
    alike = [
        line.reading == line.reference
        or group_of.get(line.reading, -1) == group_of.get(line.reference, -2)
        for line in evaluation.lines
    ]
    print("look-alikes in", font.name + ":", "; ".join(" ".join(members) for members in groups))
    print(
        f"{read_json(run_dir / 'cpu.json')['cpu_seconds'] / 60:.1f} CPU minutes, "
        f"{read_json(run_dir / 'report.json')['samples_seen']:,} images seen"
    )
    print(
        f"{len(right)} images of {len(set(data.texts))} entries: raw {np.mean(right):.1%}, "
        f"look-alikes as one {np.mean(alike):.1%}"
    )
    print(f"the commonest confusions: {evaluation.confusions.most_common(15)}")


if __name__ == "__main__":
    main()
