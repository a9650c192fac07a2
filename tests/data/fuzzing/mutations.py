"""Sound files that were damaged on their way: bits turned, parts cut out, put in, doubled, or exchanged."""

from __future__ import annotations

from hypothesis import strategies as st

_ODD = st.sampled_from(
    [b"\0", b"\xff", b"\n", b'"', b"\0" * 8, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"'", b"{", b"]", b","]
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """A file after some changes; places near its begin and end are as likely as those between."""
    for _ in range(draw(st.integers(1, most))):
        if not content:
            break
        content = draw(_changed(content))
    return content


@st.composite
def _place(draw: st.DrawFn, size: int) -> int:
    near = draw(st.integers(0, min(size, 64) - 1)) if size else 0
    return draw(st.sampled_from([near, max(0, size - 1 - near), draw(st.integers(0, max(0, size - 1)))]))


@st.composite
def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    kind = draw(st.sampled_from(["turn", "turn", "set", "cut", "drop", "insert", "double", "exchange"]))
    at = draw(_place(len(content)))
    size = draw(st.sampled_from([1, 2, 4, 16, 64]))
    if kind == "turn":
        return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
    if kind == "set":
        odd = draw(_ODD)
        return content[:at] + odd + content[at + len(odd) :]
    if kind == "cut":
        return content[:at]
    if kind == "drop":
        return content[:at] + content[at + size :]
    if kind == "insert":
        return content[:at] + draw(_ODD | st.binary(min_size=1, max_size=8)) + content[at:]
    if kind == "double":
        return content[:at] + content[at : at + size] + content[at:]
    other = draw(_place(len(content)))
    first, second = sorted((at, other))
    size = min(size, second - first)
    middle = content[first + size : second]
    return (
        content[:first]
        + content[second : second + size]
        + middle
        + content[first : first + size]
        + content[second + size :]
    )
