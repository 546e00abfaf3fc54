"""Which settings the numeric tests run under, and that one which a processor does not have is left out with a word."""

import pytest

import numeric


@pytest.mark.parametrize("part", numeric.PARTS)
def test_every_numeric_part_is_there(part) -> None:
    assert (numeric.TESTS / part).exists()


def test_a_lesser_set_is_the_next_below_the_processors_own() -> None:
    assert numeric.limits("own", "AVX512") == {} == numeric.limits("own", "SVE256")
    assert numeric.limits("lower", "AVX512") == numeric.limits("avx2", "AVX512") == numeric.LIMITS["AVX2"]
    assert numeric.limits("lower", "AVX2") == numeric.limits("plain", "AVX512") == numeric.LIMITS["DEFAULT"]
    assert numeric.limits("lower", "DEFAULT") == "this processor has nothing below DEFAULT"
    assert numeric.limits("avx2", "AVX2") == "AVX2 is not below this processor's own, AVX2"
    assert numeric.limits("lower", "SVE256") == "torch knows one instruction set on this processor, SVE256"


def test_a_setting_that_is_left_out_is_named_and_no_failure(capsys) -> None:
    assert numeric.run("avx2:1", 1, "DEFAULT", []) == 0
    assert capsys.readouterr().out == "numeric: avx2:1 is skipped: this processor has nothing below DEFAULT\n"


def test_the_limits_are_what_torch_keeps_to() -> None:
    """The set below this processor's own, as torch itself reports it."""
    own = numeric.reported({})
    below = numeric.limits("lower", own)
    if isinstance(below, str):
        pytest.skip(below)
    assert numeric.LIMITS[numeric.reported(below)] == below


@pytest.mark.parametrize("text", ["own", "own:", "own:0", "sse9:1", "own:two"])
def test_a_setting_that_is_none(text, capsys) -> None:
    with pytest.raises(SystemExit):
        numeric.main([text])
    assert "is no INSTRUCTIONS:THREADS of own, lower, avx2, plain" in capsys.readouterr().err
