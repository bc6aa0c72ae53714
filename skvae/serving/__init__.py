"""What a fitted ConvVAE computes, by ONNX Runtime and numpy, without TensorFlow."""
