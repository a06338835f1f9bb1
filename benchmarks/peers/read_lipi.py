"""Our own reading, from files, with one backend of a bundle; options: bundle, backend."""

import time
from pathlib import Path

from meter import Request, Result

from ocr.file_reading import read_files
from ocr.recognizers.factory import load
from ocr.sample import Reading

LEAST_SECONDS = 5.0  # the list is read again until it took so long


def measure(request: Request) -> Result:
    """Read the validation images, opening them included, loading the bundle and one image apart."""
    files = sorted(Path(request.data, "validation").glob("*.png"))[: request.judged]
    recognizer = load(Path(request.options["bundle"]), request.options["backend"])
    list(read_files(recognizer, files[:1]))
    began, passes, seconds = time.process_time(), 0, 0.0
    while seconds < LEAST_SECONDS:
        readings = [
            reading.text if isinstance(reading, Reading) else ""
            for _, reading in read_files(recognizer, files)
        ]
        passes, seconds = passes + 1, time.process_time() - began
    return Result(passes * len(files) / seconds, seconds, readings)
