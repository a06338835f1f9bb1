"""Read images with a bundle: print the text of one image, or `path TAB text` for each of several.

python ray_jobs/read.py runs/odia-ctc/bundle word.png scans/
python ray_jobs/read.py odia word.png                         # a recogniser that ships
python ray_jobs/read.py runs/a/bundle,runs/b/bundle scans/    # both: the more confident text
"""

import sys
from argparse import Namespace
from pathlib import Path

from ray_jobs import command


def main(arguments: Namespace) -> int:
    """Read every image; return 2 where one was refused, each named."""
    from ocr.file_reading import DOUBTFUL, read_files, unread_in
    from ocr.recognizers.factory import load_all

    refused, doubtful = 0, list[tuple[float, Path]]()
    alone = len(arguments.images) == 1 and arguments.images[0].is_file()
    for path, reading in read_files(load_all(arguments.bundle), arguments.images):
        if isinstance(reading, Exception):
            refused += 1
            print(f"error: {reading}", file=sys.stderr)
        else:
            print(reading.text if alone else f"{path}\t{reading.text}")
            if reading.confidence < DOUBTFUL:
                doubtful.append((reading.confidence, path))
    for warning in unread_in(arguments.images):
        print(warning, file=sys.stderr)
    if doubtful:
        confidence, path = min(doubtful)
        print(
            f"warning: {len(doubtful)} of the texts hardly right (confidence under {DOUBTFUL:g}; "
            f"least {confidence:.2f}: {path}); an image of handwriting, another script, no text, "
            "or more than one line?",
            file=sys.stderr,
        )
    return 2 if refused else 0


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        bundle={"metavar": "BUNDLE[,BUNDLE…]|odia"},
        images={"type": Path, "nargs": "+", "metavar": "IMAGE"},
    )
