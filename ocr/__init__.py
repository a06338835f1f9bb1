"""Samples, text, images, metrics, data sets and recognisers: OCR without training and serving."""

from ocr.recognizers import load as load
