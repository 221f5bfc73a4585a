"""What the user can put right, told apart from defects of Crossview."""

from __future__ import annotations

OUT_OF_MEMORY = (
    "the GPU's memory is too small: train with a smaller --compute.micro-batch, embed and evaluate with --device cpu, "
    "or use a larger GPU"
)
NODE_OUT_OF_MEMORY = (
    "a node's memory is too small: end what else runs there, train with a smaller --compute.micro-batch or fewer "
    "--data.decode-actors, or use a node with more memory"
)


class DataWarning(UserWarning):
    """What a user should know of a file that is read all the same; the command line prints it as one line."""


class UserError(ValueError):
    """Input, option or file that Crossview refuses.

    The message names it, its value, the rule and the fix; the command line prints it without a traceback.
    """
