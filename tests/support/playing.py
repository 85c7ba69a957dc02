"""What a test asks of a player in a real browser."""

from __future__ import annotations

from functools import partial

from tests.support.browser import evaluate_with

HELPERS = """
const root = document.querySelector(".player"), numbers = root.querySelector(".numbers");
const canvas = root.querySelector("canvas");
const press = (key) => {
  root.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  return root.dataset;
};
"""


ask = partial(evaluate_with, HELPERS)
