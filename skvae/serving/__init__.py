"""Inference of a fitted ConvVAE by ONNX Runtime and numpy, without TensorFlow."""
