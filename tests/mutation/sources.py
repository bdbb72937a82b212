"""Mutants in the source: one node of one function's syntax tree is changed, and the function's code exchanged for it.

A function keeps its identity when its `__code__` is replaced, so that a mutant is met wherever the function was
imported to. Left alone are docstrings, annotations, what an error says, and the conditions that only lead to an error:
whether a wrong call is refused is the matter of `test_errors.py`, not of the gradients.
"""

from __future__ import annotations
import __future__

import ast
import copy
import functools
import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tinygen.autograd import graph, modes, op
from tinygen.autograd.op import Op
from tinygen.kernels import reference
from tinygen.kernels.cpu import optimisers
from tinygen.kernels.fusion import group, lower, trace

OPS = tuple(
    importlib.import_module(f"tinygen.autograd.ops.{name}")
    for name in (
        "activations arranging elementwise fused indexing linalg reductions shapes softmax transcendental"
    ).split()
)

# Of the engine: what a gradient passes through. Watching for anomalies and naming the op in an error is left out.
ENGINE: dict[ModuleType, list[str]] = {
    op: (
        "Op.keep Op.kept Op.apply Op._remember_versions Op._version_of_view Op.cotangents Op.fitted Op.free "
        "Op._on_arrays ByFormula.backward _alias _prepared _shares_memory"
    ).split(),
    graph: "Node.enter_graph Node.free ancestry walk _seed _as_tuple _as_tensor _needs_copy grad backward".split(),
    modes: (
        "Mode.__enter__ Mode.__exit__ Mode.__call__ grad_enabled on_arrays set_grad_enabled no_grad"
    ).split(),
    optimisers: ["sgd_step", "rmsprop_step", "adam_step", "sum_of_squares"],
    # Of compiled functions: what is recorded, what it means, and what is fused.
    trace: ["Trace.lift", "Trace.record", "Trace.overwrite"],
    lower: (
        "Lowered.view Lowered.constant Lowered.add Lowered.add_other Lowered.add_scattered Lowered.add_pointwise "
        "Lowered.add_copy Lowered.add_reduction Lowered.add_product Lowered.add_small_product live"
    ).split(),
    group: ["LoopNest.divided", "grouped", "nest_of", "fused", "_statement", "_access"],
}


class Function(NamedTuple):
    """A function of the package, and where in the source it stands."""

    name: str  # module.Class.method
    row: str  # where the table counts it: an op class, a kernel, a function
    function: Callable
    tree: ast.FunctionDef
    within: str | None  # the class around it
    path: str


def _underlying(member: object) -> Callable:
    if isinstance(member, property):
        member = member.fget
    return inspect.unwrap(getattr(member, "__func__", member))


def _wanted(module: ModuleType, qualname: str, owner: object) -> bool:
    if module in ENGINE:
        return qualname in ENGINE[module]
    if module is reference:
        return qualname in vars(reference) and not qualname.startswith(("_check", "_pointwise"))
    # Of a module of ops: the classes of ops, and the functions but for references and cases of specifications.
    if isinstance(owner, type):
        return issubclass(owner, Op)
    annotations = set(getattr(owner, "__annotations__", {}).values())
    return "Tensor" in " ".join(map(str, annotations)) and qualname != "as_tensor"


@functools.cache
def functions() -> tuple[Function, ...]:
    """Every function that mutants are planted in."""
    found = []
    for module in (*OPS, reference, *ENGINE):
        path = Path(module.__file__)
        short = module.__name__.removeprefix("tinygen.").removeprefix("autograd.")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            owner = vars(module).get(getattr(node, "name", ""))
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            for tree in inside:
                if not isinstance(tree, ast.FunctionDef):
                    continue
                cls = node.name if isinstance(node, ast.ClassDef) else None
                qualname = f"{cls}.{tree.name}" if cls else tree.name
                if not _wanted(module, qualname, owner):
                    continue
                function = _underlying(vars(owner)[tree.name] if cls else owner)
                row = f"numpy {qualname}" if module is reference else cls or f"{short}.{qualname}"
                row = f"{short}.{qualname}" if module in ENGINE else row
                name = f"{short}.{qualname}"
                found.append(Function(name, row, function, tree, cls, str(path)))
    return tuple(found)


