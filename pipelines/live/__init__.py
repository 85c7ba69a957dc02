"""The live page: a camera or a video in a browser, points that a person clicks, and trackers that
follow them while it runs.

    page (browser) <-- websocket --> server.py --> session.py --> following.py --> streams

`server.py` handles HTTP and who may ask, `session.py` points, frames, and answers, `following.py`
one tracker, and `recent.py` what can be saved.
"""
