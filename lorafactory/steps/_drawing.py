"""A comparison being drawn: stage by stage, and between the stages the saves that fall behind drop out.

One that was behind another comes back when that one falls as well: few pictures had told too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from lorafactory.step import Work
from lorafactory.steps._cells import Board, Checkpoint, Column, Spot
from lorafactory.steps._stages import Plan, Purse, Round, Stage, lead, stages
from lorafactory.steps._studio import Studio
from lorafactory.steps._telling import Judge

if TYPE_CHECKING:
    from lorafactory.scoring.verdict import Scores, Thresholds


@dataclass
class Drawing:
    """What was drawn so far, and what may still be."""

    work: Work
    board: Board
    studio: Studio
    plan: Plan
    drawn: dict[Column, list[Spot]]
    """By column, the baseline first."""
    out: dict[str, str] = field(default_factory=dict)
    """Hash of a save's tensors to why it does not come back."""

    @cached_property
    def purse(self) -> Purse:
        return Purse(self.plan.room)

    @property
    def home(self) -> list[Column]:
        """The columns on the base itself."""
        first = next(iter(self.drawn))
        return [column for column in self.drawn if column.base == first.base]

    def draw(self, judge: Judge, others: Sequence[Checkpoint], *, full: bool, aside: bool) -> None:
        """Draw all that the budget allows, and what is asked for on other bases.

        `full` leaves nothing out. `aside`: the columns do not compete, so that none drops out.
        """
        baseline, *columns = self.home
        judged = [column for column in columns if column.strength == judge.judged]
        alive = columns if full or aside else judged
        everything = [Stage("every cell", [self.board.spots])]
        for stage in everything if full else stages(self.board.prompts, self.board.seeds):
            self.paint(stage, [baseline, *alive])
            if not (full or aside):
                alive = self._still_in(judge, judged)
            if self.purse.empty:
                break
        best = judged if aside else self._best(judge, judged)
        if not (full or aside):
            self.paint(
                Stage("strengths", self._pairs()), [c for c in columns if c not in judged and c.save == best[0].save]
            )
        for base in others:
            self._elsewhere(base, best, full=full)

    def paint(self, stage: Stage, columns: Sequence[Column]) -> None:
        """Draw the rounds of a stage that fit into the budget, in these columns."""
        if not columns:
            return
        free = set(self.plan.there)

        def cost(spot: Spot) -> int:
            return sum(cell.path.name not in free for cell in self.board.cells(columns, [spot]))

        paid = self.purse.pays(stage, cost, self.drawn[columns[0]])
        self._paint(columns, [spot for each in paid for spot in each], stage.name)

    def there(self) -> dict[Column, list[Spot]]:
        """Every spot whose file is there, also of earlier comparisons, where the baseline's is there too."""
        found: dict[Column, list[Spot]] = {}
        bases: dict[Checkpoint, list[Spot]] = {}
        for column in self.drawn:
            spots = bases.get(column.base, self.board.spots)
            found[column] = [spot for spot in spots if self.board.cell(column, spot).path.exists()]
            bases.setdefault(column.base, found[column])
        return found

    def _paint(self, columns: Sequence[Column], spots: Sequence[Spot], what: str) -> None:
        self.studio.paint(self.board.cells(columns, spots), self.work.track, f"comparing: {what}")
        for column in columns:
            self.drawn[column] += spots

    def _still_in(self, judge: Judge, judged: Sequence[Column]) -> list[Column]:
        """The saves that go on to the next stage; why the others do not is kept in the plan."""
        from lorafactory.scoring.evidence import evidence
        from lorafactory.scoring.verdict import standing

        gone = self.plan.carried | self.out
        self.plan.dropped = {c.tensors: gone[c.tensors] for c in judged if c.tensors in gone}
        names = {c.save.path.name: c for c in judged if c.save and c.tensors not in gone}
        table, yardstick = evidence(judge.tell({c: s for c, s in self.drawn.items() if s}, {}))
        table = [scores for scores in table if scores.save in names]
        if len({seed for _, seed in self.drawn[self.home[0]]}) > 1:
            out = standing(table, yardstick, limits(self.work))
        else:  # one seed tells no error to go by
            out = {} if self.purse.room is None else lower_half(table)
            self.out |= {names[name].tensors: why for name, why in out.items()}
        self.plan.dropped |= {names[name].tensors: why for name, why in out.items()}
        return [column for name, column in names.items() if name not in out]

    def _best(self, judge: Judge, judged: Sequence[Column]) -> list[Column]:
        from lorafactory.scoring.evidence import evidence
        from lorafactory.scoring.verdict import decide

        told = judge.tell({c: s for c, s in self.drawn.items() if s}, self.plan.dropped)
        pick = decide(*evidence(told), limits(self.work)).pick
        return [column for column in judged if column.save and column.save.path.name == pick]

    def _pairs(self) -> list[Round]:
        """What the baseline has, in the order in which it was drawn, as rounds of two."""
        spots = self.drawn[self.home[0]]
        return [spots[i : i + 2] for i in range(0, len(spots), 2)]

    def _elsewhere(self, base: Checkpoint, best: Sequence[Column], *, full: bool) -> None:
        """The best on another base, in the cells that tell most; what was asked for by name is outside the budget."""
        first = lead(self.board.prompts)
        spots = [spot for spot in self.drawn[self.home[0]] if full or spot[0] in first]
        columns = [Column(base), *(replace(column, base=base) for column in best)]
        self.drawn |= {column: [] for column in columns}
        self._paint(columns, spots, f"on {base.name}")


def lower_half(table: Sequence[Scores]) -> dict[str, str]:
    """The saves of the least likeness; at least two others stay."""
    ranked = sorted(table, key=lambda scores: -scores.mean)
    stay = max(2, (len(ranked) + 1) // 2)
    words = "likeness {:.3f}, in the lower half, and there was no time for a second seed of all"
    return {scores.save: words.format(scores.mean) for scores in ranked[stay:]}


def limits(work: Work) -> Thresholds:
    """The gates as `pick` will have them."""
    from lorafactory.scoring.verdict import Thresholds

    told = work.recipe.table("pick")
    return Thresholds(**{f.name: told[f.name] for f in fields(Thresholds) if f.name in told})
