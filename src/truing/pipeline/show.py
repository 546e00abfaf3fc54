"""What a person sees while a run works: one line that moves on a terminal, plain lines otherwise, none when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from truing.terminal import say

INTERESTING = ("loss", "accuracy", "margin", "margin_nats", "chosen_log_ratio")


class Show:
    """Prints stage headings, notes and progress."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self.begin()

    def say(self, text: str, end: str = "\n") -> None:
        """A line for the reader, unless quiet; what a text from elsewhere would do to the terminal is made visible."""
        if not self.quiet:
            self._clear()
            say(text, end=end)

    def begin(self) -> None:
        """A new stretch of steps starts now."""
        self._begun, self._last, self._tokens, self._done = time.monotonic(), 0.0, 0, 0

    def step(self, row: Mapping[str, float], steps: int) -> None:
        """One step is done: tokens per second, time left and the metrics of this step that matter. Those of the last
        step are not shown: what a stage comes to is said when it is over."""
        self._tokens += int(row["tokens"])
        self._done += 1
        now = time.monotonic()
        last = row["step"] >= steps
        if self.quiet or (now - self._last < (0.5 if self.live else 10.0) and not last):
            return
        self._last = now
        speed = self._tokens / max(1e-9, now - self._begun)
        left = (now - self._begun) / self._done * (steps - row["step"])
        told = "" if last else "".join(f"  {name} {row[name]:.3f}" for name in INTERESTING if name in row)
        line = f"  step {row['step']}/{steps}{told}  {speed:,.0f} tokens/s  {left:.0f} s left"
        if self.live and not last:
            print("\r\x1b[K" + line, end="", file=sys.stderr, flush=True)
            return
        self._clear()
        print(line, flush=True)

    def _clear(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
