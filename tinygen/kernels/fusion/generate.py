"""A loop written as source for Numba.

    for each chunk of rows, on any core:
        for each row:
            steps on the row
            for each column: steps on elements, and sums along the row           (`stage_0`)
            steps that need these sums
            for each column: ...                                                 (`stage_1`)
    the sums over all rows, from those of the chunks

An element that two stages need is computed in both: arithmetic is cheaper than memory. The chunks do not depend on the
number of cores, so neither do the results. Sizes and strides are arguments, not part of the source, so loops that
differ in nothing else have one source, which is compiled once (`cache.py`).

Names are letters with the number of a storage (x), an access (p, c, g, l, w) or a step (e, v, s, a, t): x array,
p position of the row in it, c stride from column to column, g contiguous copy of a strided vector, l loaded element,
w loaded number of the row, e computed element, v computed number of the row, s sum within a stage, a sum of its pieces,
t total over rows. `sizes` holds rows, block, columns, chunks, and then four numbers for each access: its offset, and
the strides to the next block, row and column.
"""

from __future__ import annotations

from tinygen.kernels.fusion.group import Access, LoopNest, Statement
from tinygen.kernels.fusion.instructions import Storage

EXPRESSIONS = {
    "copy": "{}", "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "multiply_add": "{} * {} + {}", "negative": "-{}", "square": "{0} * {0}", "sqrt": "np.sqrt({})",
    "absolute": "abs({})", "maximum": "formulas.maximum({}, {})", "minimum": "formulas.minimum({}, {})",
    "where": "({1} if {0} else {2})", "isfinite": "(abs({}) < real(np.inf))",
    "equal": "({} == {})", "not_equal": "({} != {})", "less": "({} < {})", "less_equal": "({} <= {})",
    "greater": "({} > {})", "greater_equal": "({} >= {})", "and": "({} & {})", "or": "({} | {})",
    "not": "(not {})", "exp": "scalar.exp({})", "log": "scalar.log({})", "log1p": "scalar.log1p({})",
    "tanh": "scalar.tanh({})", "sigmoid": "scalar.sigmoid({})", "softplus": "scalar.softplus({})",
    "erf": "scalar.erf({})", "relu": "formulas.relu({})", "relu_grad": "formulas.relu_grad({}, {})",
    "tanh_grad": "formulas.tanh_grad({}, {})", "sigmoid_grad": "formulas.sigmoid_grad({}, {})",
    "softplus_grad": "formulas.softplus_grad({}, {})",
    "reparameterise": "formulas.reparameterise({}, {}, {})",
    "reparameterise_grad": "formulas.reparameterise_grad({}, {}, {})",
}  # fmt: skip

HEADER = """\
import numpy as np
from numba import prange

from tinygen.kernels.cpu import formulas, rows, scalar
from tinygen.kernels.cpu._compile import Loop, inlined, reordering

real = np.{dtype}
zero = real(0)
PIECE = np.uintp(rows.PIECE)
"""


