"""Images as arrays: layout, value range, validation, out-of-core storage, shuffling."""
