"""What is true about OCR whether or not anyone trains: samples, text, images, metrics, data sets, recognisers."""
