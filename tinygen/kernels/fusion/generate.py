"""A loop nest written as source for Numba.

    for each chunk of rows, on any core:
        for each row:
            statements of the row
            for each column: statements of an element, and sums along the row    (`stage_0`)
            statements that need these sums
            for each column: ...                                                 (`stage_1`)
    the sums over all rows, from those of the chunks

An element that two stages need is computed in both: arithmetic is cheaper than memory. The chunks do not depend on the
number of cores, so neither do the results. Sizes and strides are arguments, not part of the source, so nests that
differ in nothing else have one source, which is compiled once (`cache.py`).

Names are letters with the number of a storage (x), an access (p, c, g, l, w) or a statement (e, v, s, a, t): x array,
p position of the row in it, c stride from column to column, g contiguous copy of a strided vector, l loaded element,
w loaded number of the row, e computed element, v computed number of the row, s sum within a stage, a sum of its pieces,
t total over rows. `sizes` holds rows, inner rows, columns, chunks, and then four numbers for each access: its offset,
and the strides to the next outer row, inner row and column. So x / np.sum(x, axis=1, keepdims=True) becomes:

    def values_1(l0, v0):
        e1 = l0 / v0
        return e1

    def stage_1(columns, x0, x1, p0, p1, v0):
        for j in range(columns):
            e1 = values_1(x0[p0 + j], v0)
            x1[p1 + j] = e1

    def loop(sizes, x0, x1):
        for chunk in prange(chunks):
            for i in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
                p0 = np.uintp(sizes[4] + i * sizes[6])
                p1 = np.uintp(sizes[8] + i * sizes[10])
                v0 = stage_0(columns, x0, p0)
                stage_1(columns, x0, x1, p0, p1, v0)

with `stage_0`, which sums a row of x, and a few lines more.
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
    """The `source` of a nest. It writes a result to memory if its storage is in `stored`: others read that.

    The loop is called with the sizes of its `accesses` and the arrays of its `storages`, in their order.
    """

    def __init__(self, nest: LoopNest, stored: set[Storage]):
        self.nest, self.statements, self.stored = nest, nest.statements, stored
        written = [s.out for s in self.statements if s.out.storage in stored]
        self.accesses = list(dict.fromkeys([*nest.reads, *written]))
        self.storages = list(dict.fromkeys(x.storage for x in self.accesses))
        self.number = {x: n for n, x in enumerate(self.accesses)}
        self.array = {storage: f"x{n}" for n, storage in enumerate(self.storages)}
        # Vectors that all rows share and that are not contiguous: a stage would not vectorise if it read them.
        self.gathered = {
            x for x in nest.reads
            if x.strides[:2] == (0, 0) and x.strides[2] not in (0, 1) and nest.rows > 1
        }  # fmt: skip
        # The stage of each statement: it comes after the stages whose sums along the row the statement needs.
        self.stages: list[int] = []
        self.mixes = False  # whether a stage both adds up along rows and writes
        for s in self.statements:
            given = [k for k in map(self.made_by, s.operands) if k is not None]
            later = [self.stages[k] + (self.statements[k].how == "row") for k in given]
            self.stages.append(max(later, default=0))
        self.source = HEADER.format(dtype=nest.dtype or "float32") + "\n\n" + self.written()

    def made_by(self, x: Access | float) -> int | None:
        """The statement that computes x for an element or a row, if there is one."""
        return self.nest.made.get(x) if isinstance(x, Access) else None

    # In memory -----------------------------------------------------------------------------------

    def element(self, access: Access) -> str:
        """In a stage: the element at column j."""
        n, stride = self.number[access], access.strides[2]
        if access in self.gathered:
            return f"g{n}[j]"
        column = {0: "", 1: " + j"}.get(stride, f" + j * c{n}")
        return f"{self.array[access.storage]}[p{n}{column}]"

    def at_row(self, access: Access) -> str:
        """Outside of stages: the number of the row."""
        return f"{self.array[access.storage]}[p{self.number[access]}]"

    # Rows ----------------------------------------------------------------------------------------

    def row_operand(self, x: Access | float) -> str:
        if not isinstance(x, Access):
            return literal(x)
        k = self.made_by(x)
        return self.at_row(x) if k is None else f"v{k}"

    def row_lines(self, stage: int) -> list[str]:
        """The lines on the row before this stage, and after those before it."""
        lines = []
        for k, s in enumerate(self.statements):
            if s.per_element or self.stages[k] != stage:
                continue
            operands = [self.row_operand(x) for x in s.operands]
            if s.how is None:
                lines.append(f"v{k} = {EXPRESSIONS[s.name].format(*operands)}")
                if s.out.storage in self.stored:
                    lines.append(f"{self.at_row(s.out)} = v{k}")
            else:
                lines.append(added(s, f"t{k}", f"np.float64({operands[0]})"))
        return lines

    # Stages --------------------------------------------------------------------------------------

    def element_of(self, x: Access | float) -> int | None:
        """The statement that computes x for each element, if there is one."""
        k = self.made_by(x)
        return (
            k
            if k is not None and self.statements[k].per_element and not self.statements[k].how
            else None
        )

    def needed(self, sinks: list[int]) -> list[int]:
        """These statements, and all whose elements they need."""
        found, waiting = set(), [*sinks]
        while waiting:
            k = waiting.pop()
            if k not in found:
                found.add(k)
                made_of = map(self.element_of, self.statements[k].operands)
                waiting += [m for m in made_of if m is not None]
        return sorted(found)

    def values(self, stage: int, sinks: list[int]) -> tuple[str, dict[Access, str], dict[str, str]]:
        """The function of a stage that computes one element of each of the statements `sinks`, and its parameters.

        These are names for the elements to load, and names for numbers of the row, each with its expression outside
        the stage.
        """
        loads: dict[Access, str] = {}
        rows: dict[str, str] = {}

        def operand(x: Access | float) -> str:
            if not isinstance(x, Access):
                return literal(x)
            if self.element_of(x) is not None:
                return f"e{self.element_of(x)}"
            if x.strides[2] != 0:
                return loads.setdefault(x, f"l{self.number[x]}")
            outside = self.row_operand(x)
            name = f"w{self.number[x]}" if self.made_by(x) is None else outside
            rows[name] = outside
            return name

        lines = []
        for k in self.needed(sinks):
            s, given = self.statements[k], [operand(x) for x in self.statements[k].operands]
            lines.append(f"e{k} = {given[0] if s.how else EXPRESSIONS[s.name].format(*given)}")
        lines.append("return " + ", ".join(f"e{k}" for k in sinks))
        head = f"@inlined\ndef values_{stage}({', '.join([*loads.values(), *rows])}):\n"
        return head + indented(lines, 1), loads, rows

    def columns_of(self, touched: list[Access]) -> list[str]:
        """The arguments from which a stage finds the elements of these accesses."""
        gathered = [f"g{self.number[x]}" for x in touched if x in self.gathered]
        touched = [x for x in touched if x not in self.gathered]
        arrays = [self.array[x.storage] for x in touched]
        positions = [f"p{self.number[x]}" for x in touched]
        strides = [f"c{self.number[x]}" for x in touched if x.strides[2] not in (0, 1)]
        return [*gathered, *dict.fromkeys([*arrays, *positions, *strides])]

    def stage(self, stage: int) -> tuple[list[str], list[str]]:
        """The functions of a stage, and the lines on the row that call it; none if it has nothing to do."""
        sinks = [
            k for k, s in enumerate(self.statements)
            if s.per_element and self.stages[k] == stage and (s.how or s.out.storage in self.stored)
        ]  # fmt: skip
        if not sinks:
            return [], []
        values, loads, rows = self.values(stage, sinks)
        elements = ", ".join(f"e{k}" for k in sinks)
        inside = [f"{elements} = values_{stage}({', '.join([*map(self.element, loads), *rows])})"]
        # Lines before and after the row, before and after each piece of it, and outside, after the call.
        start, end, begin, done, outside = [], [], [], [], []
        for k in sinks:
            s = self.statements[k]
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
            if s.how == "row" and s.out.storage in self.stored:
                outside.append(f"{self.at_row(s.out)} = v{k}")
        results = [k for k in sinks if self.statements[k].how in ("row", "all")]
        self.mixes |= 0 < len(results) < len(sinks)
        if results:
            end.append(f"return {', '.join(f's{k}' for k in results)}")
        columns = indented(["for j in range(columns):"], 1) + indented(inside, 2)
        if begin:
            begin.append("for j in range(begin, min(begin + PIECE, columns)):")
            columns = indented(["for begin in range(np.uintp(0), columns, PIECE):"], 1)
            columns += indented(begin, 2) + indented(inside, 3) + indented(done, 2)
        stored = [self.statements[k].out for k in sinks if self.statements[k].how is None]
        totals = [f"t{k}" for k in sinks if self.statements[k].how == "column"]
        arguments = ["columns", *self.columns_of([*loads, *stored]), *totals]
        arguments += ["pt"] if totals else []
        head = f"@reordering\ndef stage_{stage}({', '.join([*arguments, *rows])}):\n"
        call = f"stage_{stage}({', '.join([*arguments, *rows.values()])})"
        names = [f"v{k}" if self.statements[k].how == "row" else f"s{k}" for k in results]
        return (
            [values, head + indented(start, 1) + columns + indented(end, 1)],
            [f"{', '.join(names)} = {call}" if names else call, *outside],
        )

    # All of it -----------------------------------------------------------------------------------

    def positions(self) -> tuple[list[str], list[str]]:
        """The lines that compute p and c: those for all rows, and those for row i."""
        fixed, moving = [], []
        for n, access in enumerate(self.accesses):
            at = f"np.uintp(sizes[{4 + 4 * n}]"
            if not any(access.strides[:2]):
                fixed.append(f"p{n} = {at})")
            elif self.nest.shape[0] > 1:
                moving.append(
                    f"p{n} = {at} + i // inner * sizes[{5 + 4 * n}] + i % inner * sizes[{6 + 4 * n}])"
                )
            else:
                moving.append(f"p{n} = {at} + i * sizes[{6 + 4 * n}])")
            fixed.append(f"c{n} = np.uintp(sizes[{7 + 4 * n}])")
        return fixed, moving

    def copies(self) -> list[str]:
        """The lines that make contiguous copies."""
        lines = []
        for n, access in enumerate(self.accesses):
            if access in self.gathered:
                array = self.array[access.storage]
                # Longer than needed, for the reason of `program.from_copies`.
                lines += [f"g{n} = np.empty(columns + PIECE, {array}.dtype)", "for j in range(columns):",
                          f"    g{n}[j] = {array}[p{n} + j * c{n}]"]  # fmt: skip
        return lines

    def totals(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Of sums over all rows the lines before the chunks, first and last in a chunk, and after the chunks."""
        before, first, last, after = [], [], [], []
        over_rows = [k for k, s in enumerate(self.statements) if s.how in ("column", "all")]
        for number, k in enumerate(over_rows):
            s = self.statements[k]
            neutral = "0.0" if s.name == "add" else "-np.inf"
            out, n = self.array[s.out.storage], self.number[s.out]
            if s.how == "column":
                before.append(f"t{k} = np.full(np.uintp(chunks) * columns, real({neutral}))")
                partial, position = f"t{k}[np.uintp(chunk) * columns + j]", f"p{n} + j * c{n}"
            else:
                first.append(f"t{k} = {neutral}")
                last.append(f"totals[chunk, {number}] = t{k}")
                partial, position = f"totals[chunk, {number}]", f"p{n}"
            plus = added(s, "total", f"np.float64({partial})")
            lines = [f"total = {neutral}", "for chunk in range(chunks):", f"    {plus}",
                     f"{out}[{position}] = real(total)"]  # fmt: skip
            if s.how == "column":
                lines = ["for j in range(columns):", *(f"    {line}" for line in lines)]
            after += lines
        if last:
            before.append(f"totals = np.zeros((chunks, {len(over_rows)}))")
        return before, first, last, after

    def written(self) -> str:
        functions: list[str] = []
        inside: list[str] = []
        for stage in range(max(self.stages) + 1):
            new, calls = self.stage(stage)
            functions += new
            inside += self.row_lines(stage) + calls
        fixed, moving = self.positions()
        before, first, last, after = self.totals()
        sizes = "rows, inner, columns, chunks = sizes[0], sizes[1], np.uintp(sizes[2]), sizes[3]"
        return (
            "\n\n".join(functions)
            + f"\n\n@Loop\ndef loop(sizes, {', '.join(self.array.values())}):\n"
            + indented([sizes, *fixed, *before, *self.copies(), "for chunk in prange(chunks):"], 1)
            + indented(["pt = np.uintp(chunk) * columns", *first], 2)
            + indented(["for i in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):"], 2)
            + indented(moving + inside, 3)
            + indented(last, 2)
            + indented(after, 1)
        )


def added(s: Statement, total: str, x: str) -> str:
    """The line that takes x into a running sum or maximum."""
    return f"{total} = {EXPRESSIONS[s.name].format(total, x)}"


def indented(lines: list[str], depth: int) -> str:
    return "".join("    " * depth + line + "\n" for line in lines)


def literal(x: float) -> str:
    """A number in the loop's own type; infinities and NaN by their names in NumPy."""
    name = repr(x).replace("inf", "np.inf").replace("nan", "np.nan")
    return f"real({name})"
