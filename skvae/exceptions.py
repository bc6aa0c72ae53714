"""Warnings of skvae's own."""


class PosteriorCollapseWarning(UserWarning):
    """Training has left all or most latent dimensions without use."""
