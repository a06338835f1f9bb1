"""Everything about OCR that holds without training: samples, text, images, metrics, data, recognisers."""
