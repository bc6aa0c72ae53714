"""Fitting: compiled networks, the training loop, early stopping, callbacks."""
