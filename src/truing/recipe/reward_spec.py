"""The `rewards:` of a stage: `gold`, `$rm`, `{length: {per_token: -0.01}}`, or a list; checked without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truing import registry
from truing.errors import UserError, nearest
from truing.recipe import hints
from truing.recipe.families import is_built_in
from truing.recipe.objective_spec import absolute
from truing.recipe.references import Ref
from truing.recipe.values import check_value, is_set
from truing.recipe.yaml_document import LOST
from truing.schema.option import Option
from truing.yaml_text.reading import Node

if TYPE_CHECKING:
    from truing.recipe.scope import Scope
    from truing.schema.signature import Part

COST, GOLD = "cost", "gold"
WEIGHT = Option("weight", "float", 1.0, doc="what the reward counts for in the sum; below 0 it is avoided")
TIE_TOLERANCE = Option(
    "tie_tolerance",
    "NonNegative",
    0.0,
    doc="of combine: lexicographic: units of reward by which two values count as equal",
)
TIMEOUT_SCORE = Option("timeout_score", "float", None, doc="reward of a response on which the function timed out")
"""Options every reward accepts besides its own: `weight` in the sum, `tie_tolerance` when rewards are lexicographic,
and `timeout_score`, the reward of a response on which it timed out. An option of that name that a function has itself
is the function's."""
BUDGET = (
    Option("budget", "float", None, True, "what the mean of the reward is not to exceed, in its own units"),
    Option("rate", "Positive", 0.05, doc="how fast the cost's weight follows its mean beyond the budget, a round"),
    Option("start", "Positive", 1.0, doc="the cost's weight in the first round"),
)
"""Options that `cost` accepts besides `of`."""


def check_rewards(node: Node, scope: Scope) -> Any:
    """The rewards as a list of {name: options} with options in their own types and references resolved; a cost as
    {cost: {of: {name: options}, ...}}. LOST, with every mistake noted, where one of them is none."""
    items = node.value if isinstance(node.value, list) else [node]
    if not items:
        scope.mistakes.add(node.line, f"{scope.place}rewards is an empty list")
    rewards = [check_one(item, scope) for item in items]
    if rewards and LOST not in rewards and all(COST in reward for reward in rewards):
        scope.mistakes.add(node.line, f"{scope.place}rewards are all costs: name one that is to grow")
    return LOST if LOST in rewards or not rewards else rewards


def check_one(node: Node, scope: Scope) -> Any:
    """One reward in its plain form; LOST with its mistakes noted."""
    name, options = named(node)
    if name is None:
        form = "a reward is a name, $stage, or one name with its options such as {length: {per_token: -0.01}}"
        scope.mistakes.add(node.line, f"{scope.place}{form}, not {node.plain!r}")
        return LOST
    if options.value is not None and not isinstance(options.value, dict):
        scope.mistakes.add(
            node.line,
            f"{scope.place}the options of '{name}' are a mapping such as {{weight: 0.5}}, not {options.plain!r}",
        )
        return LOST
    if name.startswith("$"):
        value = check_value(
            scope.place.removesuffix(": "), Option("rewards", "RewardModel"), Node(name, node.line), scope
        )
        values = checked(f"reward '{name}'", {}, (), options, scope)
        return LOST if LOST in (value, values) else {"reward_model": {"model": value, **values}}
    if name == COST:
        return check_cost(node, options, scope)
    try:
        part = hints.resolve(name, "reward", scope.folder)
    except UserError as problem:
        scope.mistakes.add(node.line, f"{scope.place}{problem}{meant(name, scope)}")
        return LOST
    part_options = {option.name: option for option in part.options}
    values = checked(
        f"reward '{name}'", part_options, part.unread, options, scope, (WEIGHT, TIE_TOLERANCE, TIMEOUT_SCORE)
    )
    if values is not LOST and TIMEOUT_SCORE.name in values and (why := not_asked_apart(part)):
        scope.mistakes.add(
            options.entries[TIMEOUT_SCORE.name].line, f"{scope.place}'timeout_score' is {why}; leave it out"
        )
        return LOST
    lacking = [o.name for o in part.options if o.required and o.name not in options.entries]
    for option in lacking:
        scope.mistakes.add(node.line, f"{scope.place}reward '{name}' needs '{option}'")
    return LOST if values is LOST or lacking else {absolute(name, scope.folder, "reward"): values}


