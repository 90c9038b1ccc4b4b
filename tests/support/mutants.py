"""The mutants of a module's source, and how one takes the module's place in a running process."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import parso
from cosmic_ray.operators.provider import OperatorProvider

_COMPARISONS = (
    "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "LtE_Gt", "Gt_LtE", "GtE_Lt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot",
    "IsNot_Is",
)  # fmt: skip
_BINARY = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "BitOr_BitAnd", "BitAnd_BitOr")
OPERATORS = (
    *(f"ReplaceComparisonOperator_{name}" for name in _COMPARISONS),
    *(f"ReplaceBinaryOperator_{name}" for name in _BINARY),
    *(f"ReplaceUnaryOperator_Delete_{name}" for name in ("USub", "Not")),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer"),
    "ZeroIterationForLoop",
)


@dataclass(frozen=True)
class Mutant:
    """One change of a module's source."""

    operator: str
    line: int
    was: str
    now: str
    source: str = field(repr=False)


def eligible(node: Any) -> Iterator[Any]:
    """The nodes under *node* that may be mutated."""
    if node.type in ("import_name", "import_from", "decorator", "decorators", "tfpdef"):
        return
    yield node
    children: Sequence[Any] = getattr(node, "children", ())
    for before, child in zip((None, *children), children, strict=False):
        is_annotation = getattr(before, "value", None) == "->" or (node.type == "annassign" and child is children[1])
        is_mark = node.type == "parameters" and child.type == "operator"
        if not (is_annotation or is_mark):
            yield from eligible(child)


def mutants(source: str, function: str | None) -> Iterator[Mutant]:
    """Every mutant of *source* that parses, or of one *function* of it."""
    provider = OperatorProvider()
    spans = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    first, last = (spans[function].lineno, spans[function].end_lineno or 0) if function else (1, sys.maxsize)
    lines = source.splitlines()
    for name in OPERATORS:
        operator = provider[name]()
        for number, node in enumerate(eligible(parso.parse(source))):
            for index, ((line, _), _) in enumerate(operator.mutation_positions(node)):
                if not first <= line <= last:
                    continue
                tree = parso.parse(source)
                target = next(itertools.islice(eligible(tree), number, None))
                siblings = target.parent.children
                place = siblings.index(target)
                siblings[place] = operator.mutate(target, index)
                text = tree.get_code()
                with suppress(SyntaxError):
                    ast.parse(text)
                    changed = [pair for pair in zip(lines, text.splitlines(), strict=False) if pair[0] != pair[1]]
                    if changed:
                        was, now = (" ".join(each.split()) for each in changed[0])
                        yield Mutant(name, line, was, now, text)


def transplant(module: ModuleType, source: str, only: str | None) -> None:
    """Give the functions, methods and constants of *module* the code that *source* has for them, in place."""
    fresh = ModuleType(module.__name__)
    fresh.__file__, fresh.__package__ = module.__file__, module.__package__
    exec(compile(source, str(module.__file__), "exec", dont_inherit=True), vars(fresh))  # noqa: S102 our own source
    own = {vars(fresh)[name]: old for name, old in vars(module).items() if _is_own_class(module, old)}
    for name, new in list(vars(fresh).items()):
        old = vars(module).get(name)
        if name.startswith("__") or new is old or (only is not None and name != only):
            continue
        if isinstance(new, FunctionType):
            _graft(old, new, own)
        elif new in own if isinstance(new, type) else False:
            for attribute, value in list(vars(new).items()):
                _graft(vars(old).get(attribute), value, own)
        elif new != old:
            for holder in list(sys.modules.values()):
                if holder is module or vars(holder).get(name) is old:
                    setattr(holder, name, new)


def _is_own_class(module: ModuleType, value: object) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _graft(old: Any, new: Any, own: dict[Any, Any]) -> None:
    """Have the function *old*, or the one it wraps, do what *new* does. Defaults of new classes become old ones."""
    if isinstance(new, property):
        _graft(old.fget, new.fget, own)
    elif isinstance(new, classmethod | staticmethod):
        _graft(old.__func__, new.__func__, own)
    elif isinstance(new, FunctionType) and isinstance(old, FunctionType):
        for value in (*(new.__defaults__ or ()), *(new.__kwdefaults__ or {}).values()):
            if type(value) in own:
                object.__setattr__(value, "__class__", own[type(value)])
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
        if "__wrapped__" in vars(new):
            _graft(vars(old)["__wrapped__"], vars(new)["__wrapped__"], own)
