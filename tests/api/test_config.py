"""The file that people edit: whatever stands in it, the last good one is in use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from stackyard_api.config import LARGEST, Config, LiveConfig

GOOD = 'banner = "Good"\npage_size = 20\n'


@contextmanager
def live() -> Iterator[tuple[LiveConfig, Path]]:
    """Return a configuration whose file is good, and read."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "app.toml")
        path.write_text(GOOD, encoding="utf-8")
        config = LiveConfig(path)
        assert config.refresh() == Config(banner="Good", page_size=20)
        yield config, path


def keeps_the_good_one(content: bytes) -> None:
    """Check what becomes of the configuration when this is what the file holds next."""
    with live() as (config, path):
        path.write_bytes(content)
        try:
            found = config.refresh()
        except Exception as error:
            # Not the error's own traceback: that of a recursion has thousands of lines.
            raise AssertionError(f"{type(error).__name__}: {str(error)[:100]}") from None
        if config.error is None:
            return
        assert found == Config(banner="Good", page_size=20)
        assert len(config.error.detail.splitlines()) == 1, config.error.detail
        lines = content.count(b"\n") + 1
        assert config.error.line is None or 1 <= config.error.line <= lines
        path.write_text(GOOD, encoding="utf-8")
        config.refresh()
        assert config.error is None


KEYS = st.sampled_from(
    ["banner", "colour", "page_size", "features", "features.a", "other", '"a b"']
)
VALUES = st.one_of(
    st.sampled_from(['"text"', '"#00ff00"', "5", "0", "101", "1.5", "true", "{a = true}", "{a = 1}",
                     "[1, 2]", "1979-05-27", "1979-13-45", "nan", '"', "'''", '"""', "", "="]),
    st.text(max_size=10),
)  # fmt: skip
LINES = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.sampled_from(["# why", "", "[features]", "[features", "[[features]]", "[other]", "\x00"]),
    st.text(max_size=15),
)
TEXTS = st.lists(LINES, max_size=6).map(lambda lines: "\n".join(lines).encode())


@hypothesis.settings(max_examples=hypothesis.settings().max_examples * 4)
@hypothesis.given(TEXTS | st.binary(max_size=60))
@hypothesis.example(b"a = " + b"[" * 5000)
@hypothesis.example(b"a = " + b"{a = " * 5000)
@hypothesis.example(b"page_size = " + b"1" * 5000)
@hypothesis.example(b"a." * 5000 + b"a = 1")
@hypothesis.example(b"banner = '\xff'")
@hypothesis.example(b"\xef\xbb\xbfbanner = 'a'")
@hypothesis.example(b"#" * (LARGEST + 1))
def test_any_content_is_taken_or_leaves_the_last_good_one(content: bytes) -> None:
    keeps_the_good_one(content)


@hypothesis.given(
    before=st.lists(st.sampled_from(["", "# page_size = 0", 'banner = "a"', "  "]), max_size=5),
    wrong=st.sampled_from([
        "page_size = 0", "page_size = 'a'", "colour = 'red'", "page_size = ", "x = [1", "pages = 5",
        "features = {a = 1}", "  page_size=999", '"page_size" = 0', "=",
    ]),
    after=st.lists(st.sampled_from(["", "# colour", "colour = '#112233'"]), max_size=2),
)  # fmt: skip
def test_line_that_is_wrong_is_named(before: list[str], wrong: str, after: list[str]) -> None:
    hypothesis.assume(before.count('banner = "a"') < 2)
    hypothesis.assume(after.count("colour = '#112233'") + ("colour" in wrong) < 2)
    # What an open bracket waits for is missed where the file ends, or something else begins.
    hypothesis.assume("[" not in wrong or not any(after))
    with live() as (config, path):
        path.write_text("\n".join([*before, wrong, *after]), encoding="utf-8")
        config.refresh()
        assert config.error
        assert config.error.line == len(before) + 1 + ("[" in wrong) * len(after)


def test_file_that_comes_goes_and_comes_back() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "app.toml")
        config = LiveConfig(path)
        assert config.refresh() == Config()
        assert config.error
        assert str(path) in config.error.detail
        path.write_text(GOOD, encoding="utf-8")
        assert config.refresh().banner == "Good"
        assert config.error is None
        path.unlink()
        assert config.refresh().banner == "Good"
        assert config.error
        path.mkdir()
        assert config.refresh().banner == "Good"
        assert config.error


@pytest.mark.parametrize("age", [0, 1_000_000_000])
def test_change_is_seen_at_once_however_it_is_written(age: int) -> None:
    with live() as (config, path):
        for size in range(11, 31):
            content = f"page_size = {size}\n"
            if size % 2:
                # As an editor does it.
                new = path.with_suffix(".new")
                new.write_text(content, encoding="utf-8")
                new.replace(path)
            else:
                path.write_text(content, encoding="utf-8")
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - age))
            assert config.refresh().page_size == size
