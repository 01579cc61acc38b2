"""Recompute the numbers typed in the book's text from the recorded runs.

    python book/claims.py                    every claim, as typed and as recomputed
    python book/claims.py "mean(A/B.C)"      the value of a formula, to type it

A typed number carries a comment that vouches for it: `claim:` a formula over records, `arithmetic:` one without,
`source:` where a figure from elsewhere is from. A reference `CHAPTER/RUN.WHAT` stands for one value a seed.
"""

import ast
import json
import operator
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from growlib import results

ROOT = Path(__file__).parents[1]
COMMENT = re.compile(r"<!--\s*(claim|arithmetic|source):\s*(.*?)\s*-->", re.S)
NUMBER = r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?"
PERCENT = r"\s*(?:%|per ?cent)"
TYPED = re.compile(rf"(?P<mean>{NUMBER})(?:\s*±\s*(?P<half>{NUMBER}))?(?P<percent>{PERCENT})?")
# Numbers that want a voucher: a ± b, percentages, fractions that look like an accuracy.
SUSPECT = re.compile(rf"{NUMBER}\s*±\s*{NUMBER}|{NUMBER}{PERCENT}|(?<![\w.])0\.[5-9]\d\d+")
HARMLESS = re.compile(r"95\s*%\s*(?:intervals?|confidence)|(?<![\w.,])(?:0|100)\s*%")
# What is not prose: front matter, fenced and inline code, formulas, other tags, the targets of links.
SKIPPED = re.compile(
    r"<!--.*?-->|\A---\n.*?\n---|^[ \t>]*(?P<fence>```+|~~~+).*?^[ \t>]*(?P=fence)|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$"
    r"|<(?P<tag>script|style)\b.*?</(?P=tag)>|</?[a-zA-Z][^>]*>|\]\([^)]*\)",
    re.S | re.M,
)
REFERENCE = re.compile(r"([A-Za-z0-9]\w*)/([A-Za-z0-9][\w-]*)\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[-?\d+\])*)", re.A)
FUNCTIONS = {
    "mean": pd.Series.mean,
    "min": pd.Series.min,
    "max": pd.Series.max,
    "interval": lambda values: results.interval(values)[1],
    "count": len,
    "abs": abs,
}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
COMPARISONS = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}


@dataclass(frozen=True)
class Claim:
    """A formula in the text and the number that it vouches for."""

    place: str
    kind: str
    formula: str
    typed: str

    def __str__(self) -> str:
        return f"{self.place}: {self.typed} ({self.kind}: {self.formula})"