def not_asked_apart(part: Part) -> str:
    """Reason why a reward with the option `timeout_score` cannot run in a process of its own; empty where it can, or
    where the option is the function's own."""
    if part.option(TIMEOUT_SCORE.name) is not None:
        return ""
    if part.scope != "response" or "response" not in part.needs:
        return f"for a function that reads one response at a time ('response'), and '{part.name}' does not"
    if any(option.reference for option in part.options):
        return f"for a function that reads no model, and '{part.name}' does"
    return "not for programs, which have a limit of their own, 'seconds'" if part.name == "program" else ""


def is_reward(node: Node) -> bool:
    """True if a judge is written as a reward: {name: options}, a function of one's own, or the name of a built-in one.
    The world's truth, $stage, folders and lists of them are judges of their own."""
    value = node.value
    if not isinstance(value, str):
        return isinstance(value, dict)
    is_function = ".py:" in value and not value.startswith("$")
    return is_function or (value in registry.parts("reward") and value != GOLD)


def check_one_judging(node: Node, scope: Scope) -> Any:
    """Return the reward that judges, in its plain form; the world's truth and reward models in theirs. LOST, with its
    mistakes noted, where it is none that could judge."""
    name, options = named(node)
    if name == COST:
        scope.mistakes.add(node.line, f"{scope.place}a cost is no judge; give the reward itself")
        return LOST
    mute = [
        key for key in (WEIGHT.name, TIE_TOLERANCE.name) if isinstance(options.value, dict) and key in options.value
    ]
    for key in mute:
        scope.mistakes.add(node.line, f"{scope.place}'{key}' has no effect on a reward that judges alone")
    reward = check_one(node, scope)
    if reward is LOST or mute:
        return LOST
    if GOLD in reward:
        return GOLD
    return reward.get("reward_model", {}).get("model", reward)


def named(node: Node) -> tuple[str | None, Node]:
    """The name of a reward and its options; None where there is no name."""
    if isinstance(node.value, str) and node.value:
        return node.value, Node({}, node.line)
    if isinstance(node.value, dict) and len(node.value) == 1:
        ((name, options),) = node.value.items()
        return str(name), options
    return None, node


def checked(
    place: str,
    part_options: dict[str, Option],
    unread: tuple[str, ...],
    options: Node,
    scope: Scope,
    shared: tuple[Option, ...] = (WEIGHT, TIE_TOLERANCE),
) -> Any:
    """Options of one reward, its own and those it shares, in their own types; LOST where one is a mistake."""
    allowed = {option.name: option for option in shared} | part_options  # of one name the function's own goes first
    values: dict[str, Any] = {}
    good = True
    for key, node in options.entries.items():
        if key not in allowed:
            home = hints.beside_stage(key, "reward", [])
            problem = hints.unknown_option("option", key, allowed.values(), home)
            scope.mistakes.add(node.line, f"{scope.place}{place}: {problem}")
        elif key in unread:
            scope.mistakes.add(node.line, f"{scope.place}{place}: its option '{key}' is never read")
        else:
            value = check_value(f"{scope.place}{place}", allowed[key], node, scope)
            values |= {} if value is LOST else {key: value}
        good = good and key in values
    return values if good else LOST