class Writer:
    """The `source` of one loop. It writes a result to memory if its storage is in `stored`: others read that.

    The loop is called with the sizes of its `accesses` and the arrays of its `storages`, in their order.
    """

    def __init__(self, loop: LoopNest, stored: set[Storage]):
        self.loop, self.stored = loop, stored
        self.storages: list[Storage] = []
        self.accesses: list[Access] = []
        # The stage of each step: it comes after the stages whose sums along the row the step needs.
        self.levels: list[int] = []
        for step in loop.statements:
            given = [self.made_by(x) for x in step.operands]
            later = [
                self.levels[k] + (loop.statements[k].how == "row") for k in given if k is not None
            ]
            self.levels.append(max(later, default=0))
        self.over_rows = [k for k, s in enumerate(loop.statements) if s.how in ("column", "all")]
        self.functions: list[str] = []
        self.source = HEADER.format(dtype=loop.dtype or "float32") + "\n\n" + self.written()

    # Names ---------------------------------------------------------------------------------------

    def made_by(self, x: Access | float) -> int | None:
        return self.loop.made.get(x) if isinstance(x, Access) else None

    def array(self, access: Access) -> str:
        if access.storage not in self.storages:
            self.storages.append(access.storage)
        return f"x{self.storages.index(access.storage)}"

    def number(self, access: Access) -> int:
        if access not in self.accesses:
            self.accesses.append(access)
        return self.accesses.index(access)

    def element(self, access: Access) -> str:
        """In a stage: the element at column j."""
        n, step = self.number(access), access.strides[2]
        if self.is_gathered(access):
            return f"g{n}[j]"
        return f"{self.array(access)}[p{n}{'' if step == 0 else ' + j' if step == 1 else f' + j * c{n}'}]"

    def at_row(self, access: Access) -> str:
        """Outside of stages: the number of the row."""
        return f"{self.array(access)}[p{self.number(access)}]"

    def is_gathered(self, access: Access) -> bool:
        """A strided vector that all rows share: a contiguous copy is made first, or the stage would not vectorise."""
        return (
            access.strides[:2] == (0, 0) and access.strides[2] not in (0, 1) and self.loop.rows > 1
        )

    def is_stored(self, step: Statement) -> bool:
        return step.how in (None, "row") and step.out.storage in self.stored

    def expression(self, k: int, operands: list[str]) -> str:
        step = self.loop.statements[k]
        return EXPRESSIONS[step.name].format(*operands)

    # Rows ----------------------------------------------------------------------------------------

    def row_operand(self, x: Access | float) -> str:
        if not isinstance(x, Access):
            return literal(x)
        k = self.made_by(x)
        return self.at_row(x) if k is None else f"v{k}"

    def row_lines(self, level: int) -> list[str]:
        """The lines on the row before the stage of this level, and after those before it."""
        lines = []
        for k, step in enumerate(self.loop.statements):
            if step.per_element:
                # A sum along the row, which the previous stage left in v.
                if step.how == "row" and self.levels[k] == level - 1 and self.is_stored(step):
                    lines.append(f"{self.at_row(step.out)} = v{k}")
                continue
            if self.levels[k] != level:
                continue
            operands = [self.row_operand(x) for x in step.operands]
            if step.how is None:
                lines.append(f"v{k} = {self.expression(k, operands)}")
                if self.is_stored(step):
                    lines.append(f"{self.at_row(step.out)} = v{k}")
            else:
                lines.append(added(step, f"t{k}", f"np.float64({operands[0]})"))
        return lines

    # Stages --------------------------------------------------------------------------------------

    def element_step(self, x: Access | float) -> int | None:
        """The step of the loop that computes x for each element, if there is one."""
        k = self.made_by(x)
        wide = (
            k is not None
            and self.loop.statements[k].per_element
            and self.loop.statements[k].how is None
        )
        return k if wide else None

    def needed(self, sinks: list[int]) -> list[int]:
        """These steps, and all steps whose elements they need."""
        found, waiting = set(), [*sinks]
        while waiting:
            k = waiting.pop()
            if k not in found:
                found.add(k)
                made_of = map(self.element_step, self.loop.statements[k].operands)
                waiting += [m for m in made_of if m is not None]
        return sorted(found)

    def values(self, stage: int, sinks: list[int]) -> tuple[dict[Access, str], dict[str, str]]:
        """Write the function of a stage that computes one element of each of the steps `sinks`.

        Returns its parameters: names for the elements to load, and names for numbers of the row, each with its
        expression outside the stage.
        """
        loads: dict[Access, str] = {}
        rows: dict[str, str] = {}

        def operand(x: Access | float) -> str:
            if not isinstance(x, Access):
                return literal(x)
            if self.element_step(x) is not None:
                return f"e{self.element_step(x)}"
            if x.strides[2] != 0:
                return loads.setdefault(x, f"l{self.number(x)}")
            outside = self.row_operand(x)
            name = f"w{self.number(x)}" if self.made_by(x) is None else outside
            rows[name] = outside
            return name

        lines = []
        for k in self.needed(sinks):
            given = [operand(x) for x in self.loop.statements[k].operands]
            lines.append(
                f"e{k} = {given[0] if self.loop.statements[k].how else self.expression(k, given)}"
            )
        lines.append("return " + ", ".join(f"e{k}" for k in sinks))
        head = f"@inlined\ndef values_{stage}({', '.join([*loads.values(), *rows])}):\n"
        self.functions.append(head + indented(lines, 1))
        return loads, rows

    def columns_of(self, touched: list[Access]) -> list[str]:
        """The arguments from which a stage finds the elements of these accesses."""
        gathered = [f"g{self.number(x)}" for x in touched if self.is_gathered(x)]
        touched = [x for x in touched if not self.is_gathered(x)]
        arrays = [self.array(x) for x in touched]
        places = [f"p{self.number(x)}" for x in touched]
        steps = [f"c{self.number(x)}" for x in touched if x.strides[2] not in (0, 1)]
        return [*gathered, *dict.fromkeys([*arrays, *places, *steps])]

    def stage_lines(self, level: int) -> list[str]:
        """The lines that call a stage, whose functions are written on the way."""
        steps, stage = self.loop.statements, len(self.functions)
        sinks = [
            k for k, s in enumerate(steps)
            if s.per_element and self.levels[k] == level and (s.how is not None or self.is_stored(s))
        ]  # fmt: skip
        if not sinks:
            return []
        loads, rows = self.values(stage, sinks)
        elements = ", ".join(f"e{k}" for k in sinks)
        inside = [f"{elements} = values_{stage}({', '.join([*map(self.element, loads), *rows])})"]
        # Lines before and after the row, before and after each piece of it, and outside, after the call.
        start, end, begin, done, outside = [], [], [], [], []
        for k in sinks:
            s = steps[k]
            if s.how is None:
                inside.append(f"{self.element(s.out)} = e{k}")
            elif s.how == "column":
                inside.append(added(s, f"t{k}[pt + j]", f"e{k}"))
            elif s.name == "add":
                start.append(f"a{k} = 0.0")
                begin.append(f"s{k} = zero")
                inside.append(f"s{k} += e{k}")
                done.append(f"a{k} += np.float64(s{k})")
                end.append(f"s{k} = real(a{k})")
            else:
                start.append(f"s{k} = scalar.rank(real(-np.inf))")
                inside.append(f"s{k} = max(s{k}, scalar.rank(e{k}))")
                end.append(f"s{k} = scalar.of_rank(s{k}, zero)")
            if s.how == "all":
                outside.append(added(s, f"t{k}", f"np.float64(s{k})"))
            elif s.how == "row" and s.initial is not None:
                outside.append(added(s, f"v{k}", literal(s.initial)))
        results = [k for k in sinks if steps[k].how in ("row", "all")]
        if results:
            end.append(f"return {', '.join(f's{k}' for k in results)}")
        columns = indented(["for j in range(columns):"], 1) + indented(inside, 2)
        if begin:
            begin.append("for j in range(begin, min(begin + PIECE, columns)):")
            columns = indented(["for begin in range(np.uintp(0), columns, PIECE):"], 1)
            columns += indented(begin, 2) + indented(inside, 3) + indented(done, 2)
        stored = [steps[k].out for k in sinks if steps[k].how is None]
        totals = [f"t{k}" for k in sinks if steps[k].how == "column"]
        arguments = ["columns", *self.columns_of([*loads, *stored]), *totals]
        arguments += ["pt"] if totals else []
        self.functions.append(
            f"@reordering\ndef stage_{stage}({', '.join([*arguments, *rows])}):\n"
            + indented(start, 1) + columns + indented(end, 1)
        )  # fmt: skip
        call = f"stage_{stage}({', '.join([*arguments, *rows.values()])})"
        names = [f"v{k}" if steps[k].how == "row" else f"s{k}" for k in results]
        return [f"{', '.join(names)} = {call}" if names else call, *outside]

    # All of it -----------------------------------------------------------------------------------

    def written(self) -> str:
        steps = self.loop.statements
        inside: list[str] = []
        for level in range(max(self.levels) + 2):
            inside += self.row_lines(level) + self.stage_lines(level)
        # Reductions over all rows: in each chunk, then of the chunks.
        before, begin, end, after = [], [], [], []
        for number, k in enumerate(self.over_rows):
            step = steps[k]
            first = "0.0" if step.name == "add" else "-np.inf"
            out, n = self.array(step.out), self.number(step.out)
            initial = first if step.initial is None else f"np.float64({literal(step.initial)})"
            if step.how == "column":
                before.append(f"t{k} = np.full(np.uintp(chunks) * columns, real({first}))")
                partial, place = f"t{k}[np.uintp(chunk) * columns + j]", f"p{n} + j * c{n}"
            else:
                begin.append(f"t{k} = {first}")
                end.append(f"totals[chunk, {number}] = t{k}")
                partial, place = f"totals[chunk, {number}]", f"p{n}"
            plus = added(step, "total", f"np.float64({partial})")
            lines = [f"total = {initial}", "for chunk in range(chunks):", f"    {plus}",
                     f"{out}[{place}] = real(total)"]  # fmt: skip
            if step.how == "column":
                lines = ["for j in range(columns):", *(f"    {line}" for line in lines)]
            after += lines
        if any(s.how == "all" for s in steps):
            before.append(f"totals = np.zeros((chunks, {len(self.over_rows)}))")
        outs = {self.number(steps[k].out) for k in self.over_rows}
        for n, access in enumerate(self.accesses):
            if self.is_gathered(access) and n not in outs:
                before += [f"g{n} = np.empty(columns, {self.array(access)}.dtype)", "for j in range(columns):",
                           f"    g{n}[j] = {self.array(access)}[p{n} + j * c{n}]"]  # fmt: skip
        fixed, moving = [], []
        for n, access in enumerate(self.accesses):
            at = f"np.uintp(sizes[{4 + 4 * n}]"
            if not any(access.strides[:2]):
                fixed.append(f"p{n} = {at})")
            elif self.loop.shape[0] > 1:
                moving.append(
                    f"p{n} = {at} + i // block * sizes[{5 + 4 * n}] + i % block * sizes[{6 + 4 * n}])"
                )
            else:
                moving.append(f"p{n} = {at} + i * sizes[{6 + 4 * n}])")
            fixed.append(f"c{n} = np.uintp(sizes[{7 + 4 * n}])")
        arrays = [f"x{k}" for k in range(len(self.storages))]
        return (
            "\n\n".join(self.functions)
            + f"\n\n@Loop\ndef loop(sizes, {', '.join(arrays)}):\n"
            + indented(
                ["rows, block, columns, chunks = sizes[0], sizes[1], np.uintp(sizes[2]), sizes[3]"],
                1,
            )
            + indented(fixed + before + ["for chunk in prange(chunks):"], 1)
            + indented(["pt = np.uintp(chunk) * columns", *begin], 2)
            + indented(["for i in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):"], 2)
            + indented(moving + inside, 3)
            + indented(end, 2)
            + indented(after, 1)
        )


def added(step: Statement, total: str, x: str) -> str:
    """The line that takes x into a running sum or maximum."""
    return f"{total} = {EXPRESSIONS[step.name].format(total, x)}"


def indented(lines: list[str], depth: int) -> str:
    return "".join("    " * depth + line + "\n" for line in lines)


def literal(x: float) -> str:
    """A number in the loop's own type; infinities and NaN by their names in NumPy."""
    name = repr(x).replace("inf", "np.inf").replace("nan", "np.nan")
    return f"real({name})"