def evaluate(formula: str, records: bool = True) -> float | bool:
    """Return the number that a formula comes to, or whether a comparison holds.

    Raises:
        ValueError: the formula is not arithmetic over references and functions, or is left with a value for every seed.
        LookupError: a record that it names does not exist.
    """
    references = {}

    def name(match: re.Match) -> str:
        references[f"_{len(references)}"] = match.groups()
        return f"_{len(references) - 1}"

    try:
        tree = ast.parse(REFERENCE.sub(name, formula) if records else formula, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read the formula {formula!r}: {error.msg}") from error
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and type(tree.ops[0]) in COMPARISONS:
        sides = [_single(_walk(side, references), formula) for side in (tree.left, tree.comparators[0])]
        return COMPARISONS[type(tree.ops[0])](*sides)
    return _single(_walk(tree, references), formula)


def _walk(node: ast.expr, references: dict):
    match node:
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(name) if name in references:
            return _by_seed(*references[name])
        case ast.UnaryOp(ast.USub(), operand):
            return -_walk(operand, references)
        case ast.BinOp(left, operation, right) if type(operation) in OPERATORS:
            left, right = _walk(left, references), _walk(right, references)
            if isinstance(left, pd.Series) and isinstance(right, pd.Series) and not left.index.equals(right.index):
                raise ValueError(f"runs of seeds {list(left.index)} and {list(right.index)} cannot be paired")
            return OPERATORS[type(operation)](left, right)
        case ast.Call(ast.Name(name), [argument], []) if name in FUNCTIONS:
            values = _walk(argument, references)
            if name == "abs" or isinstance(values, pd.Series):
                return FUNCTIONS[name](values)
    known = f"numbers, CHAPTER/RUN.WHAT, + - * / ** and {', '.join(FUNCTIONS)} of one value; one comparison < <= > >="
    raise ValueError(f"cannot use {ast.unparse(node)!r} in a formula, which may hold {known}")


def _by_seed(chapter: str, run: str, what: str) -> pd.Series:
    return pd.Series({record["seed"]: results.value(record, what) for record in results.read(chapter, run)})


def _single(outcome, formula: str) -> float:
    if not isinstance(outcome, pd.Series):
        return float(outcome)
    if len(outcome) > 1:
        raise ValueError(f"{formula!r} is left with {len(outcome)} values, one a seed: say mean(...), min(...)")
    return float(outcome.iloc[0])


def fault(claim: Claim) -> str | None:
    """Return what is wrong with a claim, with the number typed and the number recomputed; None if it holds."""
    if claim.kind == "source":
        return None if claim.formula else f"{claim.place}: name the source of {claim.typed}"
    try:
        values = [evaluate(part.strip(), records=claim.kind == "claim") for part in claim.formula.split("±")]
    except (ValueError, LookupError, ArithmeticError) as error:
        return f"{claim.place}: {error}, in {claim.kind}: {claim.formula}"
    if isinstance(values[0], bool):
        return None if values[0] else f"{claim.place}: does not hold: {claim.formula}"
    typed = TYPED.fullmatch(claim.typed)
    numbers = [number for number in (typed and typed["mean"], typed and typed["half"]) if number]
    if len(numbers) != len(values):
        return f"{claim.place}: {claim.formula} comes to {len(values)} numbers, typed are {numbers}"
    for number, value in zip(numbers, values, strict=True):
        value *= 100 if typed["percent"] else 1
        decimals = len(number.partition(".")[2])
        # nan, the interval of a single seed, is never near enough.
        if not abs(float(number.replace(",", "").replace("−", "-")) - value) <= 0.5 * 10**-decimals + 1e-9:
            return f"{claim.place}: typed {claim.typed}, recomputed {value:.{decimals + 2}f} from {claim.formula}"
    return None


def inspect(text: str, place: str) -> tuple[list[Claim], list[str]]:
    """Return the claims of a Markdown text, and the numbers in it that want a voucher and have none."""
    claims, bare = [], []
    prose = SKIPPED.sub(lambda match: match[0] if COMMENT.fullmatch(match[0]) else " ", text)
    for paragraph in re.split(r"\n\s*\n", prose):
        start = 0
        for comment in [*COMMENT.finditer(paragraph), None]:
            words = paragraph[start : comment.start() if comment else None]
            typed = None
            if comment:
                start, kind, formula = comment.end(), comment[1], " ".join(comment[2].split())
                if not re.search("[<>]", formula) or kind == "source":
                    *_, typed = [None, *TYPED.finditer(words)]
                claims.append(Claim(place, kind, formula, typed[0] if typed else ""))
                if kind == "source":
                    continue
            harmless = [match.span() for match in HARMLESS.finditer(words)] + ([typed.span()] if typed else [])
            for match in SUSPECT.finditer(words):
                if not any(first <= match.start() and match.end() <= last for first, last in harmless):
                    bare.append(f"{place}: {match[0]} in {' '.join(words.split())[-200:]!r}")
    return claims, bare


def texts(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield every piece of the book's prose with its place: the pages and the Markdown cells of the notebooks."""
    for path in sorted((root / "book").glob("*.md")):
        yield f"book/{path.name}", path.read_text()
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for index, cell in enumerate(json.loads(path.read_text())["cells"]):
            if cell["cell_type"] == "markdown":
                yield f"notebooks/{path.name}, cell {index}", "".join(cell["source"])


def main() -> None:
    """Print the values of the formulas given, or check every claim of the book."""
    for formula in sys.argv[1:]:
        print(evaluate(formula))
    if sys.argv[1:]:
        return
    faults = []
    for place, text in texts():
        claims, bare = inspect(text, place)
        for claim in claims:
            print(claim)
            faults += filter(None, [fault(claim)])
        faults += bare
    sys.exit("\n".join(["", "Numbers that are wrong or that nothing vouches for:", *faults]) if faults else 0)


if __name__ == "__main__":
    main()
