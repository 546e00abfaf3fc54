"""One stage of a recipe, checked against the signature it names, and the references in its options resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truing import registry
from truing.data.formats import column_hints
from truing.data.formats.conventions import ROLES
from truing.errors import UserError
from truing.policy.files import adapter_files
from truing.recipe import hints, sources
from truing.recipe.constraints import check_together
from truing.recipe.families import is_built_in, origins
from truing.recipe.objective_spec import check_objective, heads_named, names_of, weights_of
from truing.recipe.references import StageSpec
from truing.recipe.reward_spec import check_judged, check_one_judging, check_rewards, check_use, is_reward
from truing.recipe.scope import Scope
from truing.recipe.values import check_value
from truing.recipe.yaml_document import COMMAND_LINE, LOST, Mistakes, loses
from truing.schema.option import Option
from truing.schema.signature import Part, group_options
from truing.settings import Lora, Training
from truing.yaml_text.reading import Node


def check_stage(name: str, node: Node, scope: Scope, written: str = "") -> StageSpec:
    """Check one stage and return it with its options in their own types; every mistake is noted in the scope. `written`
    is its name in the recipe's text, where that differs."""
    mistakes, place = scope.mistakes, written or name
    scope.done[name], scope.options[name], scope.place = None, {}, f"stage '{place}': "
    if not isinstance(node.value, dict):
        mistakes.add(node.line, f"stage '{place}' is a mapping such as {{do: sft, ...}}, not {node.plain!r}")
        return StageSpec(name, "", {}, node.line)
    do = node.value.get("do")
    part = None
    if do is None:
        mistakes.add(
            node.line, f"stage '{place}' does not say what to do. Known: {', '.join(sorted(registry.parts('stage')))}"
        )
    elif not isinstance(do.value, str):
        mistakes.add(do.line, f"stage '{place}': 'do' is the name of a stage, not {do.plain!r}")
    else:
        try:
            part = hints.resolve(do.value, "stage", scope.folder)
        except UserError as problem:
            mistakes.add(do.line, f"stage '{place}': {problem}")
    nodes = scope.fill(Node({key: child for key, child in node.value.items() if key != "do"}, node.line)).entries
    scope.done.pop(name)  # it does not refer to itself
    options = {} if part is None else check_options(place, part, nodes, node.line, scope)
    scope.done[name], scope.options[name] = part, options
    return StageSpec(name, do.value if do and isinstance(do.value, str) else "", options, node.line)


def check_options(name: str, part: Part, nodes: dict[str, Node], line: int, scope: Scope) -> dict[str, Any]:
    """Return the options of one stage in their own types."""
    options = {}
    for key, node in nodes.items():
        option = part.option(key)
        if option is None:
            objective = nodes["objective"].plain if "objective" in nodes else None
            home = hints.beside_objective(key, node.plain, part, objective)
            scope.mistakes.add(
                node.line, f"stage '{name}' ({part.name}): {hints.unknown_option('option', key, part.options, home)}"
            )
        elif key in part.unread:
            scope.mistakes.add(node.line, f"stage '{name}' ({part.name}): its option '{key}' is never read")
        else:
            value = LOST if loses(node) else check_option(f"stage '{name}'", part, option, node, scope)
            if value is not LOST:
                options[key] = value
    for option in part.options:
        if option.required and option.name not in nodes:
            scope.mistakes.add(line, f"stage '{name}' ({part.name}) needs '{option.name}'")
    names = {option.name for option in part.options}
    if names >= TRAINING:
        check_pairs(name, options, nodes, scope.mistakes)
    if names >= LORA:
        check_lora(name, options, nodes, scope.mistakes)
    if is_built_in(part):  # a user's own stage inherits no rule of truing's
        check_use(options, nodes, scope)
        check_columns(options, nodes, scope)
        check_gold(part, options, nodes, scope)
        check_judged(part, options, nodes, scope)
        check_judge(part, options, nodes, scope)
        check_weights(part, options, nodes, scope)
        check_reference(part, options, nodes, scope)
        check_together(part, options, nodes, line, scope)
    return options


TRAINING, LORA = ({option.name for option in group_options(group, {})} for group in (Training, Lora))
"""The options' names of two groups, whose rules hold wherever a stage takes the group."""


def check_option(place: str, part: Part, option: Option, node: Node, scope: Scope) -> Any:
    """Return one option's value: references resolved, in its own type, names of the world and files looked up."""
    if "ObjectiveSpec" in option.words and node.value is not None and node.value is not LOST:
        return check_objective(part, node, scope.folder, scope.mistakes)
    if "RewardSpec" in option.words and option.reference and not is_reward(node):  # models, or one reward
        return check_value(place, option.without("RewardSpec"), node, scope)
    if "RewardSpec" in option.words and node.value is not None and node.value is not LOST:
        return check_one_judging(node, scope) if option.reference else check_rewards(node, scope)
    return check_value(place, option, node, scope)


