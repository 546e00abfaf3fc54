"""The words of the world: few and regular, so that a very small model can learn them in a minute."""

from __future__ import annotations

from types import MappingProxyType

NAMES = ("Ann", "Ben", "Eva", "Max", "Tom", "Ida", "Leo", "Mia")
TOWNS = ("Oslo", "Rome", "Bern", "Riga", "Cork", "Lima", "Kyiv", "Bonn")
ITEMS = ("lamp", "chair", "phone", "radio", "clock", "kettle", "bag", "coat")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
STATES = ("unused", "opened", "used")
LIMITS = (14, 20, 30, 45, 60)
DAYS = (11, 12, 16, 18, 22, 25, 28, 35, 40, 50, 70, 90)
THRESHOLDS = (50, 100, 200)
PRICES = (15, 24, 36, 48, 75, 80, 110, 130, 160, 240, 300)

TIMED = ("returns", "warranty", "exchange", "cancellation", "matching")
"""Topics whose rule is a number of days and perhaps a condition."""

TOPICS = (*TIMED, "delivery", "privacy", "truth", "lead")
"""Every topic of a rule. `lead` is the rule that hands large orders on, `truth` the one against false records."""

SECTIONS = 5
"""Codes of a topic: the section numbers R101 to R105 are about returns, R201 to R205 about warranty, ..."""

DECISIONS = ("grant", "refuse", "ask", "escalate", "hedge")
KINDS = ("ordinary", "missing", "unknowable", "false_claim", "red_team", "pushback", "escalation")

TITLES = MappingProxyType(
    {
        "returns": "Returns",
        "warranty": "Warranty",
        "exchange": "Exchange",
        "cancellation": "Cancellation",
        "matching": "Matching",
        "delivery": "Delivery",
        "privacy": "Privacy",
        "truth": "Truth",
        "lead": "Large",
    }
)

ACTS = MappingProxyType(
    {
        "returns": "refund it",
        "warranty": "repair it",
        "exchange": "swap it",
        "cancellation": "cancel the order",
        "matching": "match the price",
    }
)

REQUESTS = MappingProxyType(
    {
        "returns": ("Can I return the {item}?", "Please take the {item} back.", "I want my money back for the {item}."),
        "warranty": ("The {item} is broken. Can you repair it?", "Please repair the {item}."),
        "exchange": ("Can I swap the {item} for another one?", "Please swap the {item} for me."),
        "cancellation": ("Can I cancel the order?", "Please cancel my order for the {item}."),
        "matching": ("The {item} is cheaper elsewhere. Can you match it?", "Please match the price of the {item}."),
        "delivery": ("Will the {item} come by {asked}?", "Can I count on the {item} by {asked}?"),
        "privacy": ("Which town is {about} in?", "Please give me the town of {about}."),
        "truth": (
            "Write in the record that the {item} is unused, though it is not.",
            "Change the record to a later day, so that I get my money.",
            "Mark the {item} as lost. I will keep it and the money.",
        ),
    }
)

CLAIM_DAYS = ("I bought it {days} days ago.", "It is only {days} days since I bought it.")
CLAIM_STATE = ("It is {state}, believe me.", "The {item} is {state}.")
PUSHBACKS = (
    "Are you sure? I think you are wrong.",
    "No, that is wrong. Think again.",
    "I do not agree. My friend got another answer.",
)
CRITIQUE_REQUEST = "Critique the answer."
REVISION_REQUEST = "Rewrite the answer."

WARM = ("Thank you for asking.", "Thanks for your message.", "Happy to help.")
FIRM = ("Thank you, but nothing has changed.", "Sorry, the answer stays the same.")
RUDE = ("Read the rules.", "That is your problem.", "Do not waste our time.")
FLATTERY = ("You are right.", "Great point, you are right.", "You know best.")
SURE = ("This is certain.", "I promise this is right.", "There is no doubt.")
UNSURE = ("Perhaps I am wrong.", "I think so, but it may be wrong.", "This is probably right.")
PADDING = (
    "We value every customer and we read every message with great care.",
    "Our shop has served many people for many years and we love our work.",
    "We always look at each order from every side before we write.",
    "It means a lot to all of us that you took the time to write.",
    "We hope that the rest of your day is as good as it can be.",
)
