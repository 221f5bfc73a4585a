"""The four actions: what hands and objects do at each phase and progress; each is drawn for a right-handed subject.

First and last phases mirror each other (the hand travels with a tool), and every action starts from left-overs of
earlier rounds, so that a single frame does not distinguish them.
"""

from __future__ import annotations

from .crack_egg import CrackEgg
from .pour_milk import PourMilk
from .stir_and_serve import StirAndServe
from .strike_peg import StrikePeg

ACTIONS: dict[str, type[CrackEgg] | type[PourMilk] | type[StirAndServe] | type[StrikePeg]] = {
    "crack_egg": CrackEgg,
    "pour_milk": PourMilk,
    "stir_and_serve": StirAndServe,
    "strike_peg": StrikePeg,
}