def check_pairs(name: str, options: dict[str, Any], nodes: dict[str, Node], mistakes: Mistakes) -> None:
    """Refuse two options of which only one may be set (`Training.EITHER`); the command line's replaces the file's."""
    for pair in Training.EITHER:
        both = [option for option in pair if options.get(option) is not None]
        if len(both) < 2:
            continue
        file = [option for option in both if nodes[option].line != COMMAND_LINE]
        if len(file) == 1:
            del options[file[0]]
        else:
            line = max(nodes[option].line for option in both)
            mistakes.add(line, f"stage '{name}': give {pair[0]} or {pair[1]}, not both")


def check_lora(name: str, options: dict[str, Any], nodes: dict[str, Node], mistakes: Mistakes) -> None:
    """Refuse an option of an adapter that has no effect because there is no adapter, and merging what cannot be."""
    needed, others = Lora.NEEDS
    for option in others:
        if options.get(option) is not None and options.get(needed) is None:
            mistakes.add(nodes[option].line, f"stage '{name}': '{option}' has no effect without '{needed}'")
    model = options.get("model")
    if options.get("lora_merge") and isinstance(model, str) and not sources.adapter_trouble(model):
        trouble = adapter_files.unmergeable(Path(model)) if adapter_files.is_adapter(Path(model)) else ""
        if trouble:
            mistakes.add(nodes["lora_merge"].line, f"stage '{name}': {trouble}")


def check_columns(options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Check `columns`, which names the columns of a file: for roles that exist, and where a file (or Hub name) is read.
    A column that is null is not read, whatever its name."""
    read = "data" if "data" in nodes else "prompts"
    columns, data = options.get("columns"), options.get(read)
    if columns is None:
        return
    for role, name in columns.items():
        if name is None:
            continue
        if role not in ROLES:
            scope.mistakes.add(nodes["columns"].line, f"{scope.place}columns: {column_hints.unknown_role(role, name)}")
        elif not isinstance(name, str):
            scope.mistakes.add(
                nodes["columns"].line, f"{scope.place}columns: '{role}' is a column's name, not {name!r}"
            )
    lost = read in nodes and data is None
    if not lost and (not isinstance(data, str) or data.startswith("world:")):
        scope.mistakes.add(
            nodes["columns"].line,
            f"{scope.place}columns names the columns of a file, and {read} is {data or 'not set'}; "
            "set it where the file is read",
        )


def check_judge(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Check that `aggregate` is set for an ensemble of reward models alone (of `reward`, where a stage has one beside
    its judge), `coefficient` for `uncertainty` alone, and that the best of several responses is one to a prompt, by a
    reward model."""
    whose = "reward" if part.option("reward") else "judge"
    judge = options.get(whose, "" if whose in nodes else "gold")
    name = next(iter(judge)) if isinstance(judge, dict) else judge
    if options.get("aggregate") is not None and (name == "gold" or isinstance(judge, dict)):
        scope.mistakes.add(
            nodes["aggregate"].line,
            f"{scope.place}aggregate is for an ensemble, and {whose} is {name}; "
            f"give reward models, as {whose}: [$one, $two]",
        )
    if options.get("coefficient") is not None and options.get("aggregate") != "uncertainty":
        scope.mistakes.add(
            nodes["coefficient"].line, f"{scope.place}'coefficient' has no effect without 'aggregate: uncertainty'"
        )
    best = [name for name in ("best_of", "best_by") if name in nodes]
    lacking = [name for name in ("best_of", "best_by", "prompts") if name not in nodes]
    if best and lacking:
        scope.mistakes.add(nodes[best[0]].line, f"{scope.place}'{best[0]}' has no effect without '{lacking[0]}'")


def check_weights(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Check that `head_weights` gives every head that the objective names a number, and no other."""
    weights, objective = options.get("head_weights"), part.option("objective")
    if weights is None or objective is None or ("objective" in nodes and options.get("objective") is None):
        return
    try:
        weights_of(heads_named(options.get("objective", objective.default)), weights)
    except UserError as problem:
        scope.mistakes.add(nodes["head_weights"].line, f"{scope.place}{problem}")


def check_reference(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Check that `reference` is set only for an objective that reads a reference's log-probabilities."""
    option = part.option("objective")
    if options.get("reference") is None or option is None:
        return
    objective = options.get("objective", None if "objective" in nodes else option.default)
    if None in (objective if isinstance(objective, list) else [objective]):  # a mistake already noted
        return
    terms = names_of(objective)
    if not any("reference" in origins(registry.resolve(name, "objective", scope.folder)) for name in terms):
        scope.mistakes.add(
            nodes["reference"].line,
            f"{scope.place}'reference' has no effect on {' + '.join(terms)}, which reads none; leave it out",
        )


def check_gold(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Check that `gold`, the world's truth, judges responses to prompts of the world only."""
    judge, prompts = part.option("judge"), options.get("prompts")
    if judge is None or prompts is None:
        return
    origin = scope.origin(prompts)
    if not isinstance(origin, str) or origin.startswith("world:"):
        return
    named = {
        "judge": options.get("judge", "" if "judge" in nodes else judge.default),
        "trusted": options.get("trusted"),
    }
    for option in (name for name, value in named.items() if value == "gold"):
        scope.mistakes.add(
            nodes.get(option, nodes["prompts"]).line,
            f"{scope.place}{option} is gold, which knows the truth of prompts of the world only, and these come from "
            f"'{origin}'; fit a reward model and give it as judge",
        )
