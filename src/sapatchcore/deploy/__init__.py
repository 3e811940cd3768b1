"""The model for other machines: ``export`` writes it as one ONNX file, ``runtime`` scores images with such a file."""
