"""The boundary around what libraries do with a stranger's files: whatever they raise is an error of those files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from truing.data.timeout import at_most
from truing.errors import TruingError, UserError, one_line, redacted, visible

SECONDS = 300.0
"""Processor time a library may take for a config or a tokenizer. The largest in use takes seconds."""
WORDS = 200


@contextmanager
def foreign(error_of: Callable[[str], UserError], seconds: float | None = None) -> Iterator[None]:
    """Raise `error_of(message)` for anything that is raised in this block.

    It stands around calls of transformers, tokenizers, peft and safetensors with files from elsewhere, and around
    nothing of ours: they raise whatever a line of theirs meets (TypeError, ZeroDivisionError, a panic of Rust, which
    is no Exception), while a mistake of ours is to be seen. With `seconds` TimeoutError is one too, as `at_most` says.
    """
    try:
        if seconds is None:
            yield
        else:
            with at_most(seconds):
                yield
    except TruingError:
        raise
    except TimeoutError as error:
        text = f"it took more than {seconds:g} s to read" if seconds is not None and not error.args else words(error)
        raise error_of(text) from error
    except MemoryError as error:
        raise error_of("it asks for more memory than there is") from error
    except Exception as error:
        raise error_of(words(error)) from error
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise error_of(f"a library that reads it gave up ({words(error)})") from error


def words(error: BaseException) -> str:
    """Return an exception's message on one line and without keys: its first lines, or its type where it has none.

    >>> words(ValueError("no such layer"))
    'no such layer'
    >>> words(ZeroDivisionError())
    'ZeroDivisionError'
    """
    lines = [line.strip() for line in visible(redacted(str(error))).splitlines() if line.strip()]
    if isinstance(error, KeyError | AttributeError | TypeError | IndexError) or not lines:
        lines.insert(0, f"{type(error).__name__}:" if lines else type(error).__name__)  # a name alone says nothing
    text = lines.pop(0)
    while lines and len(text) < 60:  # the first line is often no more than a heading
        text = f"{text} {lines.pop(0)}"
    return one_line(text if len(text) <= WORDS else text[: WORDS - 3] + "...")
