"""The policy that docs/add-a-policy.md writes, as the module that a user would have:
"tests.support.own_policy:MostTrusted"."""

from __future__ import annotations

import re

from tests.support.jobs import ROOT

PAGE = ROOT / "docs" / "add-a-policy.md"
SNIPPET = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]

exec(compile(SNIPPET, str(PAGE), "exec"), globals())
