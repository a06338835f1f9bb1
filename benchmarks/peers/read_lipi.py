"""Our own reading, from files, with one backend of a bundle; options: bundle, backend."""

import time
from pathlib import Path

from meter import Request, Result

from ocr.reading.config import ReadConfig
from ocr.reading.inputs import Input
from ocr.reading.run import Read, read_each
from ocr.recognizers.factory import load

LEAST_SECONDS = 5.0  # the list is read again until it took so long


def measure(request: Request) -> Result:
    """Read the validation images, opening them included, loading the bundle and one image apart."""
    paths = sorted(Path(request.data, "validation").glob("*.png"))[: request.judged]
    files, config = [Input(str(path), path.stem) for path in paths], ReadConfig(level="line")
    recognizer = load(Path(request.options["bundle"]), request.options["backend"])
    list(read_each(recognizer, files[:1], config))
    began, passes, seconds = time.process_time(), 0, 0.0
    while seconds < LEAST_SECONDS:
        readings = [
            read.document.text if isinstance(read, Read) else ""
            for read in read_each(recognizer, files, config)
        ]
        passes, seconds = passes + 1, time.process_time() - began
    return Result(passes * len(files) / seconds, seconds, readings)
