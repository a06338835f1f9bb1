"""Samples, text, images, metrics, data sets and recognisers: OCR without training and serving."""
