"""Generate texts and bytes for the tests, the same in every run."""

from hypothesis import HealthCheck
from hypothesis import strategies as st

from shared.tokenizers.tests.oracle import SCRIPTS

# No clock decides: not how long an example may take, nor how long the making of one.
FIXED = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}


def _characters(*ranges: tuple[int, int]) -> st.SearchStrategy[str]:
    return st.one_of([st.integers(first, last).map(chr) for first, last in ranges])


# Every character, and those of the first planes more often.
CHARACTERS = _characters((0, 0x7F), (0x80, 0x2FF), (0x300, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
AWKWARD = st.sampled_from("'sStTlLrRveEdmſ _.,!?\r\n\t 019é漢\x85\u3000\x1c")

texts = st.text(st.one_of(CHARACTERS, AWKWARD, st.sampled_from("etaonis  '\n1."), st.sampled_from(SCRIPTS)))
texts_with_half_characters = st.text(st.one_of(CHARACTERS, AWKWARD, _characters((0xD800, 0xDFFF))))
data = st.one_of(st.binary(), st.tuples(texts, st.binary(), texts).map(lambda p: p[0].encode() + p[1] + p[2].encode()))
