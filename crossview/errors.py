"""What the user can put right, told apart from defects of Crossview."""

from __future__ import annotations


class UserError(ValueError):
    """Input, option or file that Crossview refuses.

    The message names it, its value, the rule and the fix; the command line prints it without a traceback.
    """
