"""Reviews: what a person says of points, as a csv."""

from __future__ import annotations

import numpy as np
import pytest

from labeler.dataset.review import Fit, read_review
from teachers import ConfigError

HEAD = "key,point,verdict\n"


def test_what_may_be_learnt_from(tmp_path):
    file = tmp_path / "review.csv"
    # as a spreadsheet writes it: a byte order mark, other columns, \r\n
    file.write_bytes(
        "\ufeffnote,key,point,verdict\r\nx,a,1,wrong\r\n,a,3,right\r\n,b,*,wrong\r\n,b,0,right\r\n".encode()
    )
    review = read_review(file)
    queries = np.arange(12.0).reshape(4, 3)
    assert review.learnt("a", queries).tolist() == [True, False, True, True]
    assert review.learnt("a", queries, only=True).tolist() == [False, False, False, True]
    assert review.learnt("b", queries[:3]).tolist() == [True, False, False]
    assert review.learnt("c", queries[:2]).tolist() == [True, True]
    assert review.learnt("c", queries[:2], only=True).tolist() == [False, False]
    with pytest.raises(ConfigError, match=r"point 3 of a, which has 2 points.*Review this clip"):
        review.learnt("a", queries[:2])


def test_a_query_is_found_by_its_place_whatever_its_number_is_by_now(tmp_path):
    file = tmp_path / "review.csv"
    rows = ("a,0,wrong,0,1.5,2", "a,1,right,4,30.13,7.25", "a,2,wrong,4,30.13,9")
    file.write_text("\n".join(["key,point,verdict,t,x,y", *rows, HEAD + "a,2,right"]))
    review, fit = read_review(file), Fit()
    queries = np.array([[4, 30.128, 7.25], [9, 9, 9], [0, 1.5, 2]], np.float32)
    with pytest.raises(ConfigError, match="one row calls point 2 of a right, and another wrong"):
        review.learnt("a", queries)
    queries = queries[[0, 2, 1]]  # the list by hand means another point now
    learnt = review.learnt("a", queries, only=True, fit=fit)
    assert learnt.tolist() == [True, False, True]
    assert (fit.there, fit.moved, fit.gone) == (3, 2, 1)


def test_of_queries_at_one_place_the_number_decides(tmp_path):
    file = tmp_path / "review.csv"
    file.write_text("key,point,verdict,t,x,y\na,1,wrong,0,1,2\n")
    same = np.array([[0, 1, 2], [0, 1, 2]], np.float32)
    assert read_review(file).learnt("a", same).tolist() == [True, False]


def test_lists_of_several_clips_can_be_put_together_as_they_are(tmp_path):
    file = tmp_path / "review.csv"
    file.write_text(f"{HEAD}a,1,wrong\n{HEAD}b,*,right\n{HEAD}a,1,wrong\n")
    review = read_review(file)
    queries = np.arange(6.0).reshape(2, 3)
    assert review.learnt("a", queries).tolist() == [True, False]
    assert review.learnt("b", queries, only=True).tolist() == [True, True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("key,point\na,1\n", "no column 'verdict'"),
        ("", "no column 'key'"),
        (f"{HEAD}a,1,good\n", "line 2: verdict 'good': must be right or wrong"),
        (f"{HEAD}a,1\n", "line 2: verdict ''"),
        (f"{HEAD}a,1,right\na,-1,wrong\n", "line 3: point '-1'"),
        ("key,point,verdict,t,x,y\na,1,right,0,,3\n", "line 2: query 0, , 3: t, x, and y must be"),
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
