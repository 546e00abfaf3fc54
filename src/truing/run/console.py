"""Progress of a run: a bar that moves on a terminal, plain lines in a log, none when quiet."""

from __future__ import annotations

import io
import os
import sys
import time
from collections import deque
from collections.abc import Mapping

from truing.report import words
from truing.run import moment
from truing.terminal import moves, say

WINDOW = 10
"""Updates that a line's figures are means over: those of a single update are noisy."""
PLAIN, MOVING = 10.0, 0.2
"""Seconds between two lines of a log, and between two states of the bar."""
SLOWER = 50
"""Share of the time so far after which a log gets its next line: hundreds of lines, however long the run."""
NARROW, BAR = 80, 12


class Show:
    """Prints stage headings, notes and progress."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and moves(sys.stderr)
        self.begin()

    def say(self, text: str, end: str = "\n") -> None:
        """Print a line unless quiet, with the control codes of a text from elsewhere made visible."""
        if not self.quiet:
            self._clear()
            say(text, end=end)

    def begin(self) -> None:
        """Start counting steps, tokens and time anew."""
        self._begun, self._last, self._tokens, self._done = time.monotonic(), 0.0, 0, 0
        self._rows: deque[Mapping[str, float]] = deque(maxlen=WINDOW)

    def step(self, row: Mapping[str, float], steps: int) -> None:
        """Show a step: the stage's main metrics (means of the last steps), tokens per second, and the time left. Those
        of the last step are not shown: the stage's figures follow when it is over."""
        self._tokens += int(row["tokens"])
        self._done += 1
        self._rows.append(row)
        now, last = time.monotonic(), row["step"] >= steps
        taken = now - self._begun
        if self.quiet or (now - self._last < self._pause(taken) and not last):
            return
        self._last = now
        speed = f"{self._tokens / max(1e-9, taken):,.0f} tokens/s"
        if last:
            self.say(f"  step {row['step']}/{steps}  {speed}  in {words.seconds(taken)}")
            return
        left = f"{words.seconds(taken / self._done * (steps - row['step']))} left"
        of = f" (means of {len(self._rows)})" if len(self._rows) > 1 else ""
        about = f"{moment.summary(list(self._rows))}{of}  {speed}"
        if self.live:
            drawn = drawn_bar(int(row["step"]), steps, left, about, width())
            print("\r\x1b[K" + drawn, end="", file=sys.stderr, flush=True)
        else:
            self.say(f"  step {row['step']}/{steps}  {about}  {left}")

    def _pause(self, taken: float) -> float:
        return MOVING if self.live else max(PLAIN, taken / SLOWER)

    def _clear(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def drawn_bar(step: int, steps: int, left: str, about: str, most: int) -> str:
    """A bar with its step, the time left and the stage's main metrics, on one line of at most `most` columns.

    `rich` draws it into a text and does not own the terminal: what it would send there to move the cursor is what
    `terminal.guard` shows as codes, and one line that begins anew needs none of it.

    >>> drawn_bar(5, 10, "3.0 s left", "loss 0.5", 60)
    '  ━━━━━━        5/10  3.0 s left  loss 0.5'
    """
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    page = io.StringIO()
    bar = ProgressBar(total=steps, completed=step, width=BAR)
    Console(file=page, width=BAR, no_color=True, force_terminal=True, legacy_windows=False).print(bar)
    line = f"  {set_cell_size(page.getvalue().rstrip(), BAR)}  {step}/{steps}  {left}  {about}"
    return line if cell_len(line) < most else set_cell_size(line, most - 2) + "…"


def width() -> int:
    """The columns of the terminal that the bar is on; those of a narrow one where that cannot be asked."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or NARROW
    except (OSError, ValueError):
        return NARROW
