"""Read images with a bundle: prints the text of one image, or `path TAB text` for each of several and of every folder.

python ray_jobs/read.py runs/odia-ctc/bundle word.png scans/
"""

import sys
from argparse import Namespace
from pathlib import Path

from ray_jobs import command


def main(arguments: Namespace) -> int:
    """Read what can be read; 2 where an image was refused, each named."""
    from ocr.evaluation import read_files
    from ocr.recognizers.base import load

    refused = 0
    alone = len(arguments.images) == 1 and arguments.images[0].is_file()
    for path, reading in read_files(load(arguments.bundle), arguments.images):
        if isinstance(reading, Exception):
            refused += 1
            print(f"error: {reading}", file=sys.stderr)
        else:
            print(reading.text if alone else f"{path}\t{reading.text}")
    return 2 if refused else 0


if __name__ == "__main__":
    command.run(main, __doc__, bundle={"type": Path, "metavar": "BUNDLE"}, images={"type": Path, "nargs": "+", "metavar": "IMAGE"})
