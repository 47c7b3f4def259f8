from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.site import TAGS, Site, Span

ENDS = st.none() | st.integers(-50, 50)
SPANS = st.builds(Span, ENDS, ENDS, st.none() | st.integers(-5, 5).filter(bool))
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,6}(\.[a-z0-9_]{1,6}){0,3}", fullmatch=True)
NUMBERS = st.lists(st.integers(0, 12).map(str), min_size=1, max_size=3).map(".".join)
PORTS = st.builds("{}.{}".format, st.sampled_from(["in", "out"]), NUMBERS) | st.builds(
    "kwarg.{}".format, st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
)
GLOBS = st.lists(st.from_regex(r"[a-z*?\[\]!._0-9]{1,10}", fullmatch=True), min_size=1, max_size=3).map(",".join)
SITES = (
    st.builds(Site, kind=st.sampled_from(["input", "train.init"]))
    | st.builds(Site, kind=st.just("weights"), pattern=GLOBS)
    | st.builds(
        Site,
        kind=st.just("acts"),
        pattern=NAMES,
        port=st.none() | PORTS,
        position=st.none() | st.integers(-50, 50) | SPANS | st.sampled_from(TAGS),
    )
)


@settings(deadline=None)
@given(SITES)
def test_every_site_comes_back_from_its_address(site):
    assert Site.parse(str(site)) == site
    assert hash(Site.parse(str(site))) == hash(site)


ALMOST = st.builds(
    "{}{}{}".format, SITES.map(str), st.sampled_from([":", "@", ",", " ", ":out.", "@1:"]), st.text(max_size=3)
)


@settings(deadline=None)
@given(st.text(max_size=20) | st.builds("{}:{}".format, st.sampled_from(["acts", "weights"]), st.text()) | ALMOST)
def test_any_text_is_a_site_that_comes_back_or_an_error_in_four_parts(text):
    try:
        site = Site.parse(text)
    except BadInput as refused:
        error = refused
    else:
        assert Site.parse(str(site)) == site
        return
    assert error.got
    assert error.wanted


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("weights:*.weight, *.bias", Site(kind="weights", pattern="*.weight,*.bias")),
        ("acts:resid_pre.3", Site(kind="acts", pattern="resid_pre.3")),
        ("acts:resid_pre.3@-1", Site(kind="acts", pattern="resid_pre.3", position=-1)),
        ("acts:h.0:out.1.0", Site(kind="acts", pattern="h.0", port="out.1.0")),
        ("acts:h.0:in.0@last", Site(kind="acts", pattern="h.0", port="in.0", position="last")),
        ("acts:h:kwarg.attention_mask", Site(kind="acts", pattern="h", port="kwarg.attention_mask")),
        ("acts:h:out.12@2:9:3", Site(kind="acts", pattern="h", port="out.12", position=Span(2, 9, 3))),
        (" input ", Site(kind="input")),
        ("train.init", Site(kind="train.init")),
    ],
)
def test_the_grammar(address, wanted):
    assert Site.parse(address) == wanted


def test_a_site_is_already_parsed():
    site = Site.parse("weights:*")
    assert Site.parse(site) is site


def test_a_span_is_a_slice():
    assert list(range(10))[Span(-4, None, 2).to_slice()] == [6, 8]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "got an empty address; wanted weights:GLOB"),
        ("fc1.weight", r"got no prefix.*write 'weights:fc1.weight'"),
        ("weight:fc1", "got the prefix 'weight'.*Did you mean 'weights'"),
        ("blocks:fc1", "got the prefix 'blocks'"),
        ("weights:", "an empty pattern.*'weights:\\*'"),
        ("weights:a,,b", "an empty pattern"),
        ("input:0", "got something after 'input'.*stands alone"),
        ("acts:", "the module name ''"),
        ("acts:h:out", "the part 'out'"),
        ("acts:h:0:4", "the part '0:4'.*Positions follow an @"),
        ("acts:h@", "the position ''"),
        ("acts:h@lst", "the position 'lst'.*Did you mean 'last'"),
        ("acts:h@1:2:0", "the position '1:2:0'"),
        ("acts:h@1.5", "the position '1.5'"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(address, sentence):
    with pytest.raises(BadInput, match=sentence):
        Site.parse(address)