def code_of(tree: ast.FunctionDef, function: Function) -> types.CodeType:
    """The tree compiled as if it stood where the function stands."""
    tree = copy.deepcopy(tree)
    tree.decorator_list = []
    # Nothing is executed but a `def`, so that defaults and annotations do not matter.
    tree.args.defaults = [ast.Constant(None) for _ in tree.args.defaults]
    if (
        "__class__" in function.function.__code__.co_freevars
    ):  # even where a dropped `super()` was all
        tree.body.append(ast.Expr(ast.Name("__class__", ast.Load())))
    body: list[ast.stmt] = [tree]
    if function.within:
        body = [ast.ClassDef(function.within, bases=[], keywords=[], body=body, decorator_list=[])]
    module = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
    flags = __future__.annotations.compiler_flag
    code = compile(module, function.path, "exec", flags, dont_inherit=True)
    for _ in range(2 if function.within else 1):
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType))
    assert code.co_freevars == function.function.__code__.co_freevars, function.name
    return code


def noted(function: Function, note: str) -> types.CodeType:
    """The function with a call of the global `note` before all else, given its name."""
    tree = copy.deepcopy(function.tree)
    call = ast.Call(ast.Name(note, ast.Load()), [ast.Constant(function.name)], [])
    tree.body.insert(0, ast.Expr(call))
    return code_of(tree, function)


# What may be wrong with a node -------------------------------------------------------------------------------

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt), ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip


def _swapped(items: list, i: int, j: int) -> list:
    items = list(items)
    items[i], items[j] = items[j], items[i]
    return items


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every wrong node that may stand in the place of this one."""
    match node:
        case ast.BinOp(left, operator, right):
            if type(operator) in OPERATORS:
                yield ast.BinOp(left, OPERATORS[type(operator)](), right)
            if isinstance(operator, ast.MatMult):
                yield ast.BinOp(right, operator, left)
            yield left if isinstance(operator, ast.Add | ast.Sub) else right
        case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(float(value)):
            yield ast.Constant(value * 1.01 if value else 0.01)
        case ast.Compare(left, [operator], rights):
            for other in COMPARISONS[type(operator)]:
                yield ast.Compare(left, [other()], rights)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(ast.Tuple(items) | ast.List(items)) if len(items) > 1:
            for i in range(len(items) - 1):
                yield ast.Return(ast.Tuple(_swapped(items, i, i + 1), ast.Load()))
        case ast.Call(function, arguments, keywords):
            name = getattr(function, "attr", getattr(function, "id", ""))
            exchanged = {"where": (-2, -1), "keep": (0, 1), "divide": (0, 1)}.get(name)
            if len(arguments) > 1 and (exchanged or "grad" in ast.unparse(function).lower()):
                yield ast.Call(function, _swapped(arguments, *(exchanged or (0, 1))), keywords)
            if arguments and name in (
                "flip",
                "exp",
                "sigmoid",
                "softmax",
                "log",
                "abs",
                "sqrt",
                "square",
                "sum",
                "broadcast_to",
            ):
                yield arguments[0]
        case ast.keyword("keepdims", ast.Name() as value):
            yield ast.keyword("keepdims", ast.UnaryOp(ast.Not(), value))
        case ast.Attribute(value, "T" | "mT"):
            yield value
        case ast.Expr(ast.Call(function)) if "check_" not in ast.unparse(function):
            yield ast.Pass()
        case ast.AugAssign(target, operator, value) if type(operator) in OPERATORS:
            yield ast.AugAssign(target, OPERATORS[type(operator)](), value)
        case ast.Continue():
            yield ast.Pass()
            yield ast.Break()


def _only_raises(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and all(isinstance(s, ast.Raise) for s in node.body)


def _sites(tree: ast.FunctionDef) -> list[tuple[ast.AST, ast.stmt]]:
    """The nodes that may change, each with the statement that it stands in."""
    found = []

    def visit(node: ast.AST, statement: ast.stmt) -> None:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.ExceptHandler) or _only_raises(node):
            return
        if isinstance(node, ast.stmt):
            statement = node
        found.append((node, statement))
        if isinstance(node, ast.keyword) and node.arg == "strict":  # a guard, too
            return
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            for each in child if isinstance(child, list) else [child]:
                if isinstance(each, ast.AST):
                    visit(each, statement)

    for statement in tree.body:
        visit(statement, statement)
    return found


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _line(statement: ast.stmt) -> str:
    """A statement in one line; of a compound one, its head."""
    return ast.unparse(statement).split("\n")[0]


class Variant(NamedTuple):
    line: int
    before: str
    after: str
    tree: ast.FunctionDef


def variants(function: Function) -> Iterator[Variant]:
    """The function with one node changed, in every way."""
    for position, (node, statement) in enumerate(_sites(function.tree)):
        for number, _ in enumerate(changes(node)):
            tree = copy.deepcopy(function.tree)
            old, around = _sites(tree)[position]
            new = list(changes(old))[number]
            ast.copy_location(new, old)
            tree = _Replace(old, new).visit(tree)
            after = new if around is old else around
            yield Variant(
                statement.lineno, _line(statement), _line(after), ast.fix_missing_locations(tree)
            )
