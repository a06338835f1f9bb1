"""Read images, PDF and folders with a bundle: print the text, or write files.

python ray_jobs/read.py odia word.png scans/                           # text, on standard output
python ray_jobs/read.py odia letter.pdf format=pdf output=searchable/  # or alto, page, hocr, tsv …
python ray_jobs/read.py runs/a/bundle,runs/b/bundle scans/             # both: the surer text

docs/reading.md has the commands by what you have; --settings lists what can be set.
"""

from argparse import Namespace

from ocr.reading.config import ReadConfig
from ocr.settings import settings_from
from ray_jobs import command


def main(arguments: Namespace) -> int:
    """Read every file; return 2 where one was refused, each named."""
    words, overrides = command.split_inputs(arguments.inputs, ReadConfig)
    config = settings_from(ReadConfig, {}, overrides, "read.py")
    from ocr.reading.command import read_and_print, read_and_write

    if config.output is None:
        return read_and_print(arguments.bundle, words, config)
    return read_and_write(arguments.bundle, words, config)


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        ReadConfig,
        bundle={"metavar": "BUNDLE[,BUNDLE…]|odia"},
        inputs={"nargs": "+", "metavar": "INPUT|key=value"},
    )
