import pickle

import pytest

from tremorscope.foundations.errors import (
    BadInput,
    MissingExtra,
    NotConverged,
    SiteNotFound,
    TremorscopeError,
    did_you_mean,
    nearest,
)

KINDS = [(BadInput, ValueError), (SiteNotFound, LookupError), (NotConverged, RuntimeError), (MissingExtra, ImportError)]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "size."),
        ({"got": -1}, "size: got -1."),
        ({"wanted": "more"}, "size: wanted more."),
        ({"got": 0, "wanted": "more"}, "size: got 0; wanted more."),
        ({"got": 0, "wanted": "more", "remedy": "Type 1."}, "size: got 0; wanted more. Type 1."),
        ({"remedy": "Type 1."}, "size. Type 1."),
    ],
)
def test_the_sentence_has_the_parts_that_were_given(parts, sentence):
    assert str(BadInput("size", **parts)) == sentence


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
def test_kinds_are_caught_as_ours_and_as_pythons(kind, builtin):
    for caught in (TremorscopeError, builtin):
        with pytest.raises(caught, match=r"what: got 3\."):
            raise kind("what", got=3)


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_errors_cross_process_borders_whole(kind):
    error = kind("what", got=(1, 2), wanted="three", remedy="Count again.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert (copy.what, copy.got, copy.wanted, copy.remedy) == ("what", (1, 2), "three", "Count again.")


def test_nearest_names():
    assert nearest("num_sed", ["num_seeds", "width", "num_steps"])[0] == "num_seeds"
    assert nearest("zzz", ["num_seeds"]) == []
    assert did_you_mean("widht", ["width"]) == "Did you mean 'width'?"
    assert did_you_mean("zzz", ["width"]) is None