def check_cost(node: Node, options: Node, scope: Scope) -> Any:
    """A reward whose mean is to stay within a budget."""
    if "of" not in options.entries:
        scope.mistakes.add(
            node.line, f"{scope.place}a cost needs the reward that it is of: {{cost: {{of: $harm, budget: 0.0}}}}"
        )
        return LOST
    inner = check_one(options.entries["of"], scope)
    if inner is not LOST and COST in inner:
        scope.mistakes.add(node.line, f"{scope.place}a cost is of a reward, and not of another cost")
        return LOST
    budget_options = {option.name: option for option in BUDGET}
    rest = Node({key: child for key, child in options.entries.items() if key != "of"}, options.line)
    values = checked(COST, budget_options, (), rest, scope)
    if "budget" not in options.entries:
        scope.mistakes.add(node.line, f"{scope.place}a cost needs its budget, which its mean is not to exceed")
        return LOST
    return LOST if LOST in (inner, values) else {COST: {"of": inner, **values}}


def meant(name: str, scope: Scope) -> str:
    """The reward model that a word without $ most likely meant, as a question."""
    hint = nearest(f"${name}", scope.fitting(Option("rewards", "RewardModel")))
    return f". Did you mean '{hint}'?" if hint else ""


def check_use(options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Note rewards of a stage that do not fit each other or its prompts: the world's truth knows the world's prompts
    alone, and lexicographic rewards have an order instead of weights."""
    terms = options.get("rewards")
    if terms is None:
        return
    line, names = nodes["rewards"].line, [next(iter(term)) for term in terms]
    if options.get("combine") == "lexicographic" and COST in names:
        scope.mistakes.add(line, f"{scope.place}a cost is for sums; leave out 'combine: lexicographic', or the cost")
    if options.get("combine") != "lexicographic" and any("tie_tolerance" in options_of(term) for term in terms):
        scope.mistakes.add(line, f"{scope.place}'tie_tolerance' has no effect without 'combine: lexicographic'")
    prompts = options.get("prompts", options.get("data"))
    origin = scope.origin(prompts) if prompts is not None else None
    used = {next(iter(term["of"] if (term := reward.get(COST)) else reward)) for reward in terms}
    if "gold" in used and isinstance(origin, str) and not origin.startswith("world:"):
        scope.mistakes.add(
            line,
            f"{scope.place}the reward is gold, which knows the truth of prompts of the world only, and these come from "
            f"'{origin}'; give a reward model, or a verifier",
        )


def check_judged(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Note options of a stage that judges responses which do not fit each other: `passing` goes with `keep: passing`,
    the options about calling rewards with rewards; a cost needs the rounds of a stage that learns; a score has to come
    from somewhere."""
    if part.option("keep") is None:
        return
    wants, has = options.get("keep") == "passing", options.get("passing") is not None
    if wants != has and not (wants and "passing" in nodes):
        line = nodes["keep" if wants else "passing"].line
        scope.mistakes.add(line, f"{scope.place}'keep: passing' and the score to reach ('passing: 1.0') go together")
    scored = is_set(options, nodes, "rewards")
    for option in ("combine", "on_error", "time_limit") if not scored else ():
        if option in options:
            scope.mistakes.add(nodes[option].line, f"{scope.place}'{option}' has no effect without 'rewards'")
    if any(COST in term for term in options.get("rewards") or ()):
        problem = (
            "a cost is for rounds that follow each other, and this stage has none; give the reward a negative weight"
        )
        scope.mistakes.add(nodes["rewards"].line, f"{scope.place}{problem}")
    data = options.get("data")
    made = scope.done.get(data.stage) if isinstance(data, Ref) else None
    if not scored and made is not None and is_built_in(made) and made.name == "sample":
        line = nodes["data"].line
        scope.mistakes.add(
            line, f"{scope.place}the responses of {data} have no scores; name what scores them under 'rewards'"
        )


def options_of(term: dict[str, Any]) -> dict[str, Any]:
    """The options of a reward in its plain form."""
    return dict(next(iter(term.values())))
