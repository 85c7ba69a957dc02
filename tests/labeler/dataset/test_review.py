"""Reviews: what a person says of points, as a csv."""

from __future__ import annotations

import pytest

from labeler.dataset.review import read_review
from teachers import ConfigError

HEAD = "key,point,verdict\n"


def test_what_may_be_learnt_from(tmp_path):
    file = tmp_path / "review.csv"
    # as a spreadsheet writes it: a byte order mark, other columns, \r\n
    file.write_bytes(
        "\ufeffnote,key,point,verdict\r\nx,a,1,wrong\r\n,a,3,right\r\n,b,*,wrong\r\n,b,0,right\r\n".encode()
    )
    review = read_review(file)
    assert review.learnt("a", 4).tolist() == [True, False, True, True]
    assert review.learnt("a", 4, only=True).tolist() == [False, False, False, True]
    assert review.learnt("b", 3).tolist() == [True, False, False]
    assert review.learnt("c", 2).tolist() == [True, True]
    assert review.learnt("c", 2, only=True).tolist() == [False, False]


def test_lists_of_several_clips_can_be_put_together_as_they_are(tmp_path):
    file = tmp_path / "review.csv"
    file.write_text(f"{HEAD}a,1,wrong\n{HEAD}b,*,right\n{HEAD}a,1,wrong\n")
    review = read_review(file)
    assert review.learnt("a", 2).tolist() == [True, False]
    assert review.learnt("b", 2, only=True).tolist() == [True, True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("key,point\na,1\n", "no column 'verdict'"),
        ("", "no column 'key'"),
        (f"{HEAD}a,1,good\n", "line 2: verdict 'good': must be right or wrong"),
        (f"{HEAD}a,1\n", "line 2: verdict ''"),
        (f"{HEAD}a,1,right\na,-1,wrong\n", "line 3: point '-1'"),
        (f"{HEAD}a,1,right\na,1,wrong\n", "line 3: point 1 of a was called otherwise before"),
    ],
)
def test_what_cannot_be_right_is_named(tmp_path, text, why):
    file = tmp_path / "review.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_review(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_review(tmp_path / "none.csv")
