"""What was measured, as a table for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

LABELS = ("first", "second")


@dataclass
class Row:
    """One quantity, measured on both servers once per round, side by side.

    `ratio` is first to second, turned so that more than 1 means that the first is better.
    """

    name: str
    unit: str
    higher_is_better: bool
    digits: int = 1
    ratio_min: float | None = None  # the goal, against the second server
    value_min: float | None = None  # the goal, on its own
    value_max: float | None = None
    values: dict[str, list[float]] = field(default_factory=lambda: {label: [] for label in LABELS})

    def add(self, label: str, value: float) -> None:
        """Add one round's value."""
        self.values[label].append(value)

    def value(self, label: str) -> float:
        """The median of the rounds."""
        return median(self.values[label])

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: each round compares two neighbours in time."""
        pairs = zip(*self.values.values(), strict=True)
        return median(
            (a / b if self.higher_is_better else b / a) if a and b else 0 for a, b in pairs
        )

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.ratio_min is not None:
            return f"at least {self.ratio_min:g}x"
        if self.value_min is not None:
            return f"at least {self.value_min:,.0f}"
        if self.value_max is not None:
            return f"at most {self.value_max:,.0f}"
        return ""

    @property
    def passed(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.ratio_min is not None:
            return self.ratio >= self.ratio_min
        if self.value_min is not None:
            return self.value("first") >= self.value_min
        if self.value_max is not None:
            return self.value("first") <= self.value_max
        return None

    def as_json(self) -> dict[str, object]:
        """Medians, every round, and the verdict."""
        return {
            "name": self.name,
            "unit": self.unit,
            "medians": {label: self.value(label) for label in LABELS},
            "rounds": self.values,
            "ratio": self.ratio,
            "goal": self.goal,
            "passed": self.passed,
        }


def table(names: tuple[str, str], rows: list[Row]) -> str:
    """The rows in columns; the ratio is above 1 where the first server is better."""
    cells = [("", *names, "ratio", "goal", "")]
    for row in rows:
        verdict = {True: "PASS", False: "FAIL", None: ""}[row.passed]
        first, second = (f"{row.value(label):,.{row.digits}f}" for label in LABELS)
        cells.append(
            (f"{row.name}, {row.unit}", first, second, f"{row.ratio:.2f}x", row.goal, verdict)
        )
    widths = [max(len(row[column]) for row in cells) for column in range(6)]
    lines = []
    for name, first, second, ratio, goal, verdict in cells:
        lines.append(
            f"{name:<{widths[0]}}  {first:>{widths[1]}}  {second:>{widths[2]}}  "
            f"{ratio:>{widths[3]}}  {goal:<{widths[4]}}  {verdict}".rstrip()
        )
    return "\n".join(lines)
