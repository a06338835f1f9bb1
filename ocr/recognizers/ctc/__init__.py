"""The CTC family: a convolutional network, one class per code point, a blank between."""
